"""A dry run: what a recipe will need, worked out from the shapes of the base; no weights are loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.errors import UsageError
from harness.train.recipe import Recipe

GIB = 2**30
TOKENS_PER_PAIR = 400  # a mean of instruction data; the run itself counts what it reads
UTILISATION = 0.4  # of a GPU's peak that packed training reaches; 0.3 to 0.5 is common
PEAK = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "CPU": 0.2e12}  # dense bf16 FLOP/s (CPU: two cores, fp32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The sizes that memory and time depend on."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int
    experts: int = 1
    active_experts: int = 1
    tied: bool = False
    head_dim: int = 0

    @property
    def _attention(self) -> int:
        width = self.head_dim or self.hidden // self.heads
        return 2 * self.hidden * width * self.heads + 2 * self.hidden * width * self.kv_heads

    @property
    def parameters(self) -> int:
        """All weights, norms left out."""
        layer = self._attention + 3 * self.hidden * self.inner * self.experts
        return self.layers * layer + self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def active(self) -> int:
        """Weights a token passes through, the head included."""
        return self.layers * (self._attention + 3 * self.hidden * self.inner * self.active_experts) + (
            self.vocabulary * self.hidden
        )

    def adapter(self, rank: int) -> int:
        """Weights of a LoRA adapter on all seven projections (on attention and every expert for mixtures)."""
        width = self.head_dim or self.hidden // self.heads
        queries, keys = width * self.heads, width * self.kv_heads
        attention = 2 * (self.hidden + queries) + 2 * (self.hidden + keys)
        return rank * self.layers * (attention + 3 * (self.hidden + self.inner) * self.experts)


SHAPES = {
    "smollm2-135m": Shape(layers=30, hidden=576, inner=1536, heads=9, kv_heads=3, vocabulary=49152, tied=True),
    "meta-llama/Meta-Llama-3-8B": Shape(layers=32, hidden=4096, inner=14336, heads=32, kv_heads=8, vocabulary=128256),
    "meta-llama/Meta-Llama-3-70B": Shape(layers=80, hidden=8192, inner=28672, heads=64, kv_heads=8, vocabulary=128256),
    "mistralai/Mistral-7B-v0.1": Shape(layers=32, hidden=4096, inner=14336, heads=32, kv_heads=8, vocabulary=32000),
    "mistralai/Mixtral-8x7B-v0.1": Shape(
        layers=32, hidden=4096, inner=14336, heads=32, kv_heads=8, vocabulary=32000, experts=8, active_experts=2
    ),
}
"""Public sizes of the recipes' bases, so that a dry run needs neither weights nor network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will need on each of `gpus` devices. Memory in GiB; an estimate, good to about a quarter."""

    parameters: int
    trained: int
    steps: int
    tokens: int
    gpus: int
    weights: float
    gradients: float
    optimizer: float
    activations: float
    hours: float

    @property
    def memory(self) -> float:
        """GiB a device, with one more for the library and fragmentation."""
        return self.weights + self.gradients + self.optimizer + self.activations + 1.0


def plan(recipe: Recipe, *, gpus: int = 8, gpu: str = "H100", tokens_per_pair: int = TOKENS_PER_PAIR) -> Plan:
    """Memory, steps, tokens and hours of a recipe. Raises UsageError for a base or GPU of unknown size."""
    if gpu not in PEAK:
        raise UsageError(f"no figures for GPU {gpu!r}", hint=f"known: {', '.join(PEAK)}")
    shape = shape_of(recipe.base)
    split = gpus if recipe.shard else 1
    trained = shape.adapter(recipe.lora_r) if recipe.tune == "lora" else shape.parameters
    frozen = 2 if recipe.precision == "bf16" and recipe.tune == "lora" else 4
    items = recipe.pairs + recipe.helpful
    steps = math.ceil(items * recipe.epochs / recipe.batch)
    steps = min(steps, recipe.max_steps) if recipe.max_steps else steps
    tokens = steps * recipe.batch * min(tokens_per_pair, recipe.block)
    # Forward 2, backward 2 for the gradient of activations and 2 for that of weights, 2 more when they are recomputed.
    passes = 4 + (2 if recipe.tune == "full" else 0) + (2 if recipe.checkpointing else 0)
    adapter = 4 * trained if recipe.tune == "lora" else 0
    return Plan(
        parameters=shape.parameters,
        trained=trained,
        steps=steps,
        tokens=tokens,
        gpus=gpus,
        weights=(frozen * shape.parameters + adapter) / split / GIB + gathered(shape, recipe, split),
        gradients=4 * trained / split / GIB,
        optimizer=8 * trained / split / GIB,
        activations=activations(shape, recipe),
        hours=passes * shape.active * tokens / (gpus * PEAK[gpu] * UTILISATION) / 3600,
    )


def gathered(shape: Shape, recipe: Recipe, split: int) -> float:
    """GiB of the two layers and the head that FSDP holds whole at a time."""
    if split == 1:
        return 0.0
    width = 2 if recipe.precision == "bf16" else 4
    layer = shape.parameters / shape.layers
    return width * (2 * layer + 2 * shape.vocabulary * shape.hidden) / GIB


def activations(shape: Shape, recipe: Recipe) -> float:
    """GiB of what the backward pass needs of one micro-batch: layer borders, one layer's inside (or all), the head."""
    width = 2 if recipe.precision == "bf16" else 4
    tokens = recipe.micro_tokens
    border = width * tokens * shape.hidden
    inside = width * tokens * (10 * shape.hidden + 4 * shape.inner * shape.active_experts)
    head = 512 * shape.vocabulary * 4 * 3  # one chunk of logits, its softmax and its gradient, in fp32
    layers = shape.layers * border + inside if recipe.checkpointing else shape.layers * inside
    return (layers + head) / GIB


def shape_of(base: str) -> Shape:
    """The shape of a named base, or of a checkpoint folder by its config.json."""
    named = base.removesuffix("-Instruct")
    if named in SHAPES:
        return SHAPES[named]
    import json
    from pathlib import Path

    path = Path(base) / "config.json"
    if not path.is_file():
        raise UsageError(
            f"the size of {base!r} is not known", hint=f"a folder with config.json, or {', '.join(SHAPES)}"
        )
    c = json.loads(path.read_text())
    return Shape(
        layers=c["num_hidden_layers"],
        hidden=c["hidden_size"],
        inner=c["intermediate_size"],
        heads=c["num_attention_heads"],
        kv_heads=c.get("num_key_value_heads") or c["num_attention_heads"],
        vocabulary=c["vocab_size"],
        experts=c.get("num_local_experts", 1),
        active_experts=c.get("num_experts_per_tok", 1),
        tied=bool(c.get("tie_word_embeddings", False)),
        head_dim=c.get("head_dim") or 0,
    )


def text(recipe: Recipe, found: Plan) -> str:
    """The plan as lines for the terminal."""
    return "\n".join(
        (
            f"{recipe.name}: {recipe.method} on {recipe.base}, {recipe.tune}, {recipe.precision}",
            f"  parameters   {found.parameters / 1e9:.2f} B, trained {found.trained / 1e6:.1f} M",
            f"  steps        {found.steps} of {recipe.batch} pairs, {found.tokens / 1e6:.1f} M tokens",
            f"  memory a GPU {found.memory:.1f} GiB = weights {found.weights:.1f} + gradients {found.gradients:.1f}"
            f" + optimizer {found.optimizer:.1f} + activations {found.activations:.1f} + 1",
            f"  time         {found.hours:.1f} h on {found.gpus} GPU(s), at {UTILISATION:.0%} of peak",
        )
    )
