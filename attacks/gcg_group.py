"""GCG on several behaviors at once: their searches go in step, and every pass through the model is shared.

Each step is kept in the run's memo as soon as it is made. A group that was cut off goes on from the last step that all
of its members have, so that a pass holds what it held before and gives the numbers it gave.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from weakref import WeakKeyDictionary

from attacks.gcg_search import Search, Step
from attacks.packed import apart
from harness.budget import estimate
from harness.errors import UsageError
from harness.types import Context, Meter, Prompt

_QUEUES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, dict[str, Member]]] = WeakKeyDictionary()


@dataclass(slots=True)
class Member:
    """One search of a group. `open` makes it, at its start."""

    key: str
    lines: list[tuple[str, str]]
    context: Context
    open: Callable[[list[tuple[str, str]], Context], Search]
    search: Search | None = None
    error: Exception | None = None  # why it could not be opened

    @property
    def at(self) -> Search:
        """The search, once it is open."""
        assert self.search is not None
        return self.search

    def kept(self) -> Step | None:
        """The next step, where an earlier start made it."""
        told = self.context.memo.get(f"{self.key}/{len(self.at.steps)}")
        return None if told is None else Step(**json.loads(told))

    def goes_on(self) -> bool:
        """Whether there is another step to make, and the budget has room for one like the dearest so far."""
        steps, meter = self.at.steps, self.context.meter
        return not self.at.done and meter.allows(cost(max(steps, key=lambda step: step.tokens)) if steps else {})

    def result(self) -> dict[str, Any]:
        """The first and the best suffix as text, and what they cost."""
        tokens, steps = self.at.tokens, self.at.steps
        spent = {"steps": float(len(steps))}
        for step in steps:
            for name, n in cost(step).items():
                spent[name] = spent.get(name, 0) + n
        ended = {"exhausted": 1.0} if self.context.meter.exhausted else {}
        spent = {name: round(n, 3) for name, n in spent.items()} | ended
        return {"seed": tokens.decode(self.at.seed), "suffix": tokens.decode(self.at.best[1]), "spent": spent}


def waiting(*who: Hashable) -> dict[str, Member]:
    """Searches of one kind that wait for their turn, in the order in which they came."""
    return _QUEUES.setdefault(asyncio.get_running_loop(), {}).setdefault(who, {})


def cost(step: Step) -> dict[str, float]:
    """What a step has cost, by the names of a meter."""
    told = {"target_tokens": step.tokens, "attacker_tokens": step.drafted, "seconds": step.seconds}
    return {name: n for name, n in told.items() if n}


def leave_room(context: Context, longest: Prompt) -> None:
    """Leaves room in a search's budget for two requests of this length: where it began, and what it found."""
    each = context.sampling.max_tokens + estimate(longest)
    context.meter.keep.update(target_queries=2.0, target_tokens=2.0 * each)


def repay(meter: Meter, spent: Mapping[str, float]) -> None:
    """Brings a case's meter to what its search has spent, whether that was now or on an earlier start."""
    for name, n in spent.items():
        if name == "exhausted":
            meter.exhausted = True
        elif name != "steps":
            meter.counts[name] = n


async def search_together(group: Sequence[Member]) -> None:
    """Takes every search of a group to its end and keeps what each has found; one that can't begin stops no other."""
    for member in group:
        try:
            member.search = await apart(member.open, member.lines, member.context)
        except UsageError:
            raise
        except Exception as err:  # the edge of one search: it is raised where it belongs
            member.error = err
    group = [member for member in group if member.error is None]
    while active := [member for member in group if member.goes_on()]:
        known = [member.kept() for member in active]
        if all(known):
            for member, step in zip(active, known, strict=True):
                assert step is not None
                member.at.replay(step)
        else:  # some or all are new: the whole pass is made again, as it was
            searches = [member.at for member in active]
            steps = await apart(type(searches[0]).advance, searches)
            for member, step in zip(active, steps, strict=True):
                member.context.memo.put(f"{member.key}/{len(member.at.steps) - 1}", json.dumps(asdict(step)))
        for member in active:
            for name, n in cost(member.at.steps[-1]).items():
                member.context.meter.add(name, n)
    for member in group:
        member.context.memo.put(f"{member.key}/found", json.dumps(member.result()))
