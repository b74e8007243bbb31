"""Circuit breakers (representation rerouting, Zou et al. 2024, arXiv 2406.04313), experimental here.

No label is learned. At the positions of a violating reply the trained model's hidden states are turned away from
those of the model it started from (relu of their cosine); at the positions of helpful replies they are held to them
(distance). What differs from the paper: our triples and helpful pairs, the sums run over positions, and the loss
moves from rerouting to retaining over the run by the recipe's steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from harness.train.recipe import Recipe
from harness.train.rows import Item, rows_of

if TYPE_CHECKING:
    from harness.train.model import Loaded
    from harness.train.objective import Sums, Whole
    from harness.train.pack import Batch

ALPHA = 10.0


def shares(number: int, total: int) -> tuple[float, float]:
    """Weights of rerouting and of retaining at a step: alpha * (1 - t/2T) and alpha * t/2T."""
    done = number / (2 * max(1, total))
    return ALPHA * (1 - done), ALPHA * done


def circuit_loss(recipe: Recipe, loaded: Loaded, items: Sequence[Item], whole: Whole, sums: Sums) -> torch.Tensor:
    """A micro-batch's share of the step's loss; logged as `rto` (cosine, rerouted) and `helpful` (distance, held)."""
    rows = [row for item in items for row in rows_of(item)] or [loaded.blank]
    batch = loaded.pack(rows)
    new = hidden(loaded, batch, recipe)
    with torch.no_grad(), loaded.model.disable_adapter():
        old = hidden(loaded, batch, recipe)
    bad = torch.tensor([row.part == "rto" for row in rows], device=batch.row.device)[batch.row]
    away = F.relu(F.cosine_similarity(new, old, dim=-1)).mean(dim=0)  # (n,), mean over the layers
    apart = (new - old).norm(dim=-1).mean(dim=0)
    if not items:
        return (away.sum() + apart.sum()) * 0.0
    reroute, retain = shares(whole.number, whole.total)
    sums.add("rto", away[bad].sum().item(), int(bad.sum()))
    sums.add("helpful", apart[~bad].sum().item(), int((~bad).sum()))
    turned = reroute * away[bad].sum() / max(1, whole.places["rto"])
    return turned + retain * apart[~bad].sum() / max(1, whole.places["helpful"])


def hidden(loaded: Loaded, batch: Batch, recipe: Recipe) -> torch.Tensor:
    """Hidden states after a third and two thirds of the layers at the supervised positions, (2, n, d), in fp32."""
    bare: Any = loaded.model.get_base_model()
    with loaded.precision():
        states = bare.get_decoder()(
            input_ids=batch.ids,
            position_ids=batch.positions,
            use_cache=False,
            output_hidden_states=True,
            **loaded.scorer.borders(batch),
        ).hidden_states
    depth = len(states) - 1
    return torch.stack([states[round(depth * share)][0, batch.at].float() for share in (1 / 3, 2 / 3)])
