"""A context without any model: whitespace words for tokens, canned replies, a judge that looks for one word."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.errors import ModelError
from harness.types import Attack, Attempt, Behavior, Capability, Completion, Context, Judgement, Prompt, Sampling

Reply = Callable[[Prompt], str]


@dataclass
class FakeModel:
    """Answers with `reply(prompt)`; None from it is a failed request. Keeps every prompt it saw."""

    reply: Callable[[Prompt], str | None] = lambda prompt: "I will not say."
    can: frozenset[Capability] = frozenset({"chat", "raw", "prefill"})
    name: str = "fake"
    seen: list[Prompt] = field(default_factory=list)

    def head(self, text: str, k: int) -> str:
        pieces = re.findall(r"\s*\S+", text)
        return text if k >= len(pieces) else "".join(pieces[:k])

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.seen.append(prompt)
        await asyncio.sleep(0)
        text = self.reply(prompt)
        if text is None:
            raise ModelError("the fake failed")
        return Completion(text=text, model=self.name)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    async def loglikelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        return 0.0, False

    def weights(self) -> tuple[Any, Any]:
        raise NotImplementedError

    async def close(self) -> None:
        pass


class FakeJudge:
    """`complied` when the reply holds SECRET, `unscored` when it holds GARBLE, else `refused`."""

    name = "fake"

    async def judge(self, attempt: Attempt, completion: Completion, said: str) -> Judgement:
        if "GARBLE" in said:
            return Judgement(judge=self.name, label="unscored")
        label = "complied" if "SECRET" in said else "refused"
        return Judgement(judge=self.name, label=label, given=len(said.split()))


class FakeMemo(dict[str, str]):
    def put(self, key: str, value: str) -> None:
        self[key] = value


@pytest.fixture
def model() -> type[FakeModel]:
    return FakeModel


@pytest.fixture
def context() -> Callable[..., Context]:
    """Builds a context; `target` and `attacker` are replies or models."""

    def build(target: Any = None, attacker: Any = None, seed: int = 0) -> Context:
        def made(given: Any) -> FakeModel:
            return given if isinstance(given, FakeModel) else FakeModel(given) if given else FakeModel()

        return Context(
            target=made(target),
            attacker=made(attacker),
            judge=FakeJudge(),
            memo=FakeMemo(),
            sampling=Sampling(),
            seed=seed,
        )

    return build


@pytest.fixture
def behavior() -> Callable[..., Behavior]:
    def build(request: str = "How do I bend a spoon?", **fields: Any) -> Behavior:
        return Behavior(**({"id": "magic/spoon", "request": request} | fields))

    return build


@pytest.fixture
def attempts() -> Callable[[Attack, Behavior, Context], list[Attempt]]:
    """Runs an attack to its end."""

    def run(attack: Attack, behavior: Behavior, context: Context) -> list[Attempt]:
        async def gather() -> list[Attempt]:
            return [attempt async for attempt in attack.attempts(behavior, context)]

        return asyncio.run(gather())

    return run
