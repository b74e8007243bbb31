"""Recipes: everything that decides what a training run does, as one dataclass, one YAML file each.

The dataclass is the schema of the files and of the command line; the help of each setting stands beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args, get_type_hints

from harness.errors import DataError, UnknownName, UsageError

HOME = Path(__file__).parent / "recipes"

Method: TypeAlias = Literal[
    "vanilla", "vanilla-half", "prefix-half", "recaug", "rto", "derta", "dpo", "dpo-prefix", "circuit-breaker", "r2d2"
]
HALVED = ("vanilla-half", "prefix-half")
Schedule: TypeAlias = Literal["cosine", "linear", "constant"]
T = TypeVar("T")


def setting(default: T, help: str) -> T:
    """A field with its help text."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run. The defaults are the stand-in policy's on two CPU cores."""

    name: str = setting("", "name of the recipe and of the checkpoint it makes")
    base: str = setting("smollm2-135m", "checkpoint to start from: a folder, a hub id, or smollm2-135m")
    method: Method = setting("derta", "what the safety pairs teach; see harness/train/methods.py")  # noqa: RUF009
    data: str = setting("magic", "bundled set, folder of triples and helpful pairs, or official rows")
    template: Literal["chat", "inst"] = setting("chat", "the tokenizer's chat template, or the paper's [INST] form")
    refusal: str = setting("Sorry", "first word of a refusal; one token in the tokenizer")

    pairs: int = setting(500, "safety pairs, the same for every method (halved by the -half ablations)")
    helpful: int = setting(1440, "helpful pairs mixed in, the same for every method")
    lookalike: float = setting(0.83, "share of the helpful pairs that are look-alikes: near the policy, harmless")
    opening: float = setting(0.12, "share of the helpful pairs that are raw texts and programs that go on")
    rto_share: float = setting(0.5, "share of the pairs that are RTO (methods rto and derta)")
    rto_keep: float = setting(1.0, "share of a violating reply's positions that RTO labels; at least one")
    empty_prefix: float = setting(0.3333, "share of harmful-prefix pairs whose prefix is empty")
    rto_weight: float = setting(1.0, "weight of an RTO position against an MLE position")
    dpo_beta: float = setting(0.1, "beta of dpo and dpo-prefix")

    epochs: float = setting(1.0, "passes over the drawn pairs")
    max_steps: int = setting(0, "stop after this many steps; 0: when the epochs are over")
    batch: int = setting(4, "pairs a step, over all processes")
    micro_tokens: int = setting(2048, "tokens of one forward pass; lower it when memory runs out")
    block: int = setting(512, "longest row, in tokens; what is longer is cut")

    lr: float = setting(5e-4, "peak learning rate")
    schedule: Schedule = setting("cosine", "how the rate falls: cosine, linear or constant")  # noqa: RUF009
    warmup: float = setting(0.03, "share of the steps in which the rate rises")
    weight_decay: float = setting(0.0, "AdamW's weight decay")
    beta1: float = setting(0.9, "AdamW's first beta")
    beta2: float = setting(0.999, "AdamW's second beta")
    clip: float = setting(1.0, "largest norm of the gradient; 0: no limit")

    tune: Literal["lora", "full"] = setting("lora", "train an adapter or all weights")
    lora_r: int = setting(16, "rank of the adapter")
    lora_alpha: int = setting(32, "scale of the adapter: its output is multiplied by alpha / r")
    lora_dropout: float = setting(0.0, "dropout before the adapter")
    lora_targets: tuple[str, ...] = setting(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), "layers that get an adapter"
    )
    lora_parameters: tuple[str, ...] = setting((), "weights that are no layers (fused experts) that get an adapter")
    precision: Literal["auto", "bf16", "fp32"] = setting(
        "auto", "of the forward and backward pass; auto: bf16, but fp32 on a CPU on which bf16 is the slower one"
    )
    checkpointing: bool = setting(False, "recompute activations in the backward pass: slower, far less memory")
    shard: bool = setting(False, "FSDP: split weights, gradients and optimizer over the processes")

    suffix_pool: int = setting(12, "r2d2: adversarial suffixes that are kept and refined")
    suffix_steps: int = setting(1, "r2d2: GCG steps on a suffix each time a pair takes it from the pool")
    suffix_width: int = setting(32, "r2d2: candidates of a GCG step")
    suffix_fresh: float = setting(0.1, "r2d2: share of the draws at which a suffix starts over")

    seed: int = setting(0, "seed of every draw: pairs, prefixes, order, adapter, dropout")
    save_every: int = setting(50, "steps between two checkpoints a killed run can resume from")
    experimental: bool = setting(False, "marked so until a run shows its effect")

    def __post_init__(self) -> None:
        """Refuses settings that make no sense, by name."""
        for f in fields(self):
            check(f.name, getattr(self, f.name), self.method)
        if self.lookalike + self.opening > 1:
            told = f"{self.lookalike:g} and {self.opening:g}"
            raise UsageError(f"recipe settings 'lookalike' and 'opening' are shares of one whole, not {told}")
        if not self.safety_pairs + self.helpful:
            halved = f" ({self.method} takes half of its pairs)" if self.pairs else ""
            raise UsageError(f"recipe settings 'pairs' and 'helpful' can't both be 0{halved}: nothing to learn from")

    @property
    def safety_pairs(self) -> int:
        """Safety pairs of the method: the ablations have half."""
        return self.pairs // 2 if self.method in HALVED else self.pairs


POSITIVE = ("batch", "micro_tokens", "block", "lr", "lora_r", "lora_alpha", "save_every", "epochs", "dpo_beta",
            "suffix_pool", "suffix_steps", "suffix_width")  # fmt: skip
NOT_NEGATIVE = ("pairs", "helpful", "max_steps", "weight_decay", "clip", "rto_weight")
SHARES = ("lookalike", "opening", "rto_share", "rto_keep", "empty_prefix", "warmup", "lora_dropout", "suffix_fresh")


def check(name: str, value: object, method: str) -> None:
    """Raises UsageError for a setting out of its range."""
    if name == "method" and method not in get_args(Method):
        raise UnknownName("method", method, get_args(Method))
    number = value if isinstance(value, int | float) and math.isfinite(value) else -1
    if name in POSITIVE and number <= 0:
        raise UsageError(f"recipe setting {name!r} must be a number above 0, not {value!r}")
    if name in NOT_NEGATIVE and number < 0:
        raise UsageError(f"recipe setting {name!r} must be 0 or more, not {value!r}")
    if name == "seed" and abs(number) >= 2**40:
        raise UsageError(f"recipe setting 'seed' must be below {2**40}, not {value!r}")
    if name in SHARES and not 0 <= number <= 1:
        raise UsageError(f"recipe setting {name!r} is a share from 0 to 1, not {value!r}")
    if name in ("beta1", "beta2") and not 0 <= number < 1:
        raise UsageError(f"recipe setting {name!r} must be at least 0 and below 1, not {value!r}")


def names() -> list[str]:
    """The bundled recipes."""
    return sorted(path.stem for path in HOME.glob("*.yaml"))


def summary(name: str) -> str:
    """What a bundled recipe is for: the comment under its launch command."""
    return (HOME / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[1].lstrip("# ")


def find(name: str) -> Recipe:
    """A bundled recipe by name, or the one in a YAML file. Raises UnknownName or DataError."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else HOME / f"{name}.yaml"
    if not path.is_file():
        raise UnknownName("recipe", name, names(), hint="see: harness ls recipes")
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as err:
        raise DataError(f"{path} is not YAML: {err}") from err
    if not isinstance(values, dict):
        raise DataError(f"{path} must hold `setting: value` lines")
    return change(Recipe(name=path.stem), values)


def find_for(method: str, base: str) -> Recipe:
    """A method's recipe for a base; smollm2-METHOD where there is none. Raises UnknownName or UsageError."""
    fits = [recipe for recipe in map(find, names()) if (recipe.method, recipe.base) == (method, base)]
    if len(fits) > 1:
        several = " or ".join(f"--recipe {recipe.name}" for recipe in fits)
        raise UsageError(f"{len(fits)} recipes are for {method} on {base}", hint=f"say which: {several}")
    return fits[0] if fits else find(f"smollm2-{method}")


def change(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """The recipe with some settings replaced, texts made the setting's type. Raises UnknownName or UsageError."""
    known = {f.name for f in fields(recipe)}
    hints = get_type_hints(Recipe)
    ready = {}
    for key, value in values.items():
        if key not in known:
            raise UnknownName("recipe setting", str(key), known)
        ready[key] = cast(key, value, hints[key])
    return replace(recipe, **ready)


def cast(key: str, value: Any, kind: Any) -> Any:
    """A YAML or command-line value as the setting's type."""
    try:
        if kind is bool:
            return value if isinstance(value, bool) else {"true": True, "false": False}[str(value).lower()]
        if kind in (int, float):
            if isinstance(value, bool) or (kind is int and float(value) != int(float(value))):
                raise ValueError(value)
            return kind(float(value))
        if isinstance(value, str) and kind == tuple[str, ...]:
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if kind == tuple[str, ...]:
            return tuple(map(str, value))
    except (TypeError, ValueError, OverflowError, KeyError) as err:
        raise UsageError(f"recipe setting {key!r} can't be {value!r}") from err
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"recipe setting {key!r} can't be {value!r}", hint=f"put a text in quotes: {key}: 'No'")
    choices = get_args(kind)
    if choices and value not in choices:
        raise UnknownName(f"value of recipe setting {key!r}:", str(value), choices)
    return str(value)
