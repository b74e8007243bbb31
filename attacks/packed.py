"""Many token sequences through a causal language model in one row: no padding, and what they share is computed once.

Sequences lie end to end in a single row, so every matrix product is large; attention is cut back to each sequence and
to the keys and values it shares with others (a prompt's beginning, the unchanged part of a suffix). The model is any
decoder of transformers that goes through its attention interface; other users of the same module see no change.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from harness.errors import UsageError

T = TypeVar("T")
Tensor: TypeAlias = Any
KV: TypeAlias = list[tuple[Tensor, Tensor]]
"""Keys and values by layer, each [heads, tokens, size]."""

NAME = "packed"
SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier")  # settings of models that scale their logits
_LOCAL = threading.local()  # .plan: what the forward pass of this thread is to do, if it is a packed one
_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def turn() -> asyncio.Lock:
    """Held while weights are at work: one search at a time has the processor, and it finishes before the next."""
    return _TURNS.setdefault(asyncio.get_running_loop(), asyncio.Lock())


async def apart(work: Callable[..., T], *given: Any) -> T:
    """Does work on the weights in a thread that ends with it.

    A thread that has multiplied on a CPU keeps OpenMP workers of its own while it lives, and those of more threads than
    there are cores slow one another down: an engine in this process would stay slow for the rest of a run.
    """
    pool = ThreadPoolExecutor(1, "search")
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *given)
    finally:
        pool.shutdown(wait=False)


def packed(module: Any) -> Packed:
    """The packed form of a torch module, made once; it lives in the module, and goes when the module goes."""
    known: Packed | None = vars(module).get("_packed")
    if known is None:
        known = vars(module)["_packed"] = Packed(module)
    elif module.config._attn_implementation != NAME:  # another user of the module had its own in between
        module.set_attn_implementation(NAME)
    return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """`rows` sequences of `length` new tokens each, all after the same first `shared` tokens of `past`."""

    rows: int
    length: int
    past: KV | None = None
    shared: int = 0

    @property
    def tokens(self) -> int:
        """New tokens in all."""
        return self.rows * self.length


@dataclass(slots=True)
class Plan:
    """The segments of one row in their order; `kept` collects their keys and values when it is a list."""

    segments: Sequence[Segment]
    kept: KV | None = None
    masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def mask(self, shared: int, length: int, device: Any) -> Tensor:
        """[length, shared + length]: a new token sees what is shared, itself and its elders."""
        import torch

        if (shared, length) not in self.masks:
            whole = torch.ones(length, shared + length, dtype=torch.bool, device=device)
            self.masks[shared, length] = whole.tril(shared)
        return self.masks[shared, length]


def register() -> None:
    """Makes the packed attention known to transformers; without a plan it is its own sdpa attention."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **more: Any) -> Any:
        plan: Plan | None = getattr(_LOCAL, "plan", None)
        if plan is None:
            return sdpa_attention_forward(module, query, key, value, mask, **more)
        return attention(plan, module.layer_idx, query, key, value, **more), None

    def masked(*args: Any, **more: Any) -> Any:
        return sdpa_mask(*args, **more) if getattr(_LOCAL, "plan", None) is None else None

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, masked)


def attention(plan: Plan, layer: int, query: Tensor, key: Tensor, value: Tensor, **more: Any) -> Tensor:
    """[1, heads, tokens, size] each, in; [1, tokens, heads, size] out: every sequence attends to its own past only."""
    import torch

    if more.get("softcap") is not None or more.get("s_aux") is not None:
        raise UsageError("this model's attention (soft cap or sinks) is not supported by white-box attacks")
    if plan.kept is not None:
        plan.kept.append((key[0].detach(), value[0].detach()))
    window = more.get("sliding_window")
    groups = query.shape[1] // key.shape[1]
    out, at = [], 0
    for segment in plan.segments:
        q, k, v = (cut(x, at, segment) for x in (query, key, value))
        at += segment.tokens
        if segment.past is not None and segment.shared:
            k, v = (joined(past, segment, new) for past, new in zip(segment.past[layer], (k, v), strict=True))
        if window is not None and k.shape[2] > window:
            raise UsageError(f"a prompt of {k.shape[2]} tokens is longer than the model's attention window ({window})")
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        mask = plan.mask(segment.shared, segment.length, query.device)
        seen = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=more.get("scaling"))
        out.append(seen.transpose(1, 2).flatten(0, 1))
    return torch.cat(out)[None]


def cut(x: Tensor, at: int, segment: Segment) -> Tensor:
    """[1, heads, tokens, size] -> the segment's own [rows, heads, length, size]."""
    return x[0, :, at : at + segment.tokens].unflatten(1, (segment.rows, segment.length)).transpose(0, 1)


def joined(past: Tensor, segment: Segment, new: Tensor) -> Tensor:
    """The shared tokens before each row's own: [rows, heads, shared + length, size]."""
    import torch

    return torch.cat([past[:, : segment.shared].expand(segment.rows, -1, -1, -1), new], dim=2)


@dataclass(slots=True)
class Row:
    """A packed row being filled: tokens, their places, and the places whose logits are wanted."""

    tokens: list[Tensor] = field(default_factory=list)
    positions: list[Tensor] = field(default_factory=list)
    wanted: list[Tensor] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    size: int = 0

    def add(self, tokens: Tensor, wanted: int, past: KV | None = None, shared: int = 0) -> None:
        """Adds ids [rows, length], or embeddings [rows, length, size], after `shared` tokens of `past`.

        The logits at the last `wanted` places of each row are asked for.
        """
        import torch

        rows, length = tokens.shape[:2]
        ends = self.size + length * torch.arange(1, rows + 1, device=tokens.device)
        self.segments.append(Segment(rows=rows, length=length, past=past, shared=shared))
        self.tokens.append(tokens.flatten(0, 1))
        self.positions.append(torch.arange(shared, shared + length, device=tokens.device).repeat(rows))
        self.wanted.append((ends[:, None] + torch.arange(-wanted, 0, device=tokens.device)).flatten())
        self.size += rows * length


class Packed:
    """A torch module of transformers, run on packed rows."""

    def __init__(self, module: Any) -> None:
        import torch

        half = module.dtype not in (torch.float32, torch.float64)
        config = module.config.get_text_config()
        if half and any(getattr(config, name, None) not in (None, 1) for name in SCALES):
            raise UsageError(
                "this model scales its logits: white-box attacks know it in full precision only",
                hint="--dtype float32",
            )
        register()
        module.set_attn_implementation(NAME)
        self.module = module
        self.device = module.device
        self.embed: Any = module.get_input_embeddings()
        # In half precision the last product and the loss are fp32: candidates lie closer together than bf16 can tell.
        head = module.get_output_embeddings()
        self.head = head.weight.float() if half else None
        self.bias = head.bias.float() if half and getattr(head, "bias", None) is not None else None
        self.spent = 0  # tokens that went through the model

    def logits(self, row: Row, kept: KV | None = None) -> Tensor:
        """fp32 logits [wanted, vocabulary]; the new tokens' keys and values are added to `kept`."""
        import torch

        tokens, wanted = torch.cat(row.tokens), torch.cat(row.wanted)
        given = {"input_ids" if tokens.dim() == 1 else "inputs_embeds": tokens[None]}
        given |= {"position_ids": torch.cat(row.positions)[None], "use_cache": False}
        self.spent += row.size
        _LOCAL.plan = Plan(row.segments, kept)
        try:
            if self.head is None:
                return self.module(**given, logits_to_keep=wanted).logits[0]
            hidden = self.module.get_decoder()(**given).last_hidden_state[0, wanted]
        finally:
            _LOCAL.plan = None
        logits = torch.nn.functional.linear(hidden.float(), self.head, self.bias)
        cap = getattr(self.module.config.get_text_config(), "final_logit_softcapping", None)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def keys_and_values(self, ids: list[int]) -> KV:
        """What later tokens need to know of `ids`, with nothing before them."""
        import torch

        row, kept = Row(), list[tuple[Tensor, Tensor]]()
        row.add(torch.tensor([ids], device=self.device), 1)
        with torch.no_grad():
            self.logits(row, kept)
        return kept

    def room(self) -> int:
        """How many tokens to send at once: what half the free memory holds; on a CPU, what its caches like best."""
        import torch

        if self.device.type != "cuda":
            return 1280
        config, free = self.module.config.get_text_config(), torch.cuda.mem_get_info(self.device)[0]
        wide = 10 * config.hidden_size + 4 * config.intermediate_size  # kept at once by one layer
        joined = 8 * config.hidden_size  # keys and values of the shared tokens, written out for each row
        token = self.module.dtype.itemsize * (wide + joined) + 4 * config.vocab_size
        return max(512, min(32_768, int(free // 2 // token)))
