"""LoRA in vLLM on a CPU, at the speed of a matrix product.

vLLM's own CPU code copies the weights of an adapter once for every token, in fp32, before it multiplies: prompts under
an adapter then take many times as long as without. Here tokens of one adapter are multiplied together, which gives the
same sums, and those of a layer's parts (queries, keys, values) in one go. Used for vLLM 0.32; another version keeps its
own code where its functions look different.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from typing import Any


def install() -> bool:
    """Puts these products in the place of vLLM's; whether they fitted. Safe to call more than once."""
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    layer = punica_cpu.PunicaWrapperCPU
    if not all(alike(getattr(lora_ops, name, None), function) for name, function in OWN.items()):
        return False
    if not alike(layer.add_lora_linear, linear):
        return False
    for name, function in OWN.items():
        setattr(lora_ops, name, function)
        setattr(punica_cpu, name, function)
    layer.add_lora_linear = linear
    return True


def alike(theirs: Callable[..., Any] | None, ours: Callable[..., Any]) -> bool:
    """Whether a function takes as many arguments as the one that is to stand in its place."""
    return theirs is not None and len(signature(theirs).parameters) == len(signature(ours).parameters)


def rows_by_slot(slots: Any) -> list[tuple[int, Any]]:
    """Each adapter's slot with the numbers of its rows (None: all of them); rows of slot -1 have no adapter.

    Every layer of a step asks with the same slots: the last answer is kept. Threads may each replace it at any time.
    """
    global _last
    import torch

    last = _last
    if last is None or last[0].shape != slots.shape or not torch.equal(last[0], slots):
        present = torch.unique(slots).tolist()
        if len(present) == 1:
            found = [(present[0], None)]
        else:
            found = [(slot, (slots == slot).nonzero().squeeze(1)) for slot in present]
        _last = last = slots.clone(), [(slot, rows) for slot, rows in found if slot >= 0]
    return last[1]


_last: tuple[Any, list[tuple[int, Any]]] | None = None


def products(inputs: Any, weights: Any, slots: Any, dtype: Any) -> Iterator[tuple[Any, Any]]:
    """inputs (n, i), weights (s, [1,] o, i), slots (n,) -> for each adapter its rows (m,) and their products (m, o)."""
    weights = weights.squeeze(1) if weights.dim() == 4 else weights
    inputs = inputs.to(dtype)
    for slot, rows in rows_by_slot(slots):
        yield rows, selected(inputs, rows, slots) @ weights[slot].to(dtype).T


def linear(
    self: Any,
    output: Any,
    inputs: Any,
    downs: Sequence[Any],
    ups: Sequence[Any],
    scale: float,
    sizes: Sequence[int],
    *,
    buffer: object = None,
    **_: object,
) -> None:
    """output (n, o) gets scale * inputs (n, i) times the A (r, i) and B (size, r) of each row's adapter.

    A layer of several parts (queries, keys, values) has an A and a B for each; their `sizes` add up to o. `self` is
    vLLM's wrapper, which knows the rows' slots; `buffer` is not needed.
    """
    import torch

    dtype = inputs.dtype
    slots = self.token_lora_indices
    for slot, rows in rows_by_slot(slots):
        mine = selected(inputs, rows, slots)
        parts = [
            (scale * (mine @ down[slot, 0].to(dtype).T)) @ up[slot, 0, :size].to(dtype).T
            for down, up, size in zip(downs, ups, sizes, strict=True)
        ]
        found = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        place(output[:, : found.shape[1]], rows, found.to(output.dtype), add=True)


def selected(inputs: Any, rows: Any, slots: Any) -> Any:
    """These rows of the inputs (n, i); all of them for None.

    Raises ValueError where the slots are not those of the inputs: vLLM has one a request where it scores prompts.
    """
    if rows is None:
        return inputs
    if len(slots) != len(inputs):
        raise ValueError(f"{len(inputs)} rows, but the adapters of {len(slots)}: whose is which can't be told")
    return inputs.index_select(0, rows)


def shrink(inputs: Any, weights: Any, output: Any, slots: Any, scaling: float = 1.0) -> None:
    """output (n, r) = scaling * inputs (n, i) times the A (r, i) of each row's adapter."""
    output[:, : weights.shape[-2]] = 0
    for rows, found in products(inputs, weights, slots, output.dtype):
        place(output[:, : found.shape[1]], rows, scaling * found, add=False)


def expand(inputs: Any, weights: Any, output: Any, slots: Any, add_inputs: bool = True) -> None:
    """output (n, o) gets inputs (n, r) times the B (o, r) of each row's adapter; it may be padded to more columns."""
    where = output[:, : weights.shape[-2]]
    if not add_inputs:
        where.zero_()
    for rows, found in products(inputs, weights, slots, output.dtype):
        place(where, rows, found[:, : where.shape[1]], add=add_inputs)


def place(where: Any, rows: Any, found: Any, *, add: bool) -> None:
    """Adds a product to its rows of a part of the output, or writes it there."""
    if rows is None:
        where.add_(found) if add else where.copy_(found)
    elif add:
        where.index_add_(0, rows, found)
    else:
        where.index_copy_(0, rows, found)


OWN: dict[str, Callable[..., None]] = {"bgmv_shrink": shrink, "bgmv_expand": expand}
"""Ours, by the names of those they replace: what embeddings and the head of an adapter are multiplied by."""
