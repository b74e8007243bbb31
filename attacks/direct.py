"""The request as it is: the baseline every attack is compared with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

from harness.types import Attack, Attempt, Behavior, Context, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct(Attack):
    """The bare request in one user turn, no attack at all."""

    name: ClassVar[str] = "direct"

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """One attempt: the request itself."""
        yield Attempt(behavior=behavior, attack=self.name, seed=context.seed, prompt=Prompt.chat(behavior.request))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast(Direct):
    """The bare request, for the unsafe prompts of an over-refusal set: counted apart."""

    name: ClassVar[str] = "contrast"
