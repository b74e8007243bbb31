"""LoRA in vLLM on a CPU, at the speed of a matrix product.

vLLM's own CPU code copies the weights of an adapter once for every token, in fp32, before it multiplies: prompts under
an adapter then take many times as long as without. Here tokens of one adapter are multiplied together, which gives the
same sums. Used for vLLM 0.32; another version keeps its own code where its functions look different.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NAMES = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")


def install() -> bool:
    """Puts these products in the place of vLLM's; whether they fitted. Safe to call more than once."""
    import inspect

    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    own: dict[str, Callable[..., None]] = {
        "bgmv_shrink": shrink,
        "bgmv_expand": expand,
        "bgmv_expand_slice": expand_slice,
    }
    for name, function in own.items():
        theirs = getattr(lora_ops, name, None)
        if theirs is None or len(inspect.signature(theirs).parameters) != len(inspect.signature(function).parameters):
            return False
    for name, function in own.items():
        setattr(lora_ops, name, function)
        setattr(punica_cpu, name, function)
    return True


def products(inputs: Any, weights: Any, slots: Any, dtype: Any) -> Any:
    """inputs (n, i), weights (s, [1,] o, i), slots (n,) -> (n, o) in `dtype`; rows of slot -1 (no adapter) are 0."""
    import torch

    weights = weights.squeeze(1) if weights.dim() == 4 else weights
    inputs = inputs.to(dtype)
    present = torch.unique(slots).tolist()
    if len(present) == 1 and present[0] >= 0:
        return inputs @ weights[present[0]].to(dtype).T
    found = torch.zeros(inputs.shape[0], weights.shape[1], dtype=dtype)
    for slot in present:
        if slot >= 0:
            rows = (slots == slot).nonzero().squeeze(1)
            found[rows] = inputs[rows] @ weights[slot].to(dtype).T
    return found


def shrink(inputs: Any, weights: Any, output: Any, slots: Any, scaling: float = 1.0) -> None:
    """output (n, r) = scaling * inputs (n, i) times the A (r, i) of each row's adapter."""
    found = products(inputs, weights, slots, output.dtype)
    output[:, : found.shape[1]] = scaling * found


def expand(inputs: Any, weights: Any, output: Any, slots: Any, add_inputs: bool = True) -> None:
    """output (n, o) gets inputs (n, r) times the B (o, r) of each row's adapter; it may be padded to more columns."""
    found = products(inputs, weights, slots, output.dtype)
    columns = min(found.shape[1], output.shape[1])
    place(output[:, :columns], found[:, :columns], add=add_inputs)


def expand_slice(
    inputs: Any, weights: Any, output: Any, slots: Any, offset: int, size: int, add_inputs: bool = True
) -> None:
    """As `expand`, into `size` columns of the output from `offset` on."""
    place(output[:, offset : offset + size], products(inputs, weights, slots, output.dtype), add=add_inputs)


def place(where: Any, found: Any, *, add: bool) -> None:
    """Adds a product to a part of the output, or writes it there."""
    if add:
        where += found
    else:
        where.copy_(found)
