"""A model that never answers the same request twice: what the run folder holds is not paid for again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from harness.store import Store, request_key
from harness.types import Capability, Completion, Model, Prompt, Sampling


@dataclass(slots=True)
class Usage:
    """What was really sent, this time: requests, tokens in and out."""

    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, completion: Completion) -> None:
        """Counts one reply."""
        self.requests += 1
        self.tokens_in += completion.tokens_in
        self.tokens_out += completion.tokens_out


@dataclass(slots=True)
class Flight:
    """A request under way, and how many wait for its reply."""

    task: asyncio.Task[Completion]
    waiting: int = 0


@dataclass(slots=True)
class Remembered:
    """A model whose replies are kept in a store; a request asked twice at once is sent once."""

    model: Model
    store: Store
    usage: Usage = field(default_factory=Usage)
    _flying: dict[str, Flight] = field(default_factory=dict)

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
        """The remembered reply, or a new one, which is kept before it is returned.

        A request is called off when the last who waits for it is cancelled.
        """
        key = request_key(self.model.name, prompt, sampling)
        known = self.store.completions.get(key)
        if known is not None:
            return known
        flight = self._flying.get(key)
        if flight is None or flight.task.done():
            flight = self._flying[key] = Flight(asyncio.create_task(self._ask(key, prompt, sampling)))
        flight.waiting += 1
        try:
            # Shielded: another asker may wait for the same reply when this one is cancelled.
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and self._flying.get(key) is flight:
                del self._flying[key]
                flight.task.cancel()  # of one that is done this does nothing

    async def _ask(self, key: str, prompt: Prompt, sampling: Sampling) -> Completion:
        completion = await self.model.generate(prompt, sampling)
        self.store.put_completion(key, prompt, sampling, completion)
        self.usage.add(completion)
        return completion

    async def loglikelihood(self, prompt: Prompt, continuation: str) -> tuple[float, bool]:
        """The remembered score, or a new one."""
        key = "loglikelihood/" + request_key(self.model.name, prompt, Sampling(stop=(continuation,)))
        known = self.store.get(key)
        if known is not None:
            value, greedy = known.split()
            return float(value), greedy == "True"
        score = await self.model.loglikelihood(prompt, continuation)
        self.store.put(key, f"{score[0]!r} {score[1]}")
        return score

    def weights(self) -> tuple[Any, Any]:
        """The model's torch module and tokenizer."""
        return self.model.weights()

    async def close(self) -> None:
        """Closes the model."""
        await self.model.close()
