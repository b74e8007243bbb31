"""The training loop, from a recipe to a checkpoint.

Each step: take the next `batch` pairs -> lay them end to end in sequences of at most `micro_tokens` -> loss on
supervised positions, divided by how many the whole step has over all processes -> gradients summed -> AdamW.
So the loss and its curve don't depend on how many processes share the work, nor on where a run was killed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from harness import progress as terminal
from harness.errors import UsageError
from harness.train import state
from harness.train.data import TrainSet
from harness.train.losses import dpo_losses, row_logprobs
from harness.train.methods import draw, schedule
from harness.train.model import Loaded, Team, load
from harness.train.pack import micro_batches, pack
from harness.train.recipe import Recipe
from harness.train.rows import Item, Pair, rows_of


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


@dataclass(slots=True)
class Sums:
    """What one step adds up, by part."""

    loss: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    count: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def means(self) -> dict[str, float]:
        """The mean loss of each part that occurred."""
        return {part: self.loss[part] / n for part, n in sorted(self.count.items()) if n}


def run(recipe: Recipe, data: TrainSet, base: str, folder: Path) -> tuple[list[Step], Loaded, list[Item]]:
    """Trains to the end, going on where a killed run of the same recipe stopped.

    Raises UsageError when the loss is not a number or the batch does not fit.
    """
    team = Team.join()
    torch.manual_seed(recipe.seed)
    loaded = load(recipe, base, team)
    items = draw(recipe, data, loaded.encoder)
    plan = schedule(recipe, len(items))
    optimizer = torch.optim.AdamW(
        loaded.trainable(), lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), weight_decay=recipe.weight_decay
    )
    log, reference = state.resume(folder, recipe, data, loaded, optimizer)
    if reference is None:
        reference = reference_logprobs(loaded, items, recipe)
    progress = tqdm(
        total=len(plan),
        initial=len(log),
        desc=f"  {recipe.name}",
        unit=" step",
        disable=terminal.quiet or team.rank > 0,
    )
    for number in range(len(log), len(plan)):
        chosen = [items[i] for i in plan[number]]
        refs = [reference.get(i, (0.0, 0.0)) for i in plan[number]]
        log.append(one_step(recipe, loaded, optimizer, chosen, refs, number, len(plan)))
        show(progress, log)
        if (number + 1) % recipe.save_every == 0 and number + 1 < len(plan):
            state.save(folder, recipe, data, loaded, optimizer, log, reference)
    progress.close()
    return log, loaded, items


def one_step(
    recipe: Recipe, loaded: Loaded, optimizer: Any, items: Sequence[Item], refs: Sequence[Any], number: int, total: int
) -> Step:
    """Forward, backward and update over one batch."""
    began = time.perf_counter()
    torch.manual_seed(recipe.seed * 1_000_003 + number)  # dropout, the same after a resume
    team = loaded.team
    weight = 1.0 / max(1.0, total_weight(items, recipe))
    pairs = max(1, sum(isinstance(item, Pair) for item in items))
    mine = range(team.rank, len(items), team.size)
    sums = Sums()
    bad: list[str] = []
    optimizer.zero_grad(set_to_none=True)
    for group in team.even(micro_batches([rows_of(items[i]) for i in mine], recipe.micro_tokens)):
        part = [mine[i] for i in group]
        with memory_advice(recipe):
            loss = batch_loss(recipe, loaded, [items[i] for i in part], [refs[i] for i in part], weight, pairs, sums)
            if not torch.isfinite(loss):
                bad.extend(row.source for i in part for row in rows_of(items[i]))
            loss.backward()
    team.sum_gradients(loaded.trainable())
    stop_if_bad(team, bad, number, recipe)
    norm = torch.nn.utils.clip_grad_norm_(loaded.trainable(), recipe.clip or float("inf"))
    lr = recipe.lr * rate(recipe, number, total)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    sums = team.sum_up(sums)
    rows = [row for item in items for row in rows_of(item)]
    return Step(
        step=number,
        loss=objective(sums, recipe),
        parts=sums.means(),
        lr=lr,
        norm=float(norm),
        tokens=sum(len(row.ids) for row in rows),
        supervised=sum(row.supervised for row in rows),
        seconds=time.perf_counter() - began,
    )


def batch_loss(
    recipe: Recipe, loaded: Loaded, items: Sequence[Item], refs: Sequence[Any], weight: float, pairs: int, sums: Sums
) -> torch.Tensor:
    """This micro-batch's share of the step's loss, and its sums by part. No items: a zero that still has gradients."""
    rows = [row for item in items for row in rows_of(item)] or [loaded.blank]
    losses = loaded.score(pack(rows, loaded.device))
    if not items:
        return losses.sum() * 0.0
    row = pack(rows, loaded.device).row
    total = losses.new_zeros(())
    for part in ("mle", "rto", "helpful"):
        inside = torch.tensor([r.part == part for r in rows], device=losses.device)[row]
        if inside.any():
            share = losses[inside].sum()
            sums.loss[part] += share.item()
            sums.count[part] += int(inside.sum())
            total = total + share * weight * (recipe.rto_weight if part == "rto" else 1.0)
    if any(r.part == "dpo" for r in rows):
        logprobs = row_logprobs(losses, row, len(rows))
        at = [i for i, r in enumerate(rows) if r.part == "dpo"]
        ref = torch.tensor([ref for ref, item in zip(refs, items, strict=True) if isinstance(item, Pair)])
        ref = ref.to(losses.device)
        terms = dpo_losses(logprobs[at[0::2]], logprobs[at[1::2]], ref[:, 0], ref[:, 1], recipe.dpo_beta)
        sums.loss["dpo"] += terms.sum().item()
        sums.count["dpo"] += len(terms)
        total = total + terms.sum() / pairs
    return total


def total_weight(items: Sequence[Item], recipe: Recipe) -> float:
    """How many positions the cross-entropy of a step is the mean of, RTO ones counted by their weight."""
    return sum(
        item.supervised * (recipe.rto_weight if item.part == "rto" else 1.0)
        for item in items
        if not isinstance(item, Pair)
    )


def objective(sums: Sums, recipe: Recipe) -> float:
    """The step's loss from its sums: weighted mean over positions, plus the mean over DPO pairs."""
    weights = {"mle": 1.0, "rto": recipe.rto_weight, "helpful": 1.0}
    total = sum(sums.loss[part] * w for part, w in weights.items())
    count = sum(sums.count[part] * w for part, w in weights.items())
    return total / max(1.0, count) + (sums.loss["dpo"] / sums.count["dpo"] if sums.count["dpo"] else 0.0)


def reference_logprobs(loaded: Loaded, items: Sequence[Item], recipe: Recipe) -> dict[int, tuple[float, float]]:
    """Log-probabilities of chosen and rejected under the model as it starts, by item; empty without DPO pairs."""
    pairs = [(i, item) for i, item in enumerate(items) if isinstance(item, Pair)]
    found = {}
    loaded.model.eval()
    with torch.no_grad():
        for group in micro_batches([rows_of(item) for _, item in pairs], recipe.micro_tokens):
            rows = [row for i in group for row in rows_of(pairs[i][1])]
            batch = pack(rows, loaded.device)
            values = row_logprobs(loaded.score(batch), batch.row, len(rows)).tolist()
            found.update({pairs[i][0]: (values[2 * n], values[2 * n + 1]) for n, i in enumerate(group)})
    loaded.model.train()
    return found


def rate(recipe: Recipe, number: int, total: int) -> float:
    """The learning rate of a step as a share of the peak."""
    import math

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
            f"step {number}: the loss is not a finite number{where}; the last good checkpoint is kept",
            hint=f"lower lr (now {recipe.lr:g}), or look at these rows; the same command goes on from the checkpoint",
        )


class memory_advice:  # noqa: N801  (reads as a statement: with memory_advice(recipe))
    """Turns an out-of-memory error into the settings to lower."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __enter__(self) -> None:
        """Nothing to set up."""

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, _: object) -> None:
        """Raises UsageError for what torch raises when memory runs out, on a GPU or on the CPU."""
        if isinstance(err, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(err):
            r = self.recipe
            first = f"lower micro_tokens (now {r.micro_tokens})"
            then = [] if r.checkpointing else ["set checkpointing: true"]
            more = [*then, f"lower block (now {r.block})", *(["tune: lora"] if r.tune == "full" else ["shard: true"])]
            raise UsageError("a batch does not fit in memory", hint=f"{first}, or {', or '.join(more)}") from err


def show(progress: Any, log: Sequence[Step]) -> None:
    """Losses by part and useful tokens a second, on the bar."""
    recent = log[-10:]
    speed = sum(s.tokens for s in recent) / max(1e-9, sum(s.seconds for s in recent))
    parts = {part: f"{value:.3f}" for step in recent for part, value in step.parts.items()}
    progress.set_postfix({**parts, "tok/s": f"{speed:.0f}"}, refresh=False)
    progress.update(1)
