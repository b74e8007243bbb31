"""Nucleus sampling in vLLM on a CPU, without sorting the vocabulary.

vLLM's own CPU code sorts every row of logits to find the tokens that hold `top_p` together, which can cost more than
the model. A few hundred of the likeliest nearly always hold them: those are found first, and only a row that they do
not suffice for is sorted. The same tokens stay, up to rounding at the edge. Used for vLLM 0.32; another version keeps
its own code where its function looks different.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

FIRST = 256  # tokens looked at before a row is sorted


def install() -> bool:
    """Puts this in the place of vLLM's; whether it fitted. Safe to call more than once."""
    import inspect

    from vllm.v1.sample.ops import topk_topp_sampler as sampler

    theirs = getattr(sampler, "apply_top_k_top_p_pytorch", None)
    if theirs is None or [*inspect.signature(theirs).parameters] != ["logits", "k", "p", "allow_cpu_sync"]:
        return False
    if not hasattr(theirs, "instead_of"):
        sampler.apply_top_k_top_p_pytorch = instead(theirs)
    return True


def instead(theirs: Callable[..., Any]) -> Callable[..., Any]:
    """vLLM's function, with the rows that need no sort taken out of its hands."""

    def apply_top_k_top_p_pytorch(logits: Any, k: Any, p: Any, allow_cpu_sync: bool = False) -> Any:
        if k is not None or p is None:
            return theirs(logits, k, p, allow_cpu_sync)
        left = nucleus(logits, p)
        if len(left):
            logits[left] = theirs(logits[left], None, p[left], allow_cpu_sync)
        return logits

    apply_top_k_top_p_pytorch.instead_of = theirs  # type: ignore[attr-defined]
    return apply_top_k_top_p_pytorch


def nucleus(logits: Any, p: Any) -> Any:
    """Sets to -inf, in place, what is outside the nucleus of each row; the rows (m,) that it could not do.

    logits (n, v), p (n,). A token stays when those likelier than it hold less than p; the likeliest always stays.
    """
    import torch

    first, ids = logits.topk(min(FIRST, logits.shape[1]), dim=-1)
    share = (first.float() - logits.float().logsumexp(dim=-1, keepdim=True)).exp()
    ahead = share.cumsum(dim=-1) - share
    inside = ahead < p[:, None]
    inside[:, 0] = True
    open_ended = p >= 1  # nothing is outside
    short = inside[:, -1] & ~open_ended if first.shape[1] < logits.shape[1] else torch.zeros_like(open_ended)
    done = ~(short | open_ended)
    if bool(done.all()):
        logits.fill_(-torch.inf).scatter_(1, ids, first.masked_fill(~inside, -torch.inf))
    else:
        rows = done.nonzero().squeeze(1)
        fresh = torch.full((len(rows), logits.shape[1]), -torch.inf, dtype=logits.dtype)
        logits[rows] = fresh.scatter_(1, ids[rows], first[rows].masked_fill(~inside[rows], -torch.inf))
    return short.nonzero().squeeze(1)
