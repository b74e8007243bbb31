"""PAIR: an attacker model rewrites a request until the target gives in (Chao et al. 2023, arXiv:2310.08419).

Sizes and sampling follow patrickrchao/JailbreakingLLMs; the prompts are our own words. What differs: the judge is the
run's, a verdict that could not be read is never a score, a stream that breaks leaves the others alone, every call has
its own seed, and no stream waits for another: all of them are in flight at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from attacks.bundled import check_count, check_number
from attacks.refine import (
    APPROACHES,
    FIRST,
    MOVE_SCHEMA,
    Round,
    best_attempt,
    briefing,
    feedback,
    guarded,
    play,
    propose,
)
from harness.errors import UnknownName
from harness.types import Attack, Attempt, Behavior, Capability, Context, Message, Prompt, Sampling

SIZES: dict[str, tuple[int, int]] = {"paper": (20, 3), "code": (3, 3), "jailbreakbench": (30, 3)}
"""Streams and iterations, by where they are from; DeRTa used the paper's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(Attack):
    """Streams of an attacker model that refines its prompt from the target's reply and score.

    One behavior costs at most `budget()` calls. Yields the best prompt found: a success where there is one, else one
    whose reply could not be judged, else the highest score. Raises ModelError when no stream got a reply.
    """

    name: ClassVar[str] = "pair"

    preset: str = "paper"  # streams x iterations: paper (20 x 3), code (3 x 3), jailbreakbench (30 x 3)
    streams: int = 0  # 0: the preset's
    iterations: int = 0  # 0: the preset's
    tries: int = 5  # calls of the attacker for one usable prompt
    memory: int = 4  # turns the attacker sees, the one it has to answer included
    attacker_tokens: int = 500
    target_tokens: int = 150
    temperature: float = 1.0
    top_p: float = 0.9

    def __post_init__(self) -> None:
        if self.preset not in SIZES:
            raise UnknownName("preset of pair", self.preset, SIZES)
        for name in ("streams", "iterations"):
            check_count(name, getattr(self, name), least=0)
        for name in ("tries", "memory", "attacker_tokens", "target_tokens"):
            check_count(name, getattr(self, name), least=1)
        check_number("temperature", self.temperature)
        check_number("top_p", self.top_p, most=1, zero=False)

    @property
    def size(self) -> tuple[int, int]:
        """Streams and iterations."""
        streams, iterations = SIZES[self.preset]
        return self.streams or streams, self.iterations or iterations

    def budget(self) -> dict[str, int]:
        """The most calls one behavior can cost, by role, when no server asks to come back later."""
        rounds = self.size[0] * self.size[1]
        return {"attacker": rounds * self.tries, "target": rounds + 1, "judge": rounds + 1}

    def describe(self, behaviors: Sequence[Behavior], can: Collection[Capability]) -> dict[str, Any]:
        """The most that one behavior can cost."""
        most = self.budget()
        calls = ", ".join(f"{n} of the {role}" for role, n in most.items())
        return {"budget": most, "notes": [f"{self.name}: at most {calls} for a behavior"]}

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """One attempt: the best prompt of all streams."""
        search = Search(attack=self, behavior=behavior, context=context)
        rounds = await search.run()
        yield best_attempt(self.name, behavior, context, rounds)


@dataclass(slots=True, kw_only=True)
class Search:
    """One behavior's streams. `won` is the earliest success so far, in the order of iteration, then stream.

    That order, not the clock, picks the winner, so a re-run finds the same one however fast the replies come.
    """

    attack: Pair
    behavior: Behavior
    context: Context
    rounds: list[Round] = field(default_factory=list)
    won: tuple[int, int] | None = None
    at: dict[int, int] = field(default_factory=dict)  # stream -> the iteration it is in
    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self) -> list[Round]:
        """Plays all streams to their end or to the first success, and returns every round played."""
        async with asyncio.TaskGroup() as group:
            for stream in range(min(self.attack.size[0], self.affordable())):
                self.tasks[stream] = group.create_task(self.stream(stream))
        return self.rounds

    def affordable(self) -> int:
        """How many streams the budget takes through a round: it is not all spent on the attacker's first words."""
        limits = self.context.meter.limits
        tokens = self.attack.attacker_tokens + self.attack.target_tokens + 1000  # about what both read
        rounds = [(limits[name] - 1) // n for name, n in (("queries", 2), ("tokens", tokens)) if name in limits]
        return max(1, int(min(rounds, default=self.attack.size[0])))

    async def stream(self, stream: int) -> None:
        """Plays one stream; a round that breaks is kept as such, and the next iteration starts from where it was."""
        turns = [FIRST]
        for iteration in range(self.attack.size[1]):
            order = (iteration, stream)
            if self.context.meter.exhausted or (self.won and self.won < order):
                return
            self.at[stream] = iteration
            played = await guarded(self.round(order, turns), order, self.context.meter)
            self.rounds.append(played)
            if played.success:
                self.stop_after(order)

    def stop_after(self, order: tuple[int, int]) -> None:
        """Ends every stream that could only find a later success than this one."""
        self.won = min(self.won or order, order)
        for stream, task in self.tasks.items():
            if (self.at.get(stream, 0), stream) > self.won:
                task.cancel()

    async def round(self, order: tuple[int, int], turns: list[Message]) -> Round:
        """One prompt from the attacker, put to the target and judged; adds the move and its outcome to `turns`."""
        system = Message(role="system", content=briefing(self.behavior, APPROACHES[order[1] % len(APPROACHES)]))
        seen = Prompt(messages=(system, *turns[1 - 2 * self.attack.memory :]))
        move = await propose(self.context.attacker, seen, self.sampling, self.seeds(order))
        asked = Round(order=order, prompt=move.prompt)
        played = await play(self.attack.name, self.behavior, self.context, asked, self.attack.target_tokens)
        turns += [move.message, feedback(self.behavior, played)]
        return played

    @property
    def sampling(self) -> Sampling:
        """How the attacker writes; each call sets its own seed."""
        a = self.attack
        return Sampling(max_tokens=a.attacker_tokens, temperature=a.temperature, top_p=a.top_p, schema=MOVE_SCHEMA)

    def seeds(self, order: tuple[int, int]) -> range:
        """One seed for each try, shared with no other round of this behavior."""
        base = self.context.rng(self.attack.name, self.behavior.id).randrange(2**30)
        first = base + (order[0] * self.attack.size[0] + order[1]) * self.attack.tries
        return range(first, first + self.attack.tries)
