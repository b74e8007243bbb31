"""A dry run: what a recipe will need, worked out from the shapes of the base; no weights are loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError, UsageError
from harness.models import embedded
from harness.train import methods
from harness.train.data import TrainSet
from harness.train.data import load as load_data
from harness.train.recipe import Recipe
from harness.train.rows import Encoder, Pair, rows_of
from harness.train.trainer import check, settled

GIB = 2**30
DPO = ("dpo", "dpo-prefix")  # methods that read every pair once more, for their reference
TOKENS_PER_PAIR = 400  # a mean of instruction data, for sets that are not here; a run counts what it reads
CHARACTERS_PER_TOKEN = 4.0  # English text, for tokenizers that are not here
TEMPLATE_TOKENS = 30  # of a chat template around a pair
CANDIDATE_TOKENS = 40  # half a suffix, the end of the prompt and the target: what a candidate does not share
FORWARD = 2  # operations a weight and token
UTILISATION = 0.4  # of a GPU's peak that packed training reaches; 0.3 to 0.5 is common
PEAK = {"A100": 312e12, "H100": 989e12, "H200": 989e12}  # dense bf16 FLOP/s
CPU_SPEED = {"bf16": 310.0, "fp32": 230.0}
"""Tokens/s of SmolLM2-135M with LoRA on two cores with little else to do, of a CPU that multiplies in that precision
(the first with AVX512-BF16, the second with AVX2); a busy machine halves it."""


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

    def adapter(self, rank: int, layers: Iterable[str]) -> int:
        """Weights of a LoRA adapter on the named layers, by their last names; on every expert of a mixture."""
        width = self.head_dim or self.hidden // self.heads
        queries, keys, inner = width * self.heads, width * self.kv_heads, self.inner
        attention = {"q_proj": queries, "o_proj": queries, "k_proj": keys, "v_proj": keys}
        experts = {"gate_proj": inner, "up_proj": inner, "down_proj": inner, "gate_up_proj": 2 * inner}
        sizes = {name: self.hidden + other for name, other in attention.items()}
        sizes |= {name: (self.hidden + other) * self.experts for name, other in experts.items()}
        return rank * self.layers * sum(sizes.get(name.rpartition(".")[2], 0) for name in layers)


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
class Reading:
    """What a run will read: steps, tokens over all of them, and where the numbers come from."""

    steps: int
    tokens: int
    source: str
    reference: int = 0  # tokens of DPO's pairs, which every process reads once before the first step


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run will need on each of `gpus` devices (0: on the CPU). Memory in GiB; good to about a quarter."""

    parameters: int
    trained: int
    reading: Reading
    gpus: int
    weights: float
    gradients: float
    optimizer: float
    activations: float
    hours: float
    speed: str  # what the hours rest on
    searched: int = 0  # tokens that r2d2's suffix searches send through the model besides

    @property
    def memory(self) -> float:
        """GiB a device, with one more for the library and fragmentation."""
        return self.weights + self.gradients + self.optimizer + self.activations + 1.0


def plan(recipe: Recipe, *, gpus: int | None = None, gpu: str = "H100") -> Plan:
    """Memory, steps, tokens and hours of a recipe. Raises UsageError where `train` does, and for unknown sizes.

    Without `gpus`, a recipe of the embedded base runs on the CPU and any other one on a machine of eight.
    """
    check(recipe)
    if gpu not in PEAK:
        raise UsageError(f"no figures for GPU {gpu!r}", hint=f"known: {', '.join(PEAK)}")
    gpus = (0 if recipe.base == embedded.NAME else 8) if gpus is None else gpus
    recipe = settled(recipe, on_gpu=gpus > 0)
    size = shape_of(recipe.base)
    split = max(1, gpus) if recipe.shard else 1
    adapted = (*recipe.lora_targets, *recipe.lora_parameters)
    trained = size.adapter(recipe.lora_r, adapted) if recipe.tune == "lora" else size.parameters
    frozen = 2 if recipe.precision == "bf16" and recipe.tune == "lora" else 4
    reading, searched = read(recipe), search_tokens(recipe)
    forward = searched + max(1, gpus) * reading.reference
    adapter = 4 * trained if recipe.tune == "lora" else 0
    # The CPU's speed was measured with LoRA and without recomputing: other settings cost more passes in proportion.
    cpu = CPU_SPEED[recipe.precision]
    rate = cpu * 4 * SHAPES[embedded.NAME].active if gpus == 0 else gpus * PEAK[gpu] * UTILISATION
    return Plan(
        parameters=size.parameters,
        trained=trained,
        reading=reading,
        gpus=gpus,
        weights=(frozen * size.parameters + adapter) / split / GIB + gathered(size, recipe, split),
        gradients=4 * trained / split / GIB,
        optimizer=8 * trained / split / GIB,
        activations=activations(size, recipe),
        hours=(passes(recipe) * reading.tokens + FORWARD * forward) * size.active / rate / 3600,
        searched=searched,
        speed=f"{gpus} x {gpu} at {UTILISATION:.0%} of their peak"
        if gpus
        else f"two quiet CPU cores, {cpu:.0f} tokens/s for {embedded.NAME}",
    )


def search_tokens(recipe: Recipe) -> int:
    """Tokens of the suffix searches of r2d2: for each safety pair and GCG step, the candidates and one gradient."""
    if recipe.method != "r2d2":
        return 0
    share = recipe.pairs / (recipe.pairs + recipe.helpful)
    visits = methods.steps(recipe, recipe.pairs + recipe.helpful) * recipe.batch * share
    return round(visits * recipe.suffix_steps * (recipe.suffix_width + 3) * CANDIDATE_TOKENS)


def passes(recipe: Recipe) -> int:
    """Operations a weight and token: forward 2, backward 2 for activations, 2 for weights, 2 to recompute, and 2 for
    circuit-breaker's second forward pass, through the model as it was."""
    more = (recipe.tune == "full", recipe.checkpointing, recipe.method == "circuit-breaker")
    return FORWARD + 2 + 2 * sum(more)


def read(recipe: Recipe) -> Reading:
    """What the run will read: exactly, where data and tokenizer are here; else by stated assumptions. No download."""
    try:
        data = load_data(recipe.data)
    except DataError:
        if recipe.data != PLACEHOLDER and Path(recipe.data).exists():
            raise  # it is there, and broken
        return assumed(recipe)
    methods.check_rows(recipe, data)
    tokenizer = tokenizer_at_hand(recipe.base)
    if tokenizer is None:
        return measured(recipe, data)
    encoder = Encoder(tokenizer, recipe.template, recipe.refusal)
    items = methods.draw(recipe, data, encoder)
    steps = methods.schedule(recipe, len(items))
    sizes = [sum(len(row.ids) for row in rows_of(item)) for item in items]
    tokens = sum(sizes[i] for step in steps for i in step)
    compared = recipe.method in DPO
    reference = sum(size for size, item in zip(sizes, items, strict=True) if compared and isinstance(item, Pair))
    return Reading(steps=len(steps), tokens=tokens, source="counted in the data", reference=reference)


PLACEHOLDER = "SET"  # stands for the user's data in the recipes of the paper


def assumed(recipe: Recipe) -> Reading:
    """Nothing is here: every pair has a mean length of instruction data."""
    source = f"assumed: {TOKENS_PER_PAIR} tokens a reply with its request; the data is not here"
    return mixed(recipe, TOKENS_PER_PAIR, TOKENS_PER_PAIR, source)


def measured(recipe: Recipe, data: TrainSet) -> Reading:
    """The data is here, its tokenizer is not: lengths in characters, four to a token."""
    source = f"estimated: {CHARACTERS_PER_TOKEN:g} characters a token; the tokenizer is not here"
    if data.instances:
        size = tokens(len(row.prefix) + len(row.text) for row in data.instances)
        steps = methods.steps(recipe, len(data.instances))
        return Reading(steps=steps, tokens=round(steps * recipe.batch * min(size, recipe.block)), source=source)
    safety = tokens(len(t.request) + len(t.safe) + len(t.violating) / 2 for t in data.triples)
    return mixed(recipe, safety, tokens(len(pair.request) + len(pair.reply) for pair in data.helpful), source)


def tokens(characters: Iterable[float]) -> float:
    """Mean tokens of texts by their characters, with the chat template around them."""
    found = list(characters)
    return sum(found) / max(1, len(found)) / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS


def mixed(recipe: Recipe, safety: float, helpful: float, source: str) -> Reading:
    """The reading of safety and helpful pairs of a mean length in tokens; some methods read two replies of a pair."""
    rows = 2 if recipe.method in (*DPO, "r2d2") else 1
    n = recipe.safety_pairs
    once = n * rows * min(safety, recipe.block)
    size = (once + recipe.helpful * min(helpful, recipe.block)) / (n + recipe.helpful)
    steps = methods.steps(recipe, n + recipe.helpful)
    reference = round(once) if recipe.method in DPO else 0
    return Reading(steps=steps, tokens=round(steps * recipe.batch * size), source=source, reference=reference)


def tokenizer_at_hand(base: str) -> Any:
    """The tokenizer of a base that is on this machine already; None where there is none, or none that loads."""
    folder = embedded.cache_dir() / "models" / base if base == embedded.NAME else Path(base)
    if not (folder / "config.json").is_file():
        return None
    from harness.models.libraries import hush

    hush()
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError):
        return None


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

    path = Path(base) / "config.json"
    if not path.is_file():
        raise UsageError(
            f"the size of {base!r} is not known", hint=f"a folder with config.json, or {', '.join(SHAPES)}"
        )
    try:
        return shape(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        why = f"{path} does not tell the sizes of a model that a dry run knows: {err!r}"
        raise UsageError(why, hint="train without --dry-run, and watch its progress bar") from err


def shape(c: Mapping[str, Any]) -> Shape:
    """The shape that a config.json of the Llama kind tells, or of its mixtures. Raises KeyError for another kind."""
    counts = (c.get(key) for key in ("num_local_experts", "num_experts", "n_routed_experts"))
    experts = next(filter(None, counts), 1)
    return Shape(
        layers=c["num_hidden_layers"],
        hidden=c["hidden_size"],
        inner=(experts > 1 and c.get("moe_intermediate_size")) or c["intermediate_size"],
        heads=c["num_attention_heads"],
        kv_heads=c.get("num_key_value_heads") or c["num_attention_heads"],
        vocabulary=c["vocab_size"],
        experts=experts,
        active_experts=c.get("num_experts_per_tok") or 1,
        tied=bool(c.get("tie_word_embeddings", False)),
        head_dim=c.get("head_dim") or 0,
    )


def text(recipe: Recipe, found: Plan) -> str:
    """The plan as lines for the terminal."""
    recipe = settled(recipe, on_gpu=found.gpus > 0)
    where, reading = (f"{found.gpus} GPU(s)" if found.gpus else "the CPU"), found.reading
    time = f"{found.hours:.1f} h" if found.hours >= 1 else f"{max(1, round(60 * found.hours))} min"
    return "\n".join(
        (
            f"{recipe.name}: {recipe.method} on {recipe.base}, {recipe.tune}, {recipe.precision}",
            f"  parameters   {found.parameters / 1e9:.2f} B, trained {found.trained / 1e6:.1f} M",
            f"  steps        {reading.steps} of {recipe.batch} pairs",
            f"  tokens       {reading.tokens / 1e6:.2f} M ({reading.source})",
            *([f"  search       {found.searched / 1e6:.2f} M tokens, forward only"] if found.searched else []),
            f"  memory       {found.memory:.1f} GiB{' a GPU' if found.gpus else ''} = weights {found.weights:.1f}"
            f" + gradients {found.gradients:.1f} + optimizer {found.optimizer:.1f}"
            f" + activations {found.activations:.1f} + 1 for the libraries",
            f"  time         {time} on {where} ({found.speed})",
        )
    )
