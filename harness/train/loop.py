"""The training loop, from a recipe to a checkpoint.

Each step: take the next `batch` pairs -> lay them end to end in sequences of at most `micro_tokens` -> loss on
supervised positions, divided by how many the whole step has over all processes -> gradients summed -> AdamW.
So the loss and its curve don't depend on how many processes share the work (but for what dropout draws), nor on where
a run was killed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from harness import progress as terminal
from harness.errors import UsageError
from harness.train import state
from harness.train.circuit import circuit_loss
from harness.train.data import TrainSet
from harness.train.methods import draw, schedule
from harness.train.model import Loaded, Team, load
from harness.train.objective import Sums, Whole, batch_loss, reference_logprobs, step_loss
from harness.train.pack import micro_batches
from harness.train.recipe import Recipe
from harness.train.rows import Item, rows_of
from harness.train.suffixes import Suffixes

MEMORY = "can't allocate memory"  # what torch says on the CPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the log: losses are means over positions (`dpo`: over pairs), `tokens` counts all that was read."""

    step: int
    loss: float
    parts: dict[str, float]
    lr: float
    norm: float
    tokens: int
    supervised: int
    seconds: float


def run(recipe: Recipe, data: TrainSet, base: str, folder: Path) -> tuple[list[Step], Loaded, list[Item]]:
    """Trains to the end, going on where a killed run of the same recipe stopped.

    Raises UsageError when the loss is not a number or the batch does not fit.
    """
    team = Team.join()
    torch.manual_seed(recipe.seed)
    with memory_advice(recipe, team, "the model"):
        loaded = load(recipe, base, team)
    items = draw(recipe, data, loaded.encoder)
    plan = schedule(recipe, len(items))
    betas = (recipe.beta1, recipe.beta2)
    optimizer = torch.optim.AdamW(
        loaded.trainable(), lr=recipe.lr, betas=betas, weight_decay=recipe.weight_decay, fused=True
    )
    log, reference, pool = state.resume(folder, recipe, data, loaded, optimizer)
    if reference is None:
        with memory_advice(recipe, team, "a batch"):
            reference = reference_logprobs(loaded, items, recipe)
    suffixes = Suffixes.of(recipe, data.triples, pool) if recipe.method == "r2d2" else None
    progress = tqdm(
        total=len(plan),
        initial=len(log),
        desc=f"  {recipe.name}",
        unit=" step",
        disable=terminal.quiet or team.rank > 0,
    )
    with two_threads(recipe, loaded) as threads:
        for number in range(len(log), len(plan)):
            chosen = [items[i] for i in plan[number]]
            refs = [reference.get(i, (0.0, 0.0)) for i in plan[number]]
            searched = 0.0
            with memory_advice(recipe, team, "a batch"):
                if suffixes is not None:
                    chosen, searched = suffixes.attacked(loaded, chosen, number)
                step = one_step(recipe, loaded, optimizer, chosen, refs, Whole.of(chosen, number, len(plan)), threads)
            log.append(replace(step, seconds=step.seconds + searched))
            show(progress, log)
            if (number + 1) % recipe.save_every == 0 and number + 1 < len(plan):
                pool = suffixes.pool if suffixes is not None else []
                state.save(folder, recipe, data, loaded, optimizer, log, reference, pool)
    progress.close()
    return log, loaded, items


def one_step(
    recipe: Recipe, loaded: Loaded, optimizer: Any, items: Sequence[Item], refs: Sequence[Any], whole: Whole,
    threads: Executor | None = None,
) -> Step:  # fmt: skip
    """Forward, backward and update over one batch."""
    began = time.perf_counter()
    torch.manual_seed(recipe.seed * 1_000_003 + whole.number)  # dropout, the same after a resume
    optimizer.zero_grad(set_to_none=True)
    sums = gradients(recipe, loaded, items, refs, whole, threads)
    norm = torch.nn.utils.clip_grad_norm_(loaded.trainable(), recipe.clip or float("inf"))
    if not math.isfinite(float(norm)):  # a finite loss may still have a gradient that would spoil every weight
        stop_if_bad(loaded.team, [row.source for item in items for row in rows_of(item)], whole.number, recipe)
    lr = recipe.lr * rate(recipe, whole.number, whole.total)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    rows = [row for item in items for row in rows_of(item)]
    return Step(
        step=whole.number,
        loss=step_loss(sums, recipe),
        parts=sums.means(),
        lr=lr,
        norm=float(norm),
        tokens=sum(len(row.ids) for row in rows),
        supervised=sum(row.supervised for row in rows),
        seconds=time.perf_counter() - began,
    )


def gradients(
    recipe: Recipe, loaded: Loaded, items: Sequence[Item], refs: Sequence[Any], whole: Whole,
    threads: Executor | None = None,
) -> Sums:  # fmt: skip
    """Forward and backward over this process's items, a micro-batch at a time; gradients and sums of all processes.

    With `threads` what would be one micro-batch goes in two halves, side by side.
    """
    team = loaded.team
    mine = range(team.rank, len(items), team.size)
    groups = list(team.even(micro_batches([rows_of(items[i]) for i in mine], recipe.micro_tokens)))

    def backward(group: Sequence[int]) -> tuple[Sums, list[str]]:
        sums, part = Sums(), [items[mine[i]] for i in group]
        if recipe.method == "circuit-breaker":
            loss = circuit_loss(recipe, loaded, part, whole, sums)
        else:
            loss = batch_loss(recipe, loaded, part, [refs[mine[i]] for i in group], whole, sums)
        loss.backward()
        return sums, [] if torch.isfinite(loss) else [row.source for item in part for row in rows_of(item)]

    if threads is not None and len(groups) == 1 and len(mine) > 1:
        found = list(threads.map(backward, halves([sum(len(row.ids) for row in rows_of(items[i])) for i in mine])))
    else:
        found = list(map(backward, groups))
    team.sum_gradients(loaded.trainable())
    stop_if_bad(team, [row for _, bad in found for row in bad], whole.number, recipe)
    return team.sum_up(Sums.of(sums for sums, _ in found))


@contextmanager
def two_threads(recipe: Recipe, loaded: Loaded) -> Iterator[Executor | None]:
    """Threads for the halves of a step on a CPU, each with half of its cores.

    The halves wait for each other once a step; the cores of one product do so at every product. None where draws would
    be left to chance (dropout), and for a method with a forward pass of its own.
    """
    cores = torch.get_num_threads()
    drops = any(isinstance(module, torch.nn.Dropout) and module.p for module in loaded.model.modules())
    drops = drops or bool(getattr(loaded.model.config, "attention_dropout", 0))
    if loaded.device != "cpu" or loaded.team.size > 1 or cores < 2 or drops or recipe.method == "circuit-breaker":
        yield None
        return
    try:
        with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(cores // 2,)) as threads:
            yield threads
    finally:
        torch.set_num_threads(cores)


def halves(sizes: Sequence[int]) -> list[list[int]]:
    """The numbers of items of these sizes in two groups of about the same size, each in order."""
    parts: list[list[int]] = [[], []]
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        min(parts, key=lambda part: sum(sizes[j] for j in part)).append(i)
    return [sorted(part) for part in parts]


def rate(recipe: Recipe, number: int, total: int) -> float:
    """The learning rate of a step as a share of the peak."""
    warm = math.ceil(recipe.warmup * total)
    if number < warm:
        return (number + 1) / warm
    if recipe.schedule == "constant":
        return 1.0
    done = (number - warm) / max(1, total - warm)
    return 1.0 - done if recipe.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))


def stop_if_bad(team: Team, bad: list[str], number: int, recipe: Recipe) -> None:
    """Raises UsageError on every process when any of them saw a loss that is not a finite number."""
    if team.any(bool(bad)):
        where = f" in rows {', '.join(dict.fromkeys(bad))}" if bad else " on another process"
        raise UsageError(
            f"step {number}: the loss or its gradient is not a finite number{where}; the last good checkpoint is kept",
            hint=f"look at these rows, or start over in another folder with a lower lr (now {recipe.lr:g})",
        )


@contextmanager
def memory_advice(recipe: Recipe, team: Team, what: str) -> Iterator[None]:
    """Turns an out-of-memory error, of a GPU or of the CPU, into a UsageError with the settings to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as err:
        if isinstance(err, RuntimeError) and not isinstance(err, torch.OutOfMemoryError) and MEMORY not in str(err):
            raise
        more = [] if recipe.checkpointing else ["set checkpointing: true"]
        more += [f"lower block (now {recipe.block})"] + ["tune: lora"] * (recipe.tune == "full")
        if not team.sharded and team.device != "cpu":
            more.append("shard: true on several GPUs (torchrun --nproc-per-node N -m harness train ...)")
        hint = f"lower micro_tokens (now {recipe.micro_tokens}), or {', or '.join(more)}"
        raise UsageError(f"{what} does not fit in memory", hint=hint) from err


def show(progress: Any, log: Sequence[Step]) -> None:
    """Losses by part and useful tokens a second, on the bar."""
    recent = log[-10:]
    speed = sum(s.tokens for s in recent) / max(1e-9, sum(s.seconds for s in recent))
    parts = {part: f"{value:.3f}" for step in recent for part, value in step.parts.items()}
    progress.set_postfix({**parts, "tok/s": f"{speed:.0f}"}, refresh=False)
    progress.update(1)
