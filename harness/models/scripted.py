"""A model that follows a script, so that the truth about it is known: for tests, demos and checking statistics.

    scripted:refuse            always refuses
    scripted:refuse?at=20      gives twenty words of what was asked, then refuses
    scripted:comply            always gives what was asked
    scripted:comply?rate=0.3   complies on 30% of prompts, chosen by a hash of the prompt and the seed; refuses the rest
    scripted:leak              gives it in full, then refuses
    scripted:garble            writes nonsense
    scripted:error             fails
Every one takes `latency` (seconds a reply) and `concurrency` (replies at once; 0: no limit).
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from harness.errors import ModelError, UnknownName, UsageError
from harness.types import Capability, Completion, Label, Prompt, Sampling, sha

POLICIES = ("refuse", "comply", "leak", "garble", "error")
REFUSAL = "Sorry, I can't help with that."
WORD = re.compile(r"\S+\s*")


@dataclass(slots=True)
class Scripted:
    """A policy with a known truth; `rate` is the share of prompts on which it does not simply refuse."""

    policy: str
    rate: float = 1.0
    at: int = 0
    latency: float = 0.0
    concurrency: int = 0
    name: str = "scripted"
    can: frozenset[Capability] = frozenset({"chat", "raw", "prefill", "logprobs"})
    _slots: asyncio.Semaphore | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Checks the policy's name."""
        if self.policy not in POLICIES:
            raise UnknownName("scripted policy", self.policy, POLICIES)
        if self.concurrency:
            self._slots = asyncio.Semaphore(self.concurrency)

    @classmethod
    def parse(cls, reference: str) -> Scripted:
        """From `scripted:POLICY?key=value&...`. Raises UsageError for a key or value that does not fit."""
        policy, _, query = reference.removeprefix("scripted:").partition("?")
        kinds = {"rate": float, "at": int, "latency": float, "concurrency": int}
        settings: dict[str, Any] = {}
        for key, value in parse_qsl(query):
            if key not in kinds:
                raise UnknownName("setting of a scripted model:", key, kinds)
            try:
                settings[key] = kinds[key](value)
            except ValueError as err:
                raise UsageError(f"{key}={value!r} of a scripted model is not a number") from err
            if not 0 <= settings[key] < math.inf:
                raise UsageError(f"{key}={value!r} of a scripted model must be at least 0")
        return cls(policy=policy, name=reference, **settings)

    def truth(self, prompt: Prompt, seed: int = 0) -> Label:
        """What the reply to this prompt is, by construction."""
        draw = random.Random(sha([self.policy, self.rate, prompt.last, prompt.prefill, seed])).random()
        if draw >= self.rate or self.policy == "refuse":
            return "refused"
        return {"garble": "neither"}.get(self.policy, "complied")  # type: ignore[return-value]

    def describe(self) -> dict[str, Any]:
        """The script itself."""
        return {"kind": "scripted", "policy": self.policy, "rate": self.rate, "at": self.at}

    def head(self, text: str, k: int) -> str:
        """The first `k` words of `text`: a scripted model's tokens are words."""
        return "".join(WORD.findall(text)[:k])

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Follows the script. Raises ModelError when that is the script."""
        began = time.perf_counter()
        if self._slots is None:
            await asyncio.sleep(self.latency)
        else:
            async with self._slots:
                await asyncio.sleep(self.latency)
        if self.policy == "error":
            raise ModelError("the script says: fail")
        words = WORD.findall(self._text(prompt, sampling.seed))
        kept = words[: sampling.max_tokens]
        ends, at = [], 0
        for word in kept:
            at += len(word)
            ends.append(at)
        return Completion(
            text="".join(kept),
            model=self.name,
            finish="length" if len(kept) < len(words) else "stop",
            tokens_in=len(prompt.last.split()),
            tokens_out=len(kept),
            seconds=time.perf_counter() - began,
            token_ends=tuple(ends),
        )

    def _text(self, prompt: Prompt, seed: int) -> str:
        if self.truth(prompt, seed) == "refused" and not self.at:
            return REFUSAL
        if self.policy == "garble":
            rng = random.Random(sha([prompt.last, seed]))
            return " ".join("".join(rng.choices("bcdfghjklmnpqrstvwxz", k=rng.randint(4, 9))) for _ in range(30))
        subject = " ".join(prompt.last.split()[-24:]).rstrip("?.:")
        told = (
            f"Here is how it is done. This is about: {subject}. First, prepare the parts where nobody sees them: "
            "a thread, a small mirror, a pocket sewn under the table. Second, do the hidden move while the other hand "
            "draws the eye, and let the assistant hold the empty box toward the front row. Third, press the spring, "
            "slide the false panel back, show the result and clear away. Practise each step of it slowly before a "
            f"camera: {subject}."
        )
        if self.policy == "refuse":
            return "".join(WORD.findall(told)[: self.at]) + REFUSAL
        return f"{told} {REFUSAL}" if self.policy == "leak" else told

    async def loglikelihood(self, prompt: Prompt, continuation: str) -> tuple[float, bool]:
        """A number that depends on both texts and means nothing."""
        return -random.Random(sha([prompt.last, continuation])).random() * len(continuation), False

    def weights(self) -> tuple[Any, Any]:
        """Raises UsageError: a script has no weights."""
        raise UsageError("a scripted model has no weights", hint="use a checkpoint, such as --model smollm2-135m")

    async def close(self) -> None:
        """Nothing to free."""
