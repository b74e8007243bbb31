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
    """Rows in one sequence of T tokens; `at` (n,) holds the positions whose next token is supervised."""

    ids: torch.Tensor  # (1, T)
    positions: torch.Tensor  # (1, T), starting again at 0 with each row
    bounds: tuple[int, ...]  # where each row begins, then T
    at: torch.Tensor  # (n,)
    labels: torch.Tensor  # (n,)
    row: torch.Tensor  # (n,) the row each supervised position belongs to


def pack(rows: Sequence[Row], device: str = "cpu") -> Batch:
    """One batch of all `rows`, in order."""
    bounds = (0, *accumulate(len(row.ids) for row in rows))
    at: list[int] = []
    labels: list[int] = []
    owner: list[int] = []
    for number, (row, start) in enumerate(zip(rows, bounds, strict=False)):
        for i, label in enumerate(row.labels):
            if label != IGNORE:
                at.append(start + i)
                labels.append(label)
                owner.append(number)
    long: dict[str, Any] = {"dtype": torch.long, "device": device}
    return Batch(
        ids=torch.tensor([[i for row in rows for i in row.ids]], **long),
        positions=torch.tensor([[p for row in rows for p in range(len(row.ids))]], **long),
        bounds=bounds,
        at=torch.tensor(at, **long),
        labels=torch.tensor(labels, **long),
        row=torch.tensor(owner, **long),
    )


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
    bounds: tuple[int, ...] = (),
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each segment.

    Query (1, heads, T, d), key and value (1, kv_heads, T, d) -> (1, T, heads, d).
    """
    ends = bounds or (0, query.shape[2])
    shared = query.shape[1] != key.shape[1]
    pieces = [
        F.scaled_dot_product_attention(
            query[:, :, a:b], key[:, :, a:b], value[:, :, a:b],
            dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=shared,
        )
        for a, b in pairwise(ends)
    ]  # fmt: skip
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None


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
            return {"bounds": batch.bounds}
        ends = torch.tensor(batch.bounds, dtype=torch.int32, device=batch.ids.device)
        longest = max(b - a for a, b in pairwise(batch.bounds))
        names = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
        return dict(zip(names, (ends, ends, longest, longest), strict=True))
