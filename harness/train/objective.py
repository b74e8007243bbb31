"""What a step minimises: from a batch's token losses to one number, with its sums by part for the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from harness.train.losses import away_losses, dpo_losses, row_logprobs
from harness.train.pack import micro_batches
from harness.train.recipe import Recipe
from harness.train.rows import Item, Pair, Part, rows_of

if TYPE_CHECKING:
    from harness.train.model import Loaded

PARTS: tuple[Part, ...] = ("mle", "rto", "helpful")
LOGGED: tuple[Part, ...] = (*PARTS, "dpo", "away")
Reference = dict[int, tuple[float, float]]
"""Log-probabilities of a pair's chosen and rejected reply under the model as it started, by item."""


@dataclass(slots=True)
class Sums:
    """What one step adds up, by part."""

    loss: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    count: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @classmethod
    def of(cls, parts: Iterable[Sums]) -> Sums:
        """The sums of several micro-batches as one."""
        whole = cls()
        for sums in parts:
            for part, loss in sums.loss.items():
                whole.add(part, loss, sums.count[part])
        return whole

    def add(self, part: str, loss: float, count: int) -> None:
        """Adds a micro-batch's losses of one part."""
        self.loss[part] += loss
        self.count[part] += count

    def means(self) -> dict[str, float]:
        """The mean loss of each part that occurred."""
        return {part: self.loss[part] / n for part, n in sorted(self.count.items()) if n}


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What the losses of one step are divided by, over all processes and micro-batches; and which step it is."""

    places: dict[str, int]  # labelled positions by part
    pairs: int
    number: int = 0
    total: int = 1

    @classmethod
    def of(cls, items: Sequence[Item], number: int, total: int) -> Whole:
        """Counts a step's items."""
        places: dict[str, int] = defaultdict(int)
        for row in (row for item in items for row in rows_of(item)):
            places[row.part] += row.supervised
        pairs = sum(compared(item) for item in items)
        return cls(places=places, pairs=pairs, number=number, total=total)

    def weight(self, recipe: Recipe) -> float:
        """One over the positions the cross-entropy is the mean of, RTO ones counted by their weight."""
        return 1.0 / max(1.0, sum(self.places.get(part, 0) * weight_of(part, recipe) for part in PARTS))


def compared(item: Item) -> bool:
    """Whether an item is a pair that DPO compares."""
    return isinstance(item, Pair) and item.chosen.part == "dpo"


def weight_of(part: str, recipe: Recipe) -> float:
    """What a position of a part weighs in the mean."""
    return recipe.rto_weight if part == "rto" else 1.0


def batch_loss(
    recipe: Recipe, loaded: Loaded, items: Sequence[Item], refs: Sequence[tuple[float, float]], whole: Whole, sums: Sums
) -> torch.Tensor:
    """A micro-batch's share of the step's loss, and its sums by part. No items: a zero that still has gradients."""
    rows = [row for item in items for row in rows_of(item)] or [loaded.blank]
    batch = loaded.pack(rows)
    losses = loaded.score(batch)
    total = losses.sum() * 0.0
    if not items:
        return total
    for part in PARTS:
        inside = torch.tensor([r.part == part for r in rows], device=losses.device)[batch.row]
        if inside.any():
            share = losses[inside].sum()
            sums.add(part, share.item(), int(inside.sum()))
            total = total + share * weight_of(part, recipe) * whole.weight(recipe)
    inside = torch.tensor([r.part == "away" for r in rows], device=losses.device)[batch.row]
    if inside.any():
        share = away_losses(losses[inside]).sum()
        sums.add("away", share.item(), int(inside.sum()))
        total = total + share / whole.places["away"]
    at = [i for i, r in enumerate(rows) if r.part == "dpo"]
    if at:
        logprobs = row_logprobs(losses, batch.row, len(rows))
        known = [ref for ref, item in zip(refs, items, strict=True) if compared(item)]
        ref = torch.tensor(known, device=losses.device)
        terms = dpo_losses(logprobs[at[0::2]], logprobs[at[1::2]], ref[:, 0], ref[:, 1], recipe.dpo_beta)
        sums.add("dpo", terms.sum().item(), len(terms))
        total = total + terms.sum() / whole.pairs
    return total


def step_loss(sums: Sums, recipe: Recipe) -> float:
    """The step's loss from its sums: weighted mean over positions, plus the means over DPO pairs and away positions."""
    total = sum(sums.loss[part] * weight_of(part, recipe) for part in PARTS)
    count = sum(sums.count[part] * weight_of(part, recipe) for part in PARTS)
    apart = sum(sums.loss[part] / sums.count[part] for part in ("dpo", "away") if sums.count[part])
    return total / max(1.0, count) + apart


def reference_logprobs(loaded: Loaded, items: Sequence[Item], recipe: Recipe) -> Reference:
    """The reference of every pair, under the model as it is now; empty without pairs."""
    pairs = [(i, item) for i, item in enumerate(items) if compared(item)]
    found = {}
    loaded.model.eval()
    with torch.no_grad():
        for group in micro_batches([rows_of(item) for _, item in pairs], recipe.micro_tokens):
            rows = [row for i in group for row in rows_of(pairs[i][1])]
            batch = loaded.pack(rows)
            values = row_logprobs(loaded.score(batch), batch.row, len(rows)).tolist()
            found.update({pairs[i][0]: (values[2 * n], values[2 * n + 1]) for n, i in enumerate(group)})
    loaded.model.train()
    return found
