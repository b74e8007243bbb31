"""Any OpenAI-compatible endpoint: chat, and where the server can, raw completions, prefills and log-probabilities."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from harness import progress
from harness.errors import ModelError, ModelTimeout, UsageError
from harness.models.costs import Bill, Price, size
from harness.models.hub import bare, is_url
from harness.models.options import ModelOptions
from harness.models.pace import LONGEST, Pace, backoff, told_to_wait
from harness.models.providers import Provider, provider
from harness.types import Capability, Completion, Finish, Prompt, Sampling

PIECE = re.compile(r"\w+|[^\w\s]|\s+")
VLLM_CAN: frozenset[Capability] = frozenset({"chat", "raw", "prefill", "logprobs"})
TRIES = 8  # of one request, where the endpoint is busy or the connection is lost
BUSY = (408, 409, 429, 500, 502, 503, 504, 529)
UP = "is the server up, and does --base-url end in /v1?"
HELPER_KEYS = "name its variable: --judge-api-key-env NAME (or --attacker-..., --reference-...)"
OPTIONAL = ("temperature", "top_p", "seed", "top_logprobs", "logprobs", "response_format")
"""Settings that some models refuse. A run goes on without them, and says so."""


@dataclass(slots=True)
class OpenAI:
    """A model behind an endpoint. Requests beyond `options.concurrency` wait here, not at the server."""

    name: str
    served: str
    options: ModelOptions
    can: frozenset[Capability] = frozenset({"chat"})
    host: Provider | None = None
    price: Price | None = None
    notes: tuple[str, ...] = ()
    _client: Any = None
    _slots: asyncio.Semaphore | None = field(default=None, repr=False)
    _pace: Pace = field(default_factory=Pace)
    _dropped: set[str] = field(default_factory=set)
    _key_works: bool = False  # once it has answered: then a 403 is about one request

    @classmethod
    async def open(cls, reference: str, options: ModelOptions) -> OpenAI:
        """Connects and asks what is served. Raises UsageError: no key, no server, no such model, no known price."""
        import openai

        if is_url(reference):  # it would become the model's name in every record
            hint = "--model NAME --base-url URL"
            raise UsageError(f"{bare(reference)} is an address, where a served name is wanted", hint=hint)
        host = None if options.base_url else provider(reference)
        name = reference.partition("/")[2] if host else reference
        url = options.base_url or (host.base_url if host else "") or os.environ.get("OPENAI_BASE_URL") or None
        variable = host.key if host and options.api_key_env in ("", ModelOptions().api_key_env) else options.api_key_env
        key = os.environ.get(variable, "")
        if not key and host:
            raise UsageError(f"no API key in {variable}", hint=f"export {variable}=...")
        model = cls(name=name, served=name, options=replace(options, base_url=url, api_key_env=variable), host=host)
        # Retries are ours: they count against the limits, and when one is told to wait, all wait.
        model._client = openai.AsyncOpenAI(base_url=url, api_key=key or "none", timeout=options.timeout, max_retries=0)
        model._slots = asyncio.Semaphore(options.concurrency)
        model._pace = Pace(requests=options.requests_per_minute, tokens=options.tokens_per_minute)
        try:
            model._ask_for_its_price()
            await model._ask_what_it_can()
        except BaseException:
            await model._client.close()
            raise
        return model

    def _ask_for_its_price(self) -> None:
        """What it costs; a server on this machine costs nothing."""
        at = urlsplit(self.options.base_url or "").hostname or ""
        if self.options.purse is not None and at != "localhost" and not at.startswith("127.") and at != "::1":
            self.price = self.options.purse.price(self.served)
            if self.price is None:
                self._note(f"the price of {self.served} is unknown: what it costs is not counted (--prices FILE)")
        if self.host and self.host.ignores:
            self._note(f"{self.host.name} takes these settings without heeding them: {', '.join(self.host.ignores)}")

    def _note(self, text: str) -> None:
        """Says something aloud once, and keeps it for the report."""
        if text not in self.notes:
            self.notes = (*self.notes, text)
            progress.say(text)

    async def _ask_what_it_can(self) -> None:
        """Lists the served models once; vLLM's own server says so and is known to do everything."""
        import openai

        self.can |= frozenset(self.options.capabilities)  # type: ignore[arg-type]
        if self.host and self.host.base_url:  # hosts list in ways of their own; let the first request tell
            return
        where = self._where()
        try:
            served = {m.id: m for m in (await self._client.with_options(max_retries=1).models.list()).data}
        except openai.AuthenticationError as err:
            raise UsageError(f"{where} refuses the key", hint=self._check_key()) from err
        except openai.APIConnectionError as err:
            raise UsageError(f"{where} can't be reached", hint=UP) from err
        except openai.APIStatusError as err:
            if err.status_code != 404:  # some servers do not list; let the first request tell
                raise UsageError(f"{where} answers {err.status_code} when asked for its models") from err
            served = {}
        except (AttributeError, TypeError, ValueError) as err:  # what the client makes of a page that is no list
            raise UsageError(f"{where} answered no JSON that lists its models", hint=UP) from err
        if served and self.served not in served:
            raise UsageError(f"{where} does not serve {self.name!r}", hint=f"it serves: {', '.join(sorted(served))}")
        if served and getattr(served[self.served], "owned_by", "") == "vllm":
            self.can |= VLLM_CAN

    def _where(self) -> str:
        """The endpoint in messages, without what may be secret in its address."""
        return bare(self.options.base_url or "the endpoint")

    def _check_key(self) -> str:
        """What to do about a key that is refused."""
        return f"check {self.options.api_key_env}" if self.options.api_key_env else f"no key was sent: {HELPER_KEYS}"

    def describe(self) -> dict[str, Any]:
        """What is known of an endpoint: where it is and which model it serves."""
        told = {"kind": "openai", "base_url": bare(self.options.base_url or "default"), "served": self.served}
        return {**told, "left_out": sorted(self._dropped)} if self._dropped else told

    def head(self, text: str, k: int) -> str:
        """The first `k` words or signs of `text`: the endpoint's tokenizer is not known."""
        kept, n = [], 0
        for piece in PIECE.findall(text):
            n += not piece.isspace()
            if n > k:
                break
            kept.append(piece)
        return "".join(kept).rstrip() if k > 0 else ""

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Completes one prompt. Raises ModelTimeout, OverBudget, or ModelError with what the server said."""
        assert self._slots is not None
        async with self._slots, self._paying(prompt, sampling.max_tokens) as bill:
            return await self._complete(prompt, sampling, bill)

    def _paying(self, prompt: Prompt, max_tokens: int) -> AbstractAsyncContextManager[Bill]:
        if self.price is None or self.options.purse is None:
            return nullcontext(Bill())
        return self.options.purse.paying(self.price, prompt, max_tokens)

    async def _complete(self, prompt: Prompt, sampling: Sampling, bill: Bill) -> Completion:
        began = time.perf_counter()
        body, expected = self._body(sampling), size(prompt) // 3 + sampling.max_tokens
        if prompt.text is None:
            create = self._client.chat.completions.create
            raw = await self._call(bill, create, expected, messages=chat(prompt), **body)
            text = raw.choices[0].message.content
        else:
            text = prompt.text + prompt.prefill
            raw = await self._call(bill, self._client.completions.create, expected, prompt=text, **body)
            text = raw.choices[0].text
        if text is None:
            raise ModelError("the endpoint answered without text")
        read, written = used(raw)
        finish: Finish = "length" if raw.choices[0].finish_reason == "length" else "stop"
        return Completion(
            text=text,
            model=self.name,
            finish=finish,
            tokens_in=read,
            tokens_out=written,
            seconds=time.perf_counter() - began,
            logprobs=alternatives(raw.choices[0]),
        )

    def _body(self, sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.served,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": sampling.seed,
        }
        if sampling.top_p < 1:  # some models refuse it beside a temperature
            body["top_p"] = sampling.top_p
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        if sampling.schema:
            schema = {"name": "reply", "strict": True, "schema": json.loads(sampling.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    async def _call(self, bill: Bill, create: Any, expected: int, **body: Any) -> Any:
        """One request of about so many tokens: waits for its turn, tries again where the endpoint is busy.

        What the answer used is added to the `bill` before anything else is asked of it: it is billed all the same.
        A time-out is not tried again: the endpoint may be writing, and billing, all the same.
        """
        import openai

        if "messages" in body and body["messages"][-1]["role"] == "assistant" and not self.host:
            opened = {"add_generation_prompt": False, "continue_final_message": True}
            body["extra_body"] = {**body.get("extra_body", {}), **opened}
        if "prompt" in body and "logprobs" in body:
            body["logprobs"] = body.pop("top_logprobs")
        wait: float | None
        tries = 0
        while True:
            entry = await self._pace.turn(expected)
            sent = self._less_dropped(body)
            try:
                raw = await create(**sent)
            except asyncio.CancelledError:
                bill.lost = True
                raise
            except (json.JSONDecodeError, UnicodeDecodeError) as err:
                raise ModelError("the endpoint answered no JSON") from err
            except openai.APITimeoutError as err:
                bill.lost = True
                raise ModelTimeout(f"no answer within {self.options.timeout:g} s") from err
            except openai.APIConnectionError as err:
                wait, failed = backoff(tries), ModelError("the connection to the endpoint was lost")
                failed.__cause__ = err
            except openai.APIStatusError as err:
                self._pace.settle(entry, 0)
                if self._refused_setting(err, sent):
                    continue
                wait, failed = self._answered(err, tries)
            else:
                if not hasattr(raw, "usage"):  # the client gives a page of another type as its text
                    raise ModelError("the endpoint answered no JSON")
                self._key_works = True
                read, written = used(raw)
                self._pace.settle(entry, read + written or expected)
                choices = getattr(raw, "choices", None)  # absent from an error under status 200
                if raw.usage or choices:
                    bill.settled.append(Completion(text="", model=self.name, tokens_in=read, tokens_out=written))
                if not choices:
                    raise ModelError("the endpoint answered without a choice")
                return raw
            tries += 1
            if wait is None or tries >= TRIES:
                raise failed
            await asyncio.sleep(wait)

    def _less_dropped(self, body: dict[str, Any]) -> dict[str, Any]:
        """A request without the settings that this model is known to refuse."""
        kept = {k: v for k, v in body.items() if k not in self._dropped}
        if "max_tokens" in self._dropped and "max_tokens" in body:
            kept["max_completion_tokens"] = body["max_tokens"]
        return kept

    def _refused_setting(self, err: Any, sent: dict[str, Any]) -> bool:
        """Whether the endpoint refused one setting that was sent and can be left out: remembered, and said once."""
        if err.status_code not in (400, 422):
            return False
        told = str(err.message).lower()
        named = getattr(err, "param", None) or next((k for k in ("max_tokens", *OPTIONAL) if k in told), "")
        refused = any(word in told for word in ("support", "forbidden", "not permitted", "unknown", "unrecognized"))
        if not refused or named not in ("max_tokens", *OPTIONAL) or named not in sent:
            return False
        self._dropped.add(named)
        if named != "max_tokens":  # it goes by its newer name
            self._note(f"{self.served} refuses the setting {named}: replies are drawn with the endpoint's own")
        return True

    def _answered(self, err: Any, tries: int) -> tuple[float | None, ModelError]:
        """How long to wait before the next try (None: don't), and what to say when there is none."""
        code = err.status_code
        where = self._where()
        if code == 401 or (code == 403 and not self._key_works and not flagged(err)):
            raise UsageError(f"{where} refuses the key ({code})", hint=self._check_key()) from err
        told = told_to_wait(err.response.headers)
        failed = ModelError(f"the endpoint answered {code}", retry_after=told)
        failed.__cause__ = err
        spent = str(getattr(err, "code", "")) == "insufficient_quota"
        if spent:
            raise UsageError(
                f"{where}: the account has no credit left", hint="top it up; the same command goes on"
            ) from err
        if code not in BUSY or (told is not None and told > LONGEST):
            return None, failed
        wait = backoff(tries) if told is None else told
        if code in (429, 503, 529):
            self._pace.hold(wait)
            return 0.0, failed
        return wait, failed

    async def loglikelihood(self, prompt: Prompt, continuation: str) -> tuple[float, bool]:
        """From the log-probabilities vLLM's server returns for a prompt that ends in `continuation`."""
        whole = replace(prompt, prefill=prompt.prefill + continuation)
        extra = {"prompt_logprobs": 1}
        body: dict[str, Any] = {"model": self.served, "max_tokens": 1, "temperature": 0.0, "extra_body": extra}
        expected = size(whole) // 3 + 1
        assert self._slots is not None
        async with self._slots, self._paying(whole, 1) as bill:
            if prompt.text is None:
                create = self._client.chat.completions.create
                raw = await self._call(bill, create, expected, messages=chat(whole), **body)
                told = raw.prompt_logprobs
            else:
                text = prompt.text + whole.prefill
                raw = await self._call(bill, self._client.completions.create, expected, prompt=text, **body)
                told = raw.choices[0].prompt_logprobs
        return tail_likelihood(told, continuation)

    def weights(self) -> tuple[Any, Any]:
        """Raises UsageError: an endpoint does not give its weights."""
        raise UsageError("an endpoint does not give its weights", hint="open the checkpoint itself with --model")

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.close()


def chat(prompt: Prompt) -> list[dict[str, str]]:
    """The messages as the API takes them; a prefill becomes an opened assistant turn."""
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    return [*turns, {"role": "assistant", "content": prompt.prefill}] if prompt.prefill else turns


def used(raw: Any) -> tuple[int, int]:
    """Tokens in and out as the endpoint counted them; zeros where it does not say."""
    return (raw.usage.prompt_tokens or 0, raw.usage.completion_tokens or 0) if raw.usage else (0, 0)


def flagged(err: Any) -> bool:
    """Whether a 403 is about what was asked and not about the key: OpenRouter's moderation says why, and of what."""
    told = err.body.get("metadata") if isinstance(err.body, dict) else None
    return isinstance(told, dict) and ("reasons" in told or "flagged_input" in told)


def alternatives(choice: Any) -> tuple[dict[str, float], ...]:
    """Per token: each alternative's log-probability, in the chat or the completions shape; empty when not given."""
    told = choice.logprobs
    if told is None:
        return ()
    if getattr(told, "content", None):
        return tuple({a.token: a.logprob for a in at.top_logprobs} for at in told.content)
    return tuple(dict(at or {}) for at in getattr(told, "top_logprobs", None) or ())


def tail_likelihood(told: list[Any] | None, continuation: str) -> tuple[float, bool]:
    """Sum over the last tokens of a prompt that together spell `continuation`. Raises ModelError when none are told.

    `told` holds, for each token, `{id: {"logprob": float, "rank": int, "decoded_token": str}}`; the one that
    stands in the prompt comes first.
    """
    if not told:
        raise ModelError("the endpoint gives no log-probabilities of a prompt")
    total, greedy, spelled = 0.0, True, ""
    for at in reversed(told):
        if len(spelled) >= len(continuation) or not at:
            break
        token = next(iter(at.values()))
        spelled = token["decoded_token"] + spelled
        total += token["logprob"]
        greedy = greedy and token["rank"] == 1
    return total, greedy
