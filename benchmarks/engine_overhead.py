"""What the harness costs on top of vLLM, and how well attacks share the time a model takes.

    python benchmarks/engine_overhead.py

`engine_overhead`        output tokens/s of a run's generation phase (attack, store, judge and all) over bare vLLM,
                         same engine, prompts and settings, at 128 sequences; median of interleaved rounds
`engine_overhead_growth` the same ratio at 2,000 prompts over that at 100: the cost must not grow
`attacks_concurrent`     6 attacks x 100 behaviors at a scripted endpoint of 50 ms a reply, as many at once as a run
                         allows by default: time taken over the ideal
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import progress
from harness.config import RunSpec, make_spec
from harness.engine import Work
from harness.models.embedded import ensure
from harness.models.options import ModelOptions
from harness.models.scripted import Scripted
from harness.models.vllm import Engine, Vllm, sampling_params
from harness.plan import Plan, make_plan
from harness.registry import make
from harness.store import Store
from harness.types import Behavior, Model, Prompt


def verdict(name: str, value: float, bound: float, *, at_most: bool) -> None:
    met = value <= bound if at_most else value >= bound
    sign = "<=" if at_most else ">="
    print(f"{name} ratio={value:.2f} bound{sign}{bound} {'ok' if met else 'short'}", flush=True)


def questions(n: int, round_: int) -> tuple[Behavior, ...]:
    """`n` short raw prompts that no earlier round has asked, so that no prefix is cached."""
    return tuple(
        Behavior(id=f"{round_}-{i}", task="t", request="Tell a story.", opening=f"Story {round_ * 10_000 + i}:")
        for i in range(n)
    )


def bare(engine: Engine, model: Vllm, behaviors: tuple[Behavior, ...], spec: RunSpec) -> float:
    """Output tokens/s of vLLM alone: add everything, step until done. The serving thread sleeps meanwhile."""
    vllm: Any = engine._engine
    params = sampling_params(spec.sampling(0))
    began, tokens = time.perf_counter(), 0
    for behavior in behaviors:
        ids = model.tokens.ids(Prompt(text=behavior.opening))
        vllm.add_request(f"bare-{behavior.id}", {"prompt_token_ids": ids}, params)
    while vllm.has_unfinished_requests():
        tokens += sum(len(output.outputs[0].token_ids) for output in vllm.step() if output.finished)
    return tokens / (time.perf_counter() - began)


async def ours(model: Model, behaviors: tuple[Behavior, ...], spec: RunSpec) -> float:
    """Output tokens/s of the generation phase of a run."""
    plan = Plan(attacks=(make("attack", "completion"),), refuse=behaviors, comply=(), tasks={}, seeds=(0,))
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
        work = Work(spec, plan, store, [model], model, model)
        began = time.perf_counter()
        await work.attack()
        return work.models[0].usage.tokens_out / (time.perf_counter() - began)


async def ratio(model: Vllm, n: int, max_tokens: int, rounds: int, seed: int) -> float:
    """Ours over bare, median over rounds; each round takes the other one first."""
    spec = make_spec({"model": "smollm2-135m", "max_tokens": max_tokens})
    found = []
    for round_ in range(rounds):
        speeds: dict[str, float] = {}
        for who in ("bare", "ours") if round_ % 2 else ("ours", "bare"):
            asked = questions(n, seed + 2 * round_ + (who == "ours"))
            speeds[who] = await ours(model, asked, spec) if who == "ours" else bare(model.engine, model, asked, spec)
        found.append(speeds["ours"] / speeds["bare"])
        print(f"  {n} prompts: bare {speeds['bare']:.0f}, ours {speeds['ours']:.0f} tokens/s", flush=True)
    return statistics.median(found)


async def overhead(rounds: int, many: int) -> None:
    [model] = Vllm.open("smollm2-135m", str(ensure()), ModelOptions(), {})
    await ratio(model, 32, 4, 1, 900)  # warm up
    verdict("engine_overhead", await ratio(model, 128, 48, rounds, 100), 0.95, at_most=False)
    few, lots = await ratio(model, 100, 8, rounds, 300), await ratio(model, many, 8, max(1, rounds // 3), 500)
    verdict("engine_overhead_growth", lots / few, 0.95, at_most=False)
    await model.close()


async def concurrent() -> None:
    reply, slots = 0.05, RunSpec().concurrency
    script = f"scripted:comply?latency={reply}&concurrency={slots}"
    given = {"model": script, "split": "all", "limit": 100, "overrefusal": "none", "tasks": "none"}
    spec, model = make_spec(given), Scripted.parse(script)
    plan = make_plan(spec, [model])
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
        work = Work(spec, plan, store, [model], model, model)
        began = time.perf_counter()
        await work.attack()
        took = time.perf_counter() - began
        requests = work.models[0].usage.requests
    print(f"  {len(plan.attacks)} attacks, {requests} requests in {took:.2f} s", flush=True)
    verdict("attacks_concurrent", took / (requests * reply / slots), 2.0, at_most=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--skip-vllm", action="store_true", help="only the scripted part")
    given = parser.parse_args()
    progress.quiet = True
    asyncio.run(concurrent())
    if not given.skip_vllm:
        asyncio.run(overhead(given.rounds, given.many))


if __name__ == "__main__":
    main()
