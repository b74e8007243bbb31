"""Batched generation and scoring with a transformers module, where vLLM can't open a checkpoint.

Rows are padded on the left and masked, each has its own length, stop words, seed and limit, and a row that is done
leaves the batch. A greedy reply is the one the row would get alone, as far as the arithmetic of larger batches allows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.types import Sampling

TAIL = 24  # tokens decoded at a time to look for a stop word that has just been written


@dataclass(slots=True)
class Row:
    """One request in a batch. `tail` counts the ids at the end that are to be scored; 0: write a reply instead."""

    ids: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    limit: int = 0  # new tokens at most
    tail: int = 0
    gone: Callable[[], bool] = lambda: False  # whether nobody waits any more

    out: list[int] = field(default_factory=list)
    logprobs: list[Mapping[str, float]] = field(default_factory=list)
    stopped: bool = False  # by an end token or a stop word, rather than by its limit
    busy: float = 0.0  # seconds: its share of the batches it was in
    generator: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A module with what it needs to write: its tokenizer's decode and the ids that end a reply."""

    module: Any
    decode: Callable[[Sequence[int]], str]  # without special tokens
    ends: frozenset[int]
    pad: int = 0

    def write(self, rows: Sequence[Row]) -> None:
        """Fills `out`, `logprobs` and `stopped` of every row."""
        import torch

        with torch.no_grad():
            live = list(rows)
            ids, mask = self._packed(live)
            position = (mask.cumsum(1) - 1).clamp(min=0)
            past = None
            while live:
                told = self._step(ids, mask, position, past, last=1)
                past = told.past_key_values
                chosen = self._choose(told.logits[:, -1].float(), live)
                going = [i for i, row in enumerate(live) if not self._done(row, chosen[i])]
                if not going:
                    return
                if len(going) * 4 <= len(live) * 3 and hasattr(past, "batch_select_indices"):
                    keep = torch.tensor(going, device=mask.device)
                    past.batch_select_indices(keep)
                    mask, position = mask[keep], position[keep]
                    chosen = [chosen[i] for i in going]
                    live = [live[i] for i in going]
                ids = torch.tensor(chosen, device=mask.device)[:, None]
                mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
                position = position[:, -1:] + 1

    def score(self, rows: Sequence[Row]) -> list[tuple[float, bool]]:
        """For each row, the sum of log-probabilities of its tail, and whether greedy search gives it."""
        import torch

        with torch.no_grad():
            ids, mask = self._packed(rows)
            position = (mask.cumsum(1) - 1).clamp(min=0)
            longest = max(row.tail for row in rows)
            logits = self._step(ids, mask, position, None, last=longest + 1).logits[:, -longest - 1 : -1].float()
            told = torch.log_softmax(logits, dim=-1)
            found = []
            for i, row in enumerate(rows):
                target = ids[i, ids.shape[1] - row.tail :]
                of_row = told[i, longest - row.tail :]
                total = of_row.gather(1, target[:, None]).sum()
                found.append((float(total), bool((of_row.argmax(1) == target).all())))
            return found

    def _packed(self, rows: Sequence[Row]) -> tuple[Any, Any]:
        """Ids and mask, both (rows, longest), padded on the left."""
        import torch

        width = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), width), self.pad, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row.ids) :] = torch.tensor(list(row.ids))
            mask[i, width - len(row.ids) :] = 1
        device = self.module.get_input_embeddings().weight.device
        return ids.to(device), mask.to(device)

    def _step(self, ids: Any, mask: Any, position: Any, past: Any, *, last: int) -> Any:
        """One forward pass; only the logits of the `last` positions, where the architecture can leave out the rest."""
        accepted = inspect.signature(base_of(self.module).forward).parameters
        extra = {"position_ids": position, "logits_to_keep": last}
        extra = {k: v for k, v in extra.items() if k in accepted}
        return self.module(input_ids=ids, attention_mask=mask, past_key_values=past, use_cache=True, **extra)

    def _choose(self, logits: Any, rows: Sequence[Row]) -> list[int]:
        """The next token of every row: (rows, vocabulary) to ids. Rows that are done get one that nobody reads."""
        best: list[int] = logits.argmax(dim=-1).tolist()
        for i, row in enumerate(rows):
            if row.sampling.temperature > 0:
                best[i] = drawn(logits[i], row)
            if row.sampling.logprobs and not self._over(row):
                row.logprobs.append(self._alternatives(logits[i], best[i], row.sampling.logprobs))
        return best

    def _alternatives(self, logits: Any, chosen: int, n: int) -> Mapping[str, float]:
        import torch

        told = torch.log_softmax(logits, dim=-1)
        found: dict[str, float] = {}
        for i in (chosen, *told.topk(n).indices.tolist()):
            found.setdefault(self.decode([i]), float(told[i]))  # several ids may read the same: the likeliest counts
        return found

    def _over(self, row: Row) -> bool:
        return row.stopped or len(row.out) >= row.limit or row.gone()

    def _done(self, row: Row, token: int) -> bool:
        """Takes a token into a row; whether the row needs no more."""
        if self._over(row):
            return True
        row.out.append(token)
        if token in self.ends:
            row.stopped = True
        elif row.sampling.stop:
            text = self.decode(row.out[-TAIL:])
            row.stopped = any(word in text for word in row.sampling.stop)
        return self._over(row)


def drawn(logits: Any, row: Row) -> int:
    """A token drawn with the row's own seed, so that its neighbours don't matter. Nucleus sampling, as vLLM's."""
    import torch

    if row.generator is None:
        row.generator = torch.Generator().manual_seed(row.sampling.seed)
    p = torch.softmax(logits.cpu() / row.sampling.temperature, dim=-1)
    if row.sampling.top_p < 1:
        ranked, order = p.sort(descending=True)
        outside = ranked.cumsum(0) - ranked >= row.sampling.top_p  # the first one always stays
        p[order[outside]] = 0
    return int(torch.multinomial(p, 1, generator=row.generator))


def base_of(module: Any) -> Any:
    """The module whose forward takes the arguments: what a peft wrapper holds."""
    return module.get_base_model() if hasattr(module, "get_base_model") else module
