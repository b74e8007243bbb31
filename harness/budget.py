"""What an attack may spend on one behavior (`--budget queries=60,tokens=20000`), kept at every call of a model.

A call is let through when the most it can cost still fits beside what was spent and what calls under way may cost; one
that does not fit yet waits for those. So a budget is never passed, but for what an endpoint's tokens differ from the
estimate of a prompt's (its characters over three). A search leaves room for the request that its result is sent with,
as long as its longest prompt. Nobody knows beforehand what a call takes of the machine's time, nor is a verdict
refused: `seconds` and the judge's limits stop the calls that come after they are reached, not those under way. What a
search has spent of them stops searching, never the request that its result is sent with.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.errors import BudgetSpent, UnknownName, UsageError
from harness.models.costs import Price
from harness.types import (
    Attempt,
    Capability,
    Completion,
    Context,
    Judge,
    Judgement,
    Meter,
    Model,
    Prompt,
    Record,
    Sampling,
)

ROLES = ("target", "attacker", "judge")
LIMITS = (*Meter.SUMS, "seconds", *(f"{role}_{unit}" for role in ROLES for unit in ("queries", "tokens")))


def read_budget(given: Sequence[str]) -> dict[str, float]:
    """Limits by name from `name=number` pairs. Raises UsageError or UnknownName."""
    limits: dict[str, float] = {}
    for item in given:
        name, equals, text = (part.strip() for part in item.partition("="))
        if not equals:
            raise UsageError(f"--budget {item!r} is not of the form name=number", hint="--budget queries=60")
        if name not in LIMITS:
            raise UnknownName("budget", name, LIMITS)
        try:
            limits[name] = float(text)
        except ValueError:
            limits[name] = 0
        if not 0 < limits[name] < float("inf"):
            raise UsageError(f"--budget {name}={text} must be a number above 0")
    return limits


def check_budget(given: Sequence[str], max_tokens: int) -> None:
    """Raises UsageError for a budget that is none, or that holds not even one reply."""
    for name, limit in read_budget(given).items():
        if name in ("tokens", "target_tokens") and limit <= max_tokens:
            hint = f"more than --max-tokens {max_tokens}, or a smaller --max-tokens"
            raise UsageError(f"--budget {name}={limit:g} does not hold one reply", hint=hint)


def estimate(prompt: Prompt) -> int:
    """About as many tokens as a prompt has, rather more than fewer."""
    texts = [prompt.text or "", prompt.prefill, *(message.content for message in prompt.messages)]
    return sum(map(len, texts)) // 3 + 4 * len(prompt.messages)


@dataclass(slots=True)
class Till:
    """Where one case pays: every call of its models and its judge is counted here, and none goes past the budget."""

    meter: Meter
    prices: Mapping[str, Price] = field(default_factory=dict)  # of endpoints, by model
    failed: bool = False  # an attempt has no verdict: it will be tried again
    last: tuple[int, str] | None = None  # index and key of the last attempt that was sent
    _reply: int = 0  # the longest that an attempt's own reply can be, in tokens
    _held: Counter[str] = field(default_factory=Counter)  # the most that calls under way can cost
    _asked: set[Any] = field(default_factory=set)
    _lap: dict[str, float] = field(default_factory=dict)
    _change: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def opened(cls, limits: Mapping[str, float], sampling: Sampling, prices: Mapping[str, Price] | None = None) -> Till:
        """A till with nothing spent."""
        keep = {"target_queries": 1.0, "target_tokens": float(sampling.max_tokens)}
        return cls(Meter(limits=limits, keep=keep), prices or {}, _reply=sampling.max_tokens)

    def context(self, context: Context) -> Context:
        """The same context, its models and its judge paid for here."""
        return replace(
            context,
            target=Paid(context.target, "target", self),
            attacker=Paid(context.attacker, "attacker", self),
            judge=PaidJudge(context.judge.name, context.judge, self),
            meter=self.meter,
        )

    def lap(self) -> dict[str, float]:
        """What searching has cost since the last lap."""
        now, before, self._lap = self.meter.counts, self._lap, dict(self.meter.counts)
        return {name: n - before.get(name, 0) for name, n in now.items() if n != before.get(name, 0)}

    async def search(self, model: Model, role: str, prompt: Prompt, sampling: Sampling) -> Completion:
        """A search's call. Raises BudgetSpent when it does not fit; a request that was answered before is free."""
        if role == "target":  # it may be the one to be sent: room for the longest
            self.meter.keep["target_tokens"] = max(self.meter.keep["target_tokens"], self._reply + estimate(prompt))
        completion, cost = await self._call(model, role, prompt, sampling, searching=True)
        for name, n in cost.items():
            self.meter.add(name, n)
        return completion

    async def send(self, model: Model, prompt: Prompt, sampling: Sampling) -> tuple[Completion, dict[str, float]]:
        """The request of an attempt, and what it cost. Raises BudgetSpent when it does not fit."""
        completion, cost = await self._call(model, "target", prompt, sampling, searching=False)
        self.paid(cost)
        return completion, cost

    def asked(self, model: Model, prompt: Prompt, sampling: Sampling) -> bool:
        """Whether this case has had an answer to the request: it costs nothing more."""
        return (model.name, prompt, sampling) in self._asked

    def paid(self, cost: Mapping[str, float]) -> None:
        """Counts what an attempt itself has cost."""
        for name, n in cost.items():
            self.meter.sent[name] = self.meter.sent.get(name, 0) + n

    def settled(self, index: int, key: str, *, failed: bool = False) -> None:
        """Notes the attempt that stands last, and whether any will have to be tried again."""
        self.last = max(self.last or (index, key), (index, key))
        self.failed = self.failed or failed

    def sent_before(self, index: int, record: Record) -> None:
        """Takes over an attempt that an earlier start has sent."""
        self.paid(own_cost(record))
        self.settled(index, record.key)

    def verdict(self, attempt: Attempt, completion: Completion, judgement: Judgement) -> dict[str, float]:
        """What a verdict cost; one on the same reply is free the second time."""
        key = ("judge", attempt.prompt, completion.text)
        cost = {} if key in self._asked else {"judge_queries": 1.0, "judge_tokens": float(judgement.tokens)}
        self._asked.add(key)
        return {name: n for name, n in cost.items() if n}

    async def _call(
        self, model: Model, role: str, prompt: Prompt, sampling: Sampling, *, searching: bool
    ) -> tuple[Completion, dict[str, float]]:
        key = (model.name, prompt, sampling)
        if key in self._asked:
            return await model.generate(prompt, sampling), {}
        most = {f"{role}_queries": 1, f"{role}_tokens": estimate(prompt) + sampling.max_tokens}
        await self._admit(most, searching=searching)
        try:
            completion = await model.generate(prompt, sampling)
        except BaseException as err:
            self.meter.add(f"{role}_queries")  # it was made, whatever came of it
            if isinstance(err, asyncio.CancelledError):  # under way: it was read, and what it wrote nobody knows
                self.meter.add(f"{role}_tokens", estimate(prompt))
            raise
        finally:
            self._held.subtract(most)
            self._change.set()
            self._change = asyncio.Event()
        self._asked.add(key)
        tokens = completion.tokens_in + completion.tokens_out
        cost: dict[str, float] = {f"{role}_queries": 1, f"{role}_tokens": tokens}
        cost[f"{role}_written"] = completion.tokens_out
        if price := self.prices.get(model.name):
            cost["usd"] = price.cost(completion.tokens_in, completion.tokens_out)
        return completion, {name: n for name, n in (cost | {"seconds": completion.busy}).items() if n}

    async def _admit(self, most: Mapping[str, int], *, searching: bool) -> None:
        """Returns when a call that costs at most this fits. Raises BudgetSpent once it never will."""
        alone = Counter(most) + Counter(self.meter.keep if searching else {})
        while not self.meter.fits(alone + self._held, searching=searching):
            if not self.meter.fits(alone, searching=searching) or not +self._held:
                self.meter.exhausted = True
                raise BudgetSpent("the budget is spent")
            await self._change.wait()
        self._held.update(most)


@dataclass(frozen=True, slots=True)
class Paid:
    """A model in one role of one case."""

    model: Model
    role: str
    till: Till

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def can(self) -> frozenset[Capability]:
        """What the model can do."""
        return self.model.can

    def describe(self) -> dict[str, Any]:
        """The model's identity."""
        return self.model.describe()

    def head(self, text: str, k: int) -> str:
        """The first `k` tokens of `text`, as text."""
        return self.model.head(text, k)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """The model's reply, counted. Raises BudgetSpent instead of passing a limit."""
        return await self.till.search(self.model, self.role, prompt, sampling)

    async def loglikelihood(self, prompt: Prompt, continuation: str) -> tuple[float, bool]:
        """The model's score; counted as a query that reads its prompt, in estimated tokens."""
        cost = {f"{self.role}_queries": 1.0, f"{self.role}_tokens": estimate(prompt) + len(continuation) / 3}
        if not self.till.meter.allows(cost):
            raise BudgetSpent("the budget is spent")
        for name, n in cost.items():
            self.till.meter.add(name, n)
        return await self.model.loglikelihood(prompt, continuation)

    def weights(self) -> tuple[Any, Any]:
        """The model's torch module and tokenizer; the search itself adds what it does with them."""
        return self.model.weights()

    async def close(self) -> None:
        """Closes the model."""
        await self.model.close()


@dataclass(slots=True)
class PaidJudge:
    """The judge of one case, as its search asks it.

    Its calls are counted and never refused: a reply that was paid for is worth its verdict.
    """

    name: str
    inner: Judge
    till: Till

    async def judge(self, attempt: Attempt, completion: Completion, said: str) -> Judgement:
        """The judge's verdict, counted."""
        try:
            judgement = await self.inner.judge(attempt, completion, said)
        except BaseException:
            self.till.meter.add("judge_queries")
            raise
        for name, n in self.till.verdict(attempt, completion, judgement).items():
            self.till.meter.add(name, n)
        return judgement


def own_cost(record: Record) -> dict[str, float]:
    """What an attempt's own request and verdict cost, by its record."""
    return {
        "target_queries": 1,
        "target_tokens": record.tokens_in + record.tokens_out,
        "judge_queries": float(bool(record.judgements)),
        "judge_tokens": record.judgements[0].tokens if record.judgements else 0,
    }


def merged(*costs: Mapping[str, float]) -> dict[str, float]:
    """The sum of several costs, name by name."""
    names = dict.fromkeys(name for cost in costs for name in cost)
    return {name: round(sum(cost.get(name, 0) for cost in costs), 6) for name in names}
