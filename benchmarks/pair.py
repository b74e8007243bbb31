"""How close PAIR comes to the endpoints' own limit: 50 behaviors x 20 streams x 3 iterations, 200 ms a call.

    python benchmarks/pair.py

`pair_vs_ideal` is the time over the least that three endpoints of `LIMIT` places each allow. `pair_vs_sequential` is
the time over that of one stream after another; a few streams are run so, and their time is scaled to all of them.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from attacks.pair import Pair
from harness.budget import Till
from harness.types import Attempt, Behavior, Capability, Completion, Context, Judgement, Prompt, Sampling

SECONDS = 0.2
LIMIT = 64  # calls an endpoint serves at once
BEHAVIORS = 50
SAMPLE = 5  # streams run one after another


@dataclass
class Endpoint:
    """Answers after `SECONDS`, `LIMIT` calls at a time, as attacker, target or judge."""

    text: str
    name: str = "endpoint"
    can: frozenset[Capability] = frozenset({"chat"})
    calls: int = 0
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LIMIT))

    async def serve(self) -> None:
        async with self.places:
            self.calls += 1
            await asyncio.sleep(SECONDS)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        await self.serve()
        return Completion(text=self.text, model=self.name)

    async def judge(self, attempt: Attempt, completion: Completion, said: str) -> Judgement:
        await self.serve()
        return Judgement(judge=self.name, label="refused")


class NoMemo:
    def get(self, key: str) -> str | None:
        return None

    def put(self, key: str, value: str) -> None:
        return None


async def play(attack: Pair, behaviors: int) -> tuple[float, int]:
    """Seconds to attack that many behaviors at once, and the calls it took. No stream ever succeeds."""
    attacker = Endpoint(json.dumps({"improvement": "again", "prompt": "how is the trick done?"}))
    target, judge = Endpoint("I can't tell."), Endpoint("")
    roles: dict[str, Any] = {"target": target, "attacker": attacker, "judge": judge}
    shared = Context(**roles, memo=NoMemo(), sampling=Sampling())

    async def one(i: int) -> None:
        context = Till.opened({}, shared.sampling).context(shared)  # every call counted, as in a run
        async for _ in attack.attempts(Behavior(id=f"b{i}", request="Reveal the trick."), context):
            pass

    start = time.perf_counter()
    await asyncio.gather(*(one(i) for i in range(behaviors)))
    return time.perf_counter() - start, sum(role.calls for role in roles.values())


def report(name: str, ratio: float, bound: float) -> bool:
    ok = ratio <= bound
    print(f"{name} ratio={ratio:.3f} bound<={bound:.3f} {'ok' if ok else 'short'}")
    return ok


def main() -> int:
    attack = Pair()
    streams, iterations = attack.size
    rounds = BEHAVIORS * streams * iterations
    ideal = math.ceil(rounds / LIMIT) * SECONDS  # each endpoint serves one call a round
    took, calls = asyncio.run(play(attack, BEHAVIORS))
    alone = [asyncio.run(play(Pair(streams=1), 1))[0] for _ in range(SAMPLE)]
    sequential = sum(alone) / SAMPLE * BEHAVIORS * streams
    print(f"{calls} calls in {took:.2f} s, ideal {ideal:.2f} s; one by one {sequential:.0f} s, from {SAMPLE} streams")
    good = [report("pair_vs_ideal", took / ideal, 1.5), report("pair_vs_sequential", took / sequential, 1 / 20)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
