"""Packing: rows laid end to end in one sequence, with no attention across their borders and nothing padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812

from harness.train.rows import IGNORE, Row

ATTENTION = "harness_segments"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows in one sequence of T tokens; `at` (n,) holds the positions whose next token is supervised.

    With `shared` > 0 the first segment is an opening of that many tokens (the template's system prompt) that the
    rows marked in `follows` have in common: it is read once, and each of them goes on from it.
    """

    ids: torch.Tensor  # (1, T)
    positions: torch.Tensor  # (1, T), as if each row stood alone
    bounds: tuple[int, ...]  # where each segment begins, then T
    at: torch.Tensor  # (n,)
    labels: torch.Tensor  # (n,)
    row: torch.Tensor  # (n,) the row each supervised position belongs to
    shared: int = 0
    follows: tuple[bool, ...] = ()  # by segment


def pack(rows: Sequence[Row], device: str = "cpu", *, share: bool = True) -> Batch:
    """One batch of all `rows`, in order."""
    shared, follows = common_opening(rows) if share else (0, [False] * len(rows))
    opening = next((row.ids[:shared] for row, yes in zip(rows, follows, strict=True) if yes), ())
    cuts = [shared if yes else 0 for yes in follows]
    segments = ([opening] if shared else []) + [row.ids[cut:] for row, cut in zip(rows, cuts, strict=True)]
    offsets = ([0] if shared else []) + cuts
    bounds = (0, *accumulate(map(len, segments)))
    places = [
        (start + i - cut, label, number)
        for number, (row, cut, start) in enumerate(zip(rows, cuts, bounds[1 if shared else 0 :], strict=False))
        for i, label in enumerate(row.labels)
        if label != IGNORE
    ]
    at, labels, owner = zip(*places, strict=True)
    long: dict[str, Any] = {"dtype": torch.long, "device": device}
    return Batch(
        ids=torch.tensor([[i for segment in segments for i in segment]], **long),
        positions=torch.tensor(
            [[first + p for s, first in zip(segments, offsets, strict=True) for p in range(len(s))]], **long
        ),
        bounds=bounds,
        at=torch.tensor(at, **long),
        labels=torch.tensor(labels, **long),
        row=torch.tensor(owner, **long),
        shared=shared,
        follows=((False,) if shared else ()) + tuple(follows),
    )


def common_opening(rows: Sequence[Row]) -> tuple[int, list[bool]]:
    """How many tokens the largest group of rows opens with in common, all of them unlabelled, and who is in it."""
    groups: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.ids[:8], []).append(row)
    opening, group = max(groups.items(), key=lambda pair: len(pair[1]))
    if len(group) < 2:
        return 0, [False] * len(rows)
    free = min(next(i for i, label in enumerate(row.labels) if label != IGNORE) for row in group)
    shared = 0
    while shared < free and len({row.ids[shared] for row in group}) == 1:
        shared += 1
    return shared, [shared > 0 and row.ids[:8] == opening for row in rows]


def micro_batches(rows: Sequence[Sequence[Row]], max_tokens: int) -> list[list[int]]:
    """Groups of indices into `rows` (each one row, or the two rows of a pair) of at most `max_tokens` tokens."""
    groups: list[list[int]] = []
    room = 0
    for index, together in enumerate(rows):
        size = sum(len(row.ids) for row in together)
        if not groups or size > room:
            groups.append([])
            room = max_tokens
        groups[-1].append(index)
        room -= size
    return groups


def segment_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    batch: Batch | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each segment, and from those that follow the shared opening to all of it.

    Query (1, heads, T, d), key and value (1, kv_heads, T, d) -> (1, T, heads, d). On a CPU in fp32 whatever the
    precision: torch's attention there goes back through half precision at half the speed.
    """
    given = query.dtype
    if query.device.type == "cpu":
        query, key, value = query.float(), key.float(), value.float()
    with torch.autocast("cpu", enabled=False):
        found = attended(query, key, value, batch, dropout_p=dropout, scale=scaling)
    return found.to(given).transpose(1, 2).contiguous(), None


def attended(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, batch: Batch | None, **same: Any
) -> torch.Tensor:
    """(1, heads, T, d): each segment's own attention, one after the other."""
    same["enable_gqa"] = query.shape[1] != key.shape[1]
    if batch is None:
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, **same)
    head = slice(0, batch.shared)
    pieces = []
    for (a, b), follows in zip(pairwise(batch.bounds), batch.follows, strict=True):
        q, k, v = (x[:, :, a:b] for x in (query, key, value))
        if not follows:
            pieces.append(F.scaled_dot_product_attention(q, k, v, is_causal=True, **same))
            continue
        k, v = torch.cat([key[:, :, head], k], dim=2), torch.cat([value[:, :, head], v], dim=2)
        seen = torch.ones(b - a, batch.shared + b - a, dtype=torch.bool, device=q.device).tril(batch.shared)
        pieces.append(F.scaled_dot_product_attention(q, k, v, attn_mask=seen, **same))
    return torch.cat(pieces, dim=2)


def register() -> str:
    """Makes `segment_attention` known to transformers; returns the name to load a model with."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, segment_attention)
    return ATTENTION


class Scorer(torch.nn.Module):  # type: ignore[misc]
    """A causal language model as one module from a batch to its token losses, so that FSDP can wrap the whole of it."""

    def __init__(self, causal: Any, *, flash: bool = False, chunk: int = 512) -> None:
        super().__init__()
        self.causal, self.flash, self.chunk = causal, flash, chunk

    def forward(self, batch: Batch) -> torch.Tensor:
        """-log p(label) at each supervised position, (n,) in fp32."""
        from harness.train.losses import token_losses

        bare = self.causal.get_base_model() if hasattr(self.causal, "peft_config") else self.causal
        hidden = bare.get_decoder()(
            input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **self.borders(batch)
        ).last_hidden_state[0, batch.at]
        return token_losses(hidden, bare.get_output_embeddings().weight, batch.labels, chunk=self.chunk)

    def borders(self, batch: Batch) -> dict[str, Any]:
        """Where the rows end, in the words of the attention in use."""
        if not self.flash:
            return {"batch": batch}
        ends = torch.tensor(batch.bounds, dtype=torch.int32, device=batch.ids.device)
        longest = max(b - a for a, b in pairwise(batch.bounds))
        names = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
        return dict(zip(names, (ends, ends, longest, longest), strict=True))
