"""Any OpenAI-compatible endpoint: chat, and where the server can, raw completions, prefills and log-probabilities."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import ModelError, ModelTimeout, UsageError
from harness.models.options import ModelOptions
from harness.types import Capability, Completion, Finish, Prompt, Sampling

PIECE = re.compile(r"\w+|[^\w\s]|\s+")
VLLM_CAN: frozenset[Capability] = frozenset({"chat", "raw", "prefill", "logprobs"})


@dataclass(slots=True)
class OpenAI:
    """A model behind an endpoint. Requests beyond `options.concurrency` wait here, not at the server."""

    name: str
    served: str
    options: ModelOptions
    can: frozenset[Capability] = frozenset({"chat"})
    _client: Any = None
    _slots: asyncio.Semaphore | None = field(default=None, repr=False)

    @classmethod
    async def open(cls, name: str, options: ModelOptions) -> OpenAI:
        """Connects and asks what is served. Raises UsageError: no key, no server, no such model."""
        import openai

        local = options.base_url is not None
        key = os.environ.get(options.api_key_env, "")
        if not key and not local:
            raise UsageError(f"no API key in {options.api_key_env}", hint=f"export {options.api_key_env}=...")
        client = openai.AsyncOpenAI(
            base_url=options.base_url, api_key=key or "none", timeout=options.timeout, max_retries=5
        )
        model = cls(name=name, served=name, options=options, _client=client)
        model._slots = asyncio.Semaphore(options.concurrency)
        try:
            await model._ask_what_it_can()
        except BaseException:
            await client.close()
            raise
        return model

    async def _ask_what_it_can(self) -> None:
        """Lists the served models once; vLLM's own server says so and is known to do everything."""
        import openai

        where = self.options.base_url or "the endpoint"
        try:
            served = {m.id: m for m in (await self._client.with_options(max_retries=1).models.list()).data}
        except openai.AuthenticationError as err:
            raise UsageError(f"{where} refuses the key", hint=f"check {self.options.api_key_env}") from err
        except openai.APIConnectionError as err:
            raise UsageError(
                f"{where} can't be reached", hint="is the server up, and does --base-url end in /v1?"
            ) from err
        except openai.APIStatusError as err:
            if err.status_code != 404:  # some servers do not list; let the first request tell
                raise UsageError(f"{where} answers {err.status_code} when asked for its models") from err
            served = {}
        if served and self.name not in served:
            raise UsageError(f"{where} does not serve {self.name!r}", hint=f"it serves: {', '.join(sorted(served))}")
        if served and getattr(served[self.name], "owned_by", "") == "vllm":
            self.can = VLLM_CAN
        self.can |= frozenset(self.options.capabilities)  # type: ignore[arg-type]

    def describe(self) -> dict[str, Any]:
        """What is known of an endpoint: where it is and which model it serves."""
        return {"kind": "openai", "base_url": self.options.base_url or "default", "served": self.served}

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
        """Completes one prompt. Raises ModelTimeout or ModelError with what the server said, less any text of ours."""
        began = time.perf_counter()
        body = self._body(sampling)
        assert self._slots is not None
        async with self._slots:
            if prompt.text is None:
                raw = await self._call(self._client.chat.completions.create, messages=chat(prompt), **body)
                text = raw.choices[0].message.content
            else:
                raw = await self._call(self._client.completions.create, prompt=prompt.text + prompt.prefill, **body)
                text = raw.choices[0].text
        if text is None:
            raise ModelError("the endpoint answered without text")
        finish: Finish = "length" if raw.choices[0].finish_reason == "length" else "stop"
        return Completion(
            text=text,
            model=self.name,
            finish=finish,
            tokens_in=raw.usage.prompt_tokens if raw.usage else 0,
            tokens_out=raw.usage.completion_tokens if raw.usage else 0,
            seconds=time.perf_counter() - began,
            logprobs=alternatives(raw.choices[0]),
        )

    def _body(self, sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.served,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.logprobs:
            body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
        if sampling.schema:
            schema = {"name": "reply", "strict": True, "schema": json.loads(sampling.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    async def _call(self, create: Any, **body: Any) -> Any:
        """One request; the client itself waits and retries on 429 (Retry-After is kept) and on lost connections."""
        import openai

        if "messages" in body and body["messages"][-1]["role"] == "assistant":
            opened = {"add_generation_prompt": False, "continue_final_message": True}
            body["extra_body"] = {**body.get("extra_body", {}), **opened}
        if "prompt" in body and "logprobs" in body:
            body["logprobs"] = body.pop("top_logprobs")
        try:
            raw = await create(**body)
        except openai.APITimeoutError as err:
            raise ModelTimeout(f"no answer within {self.options.timeout:g} s") from err
        except openai.APIConnectionError as err:
            raise ModelError("the connection to the endpoint was lost") from err
        except openai.APIStatusError as err:
            after = err.response.headers.get("retry-after", "")
            wait = float(after) if after.replace(".", "", 1).isdigit() else None
            raise ModelError(f"the endpoint answered {err.status_code}", retry_after=wait) from err
        if not raw.choices:
            raise ModelError("the endpoint answered without a choice")
        return raw

    async def loglikelihood(self, prompt: Prompt, continuation: str) -> tuple[float, bool]:
        """From the log-probabilities vLLM's server returns for a prompt that ends in `continuation`."""
        whole = replace(prompt, prefill=prompt.prefill + continuation)
        extra = {"prompt_logprobs": 1}
        body: dict[str, Any] = {"model": self.served, "max_tokens": 1, "temperature": 0.0, "extra_body": extra}
        assert self._slots is not None
        async with self._slots:
            if prompt.text is None:
                raw = await self._call(self._client.chat.completions.create, messages=chat(whole), **body)
                told = raw.prompt_logprobs
            else:
                text = prompt.text + whole.prefill
                raw = await self._call(self._client.completions.create, prompt=text, **body)
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
