"""Many-shot jailbreaking: a long dialogue in which every request is granted, then the request.

Paper: Anil et al. 2024, "Many-shot jailbreaking" (NeurIPS), up to 256 shots in powers of two. No upstream code.
Differs: the 64 bundled demonstrations give away harmless party tricks; a file of your own can hold more, and others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

from attacks.bundled import check_count, counts, load_demonstrations
from harness.types import Attack, Attempt, Behavior, Context, Message, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyShot(Attack):
    """A dialogue in which n other requests are granted, then the request.

    One attempt for each n of `shots`. One seed shuffles the demonstrations alike for all behaviors, so that prompts
    share their prefix (and its cache) and a longer dialogue begins with the shorter one. 64 shots take 5,000 tokens.
    """

    name: ClassVar[str] = "many_shot"

    shots: tuple[int, ...] = (4, 8, 16, 32)
    as_turns: bool = False  # True: real chat turns; False: the paper's dialogue inside one user turn
    demonstrations: str = ""  # a JSONL file of your own, each row with `request` and `reply`; "" takes the bundled ones
    sha256: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shots", counts("shots", self.shots, least=1))
        check_count("shots", self.shots[-1], least=1, most=len(load_demonstrations(self.demonstrations, self.sha256)))

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """One attempt a number of shots."""
        shown = list(load_demonstrations(self.demonstrations, self.sha256))
        context.rng(self.name).shuffle(shown)
        pairs = [(shot.request, shot.reply) for shot in shown]
        for n in self.shots:
            yield Attempt(
                behavior=behavior,
                attack=self.name,
                variant=f"n{n}",
                seed=context.seed,
                prompt=self._dialogue(pairs[:n], behavior.request),
            )

    def _dialogue(self, pairs: list[tuple[str, str]], request: str) -> Prompt:
        if not self.as_turns:
            turns = [f"User: {asked}\nAssistant: {given}" for asked, given in pairs]
            return Prompt.chat("\n\n".join([*turns, f"User: {request}\nAssistant:"]))
        messages: list[Message] = []
        for asked, given in pairs:
            messages += [Message(role="user", content=asked), Message(role="assistant", content=given)]
        return Prompt(messages=(*messages, Message(role="user", content=request)))
