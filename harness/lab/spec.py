"""What a lab is asked to do: the YAML file as a dataclass, and the checkpoints that follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.config import RunSpec, make_spec, read_yaml
from harness.errors import UnknownName, UsageError
from harness.models import embedded
from harness.train.recipe import HOME, Recipe, change, find
from harness.train.trainer import IDLE

BASE = "base"  # what a gate calls the model that nothing was trained into
KEYS = ("name", "base", "methods", "seeds", "set", "sweep", "reuse", "run", "gate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One checkpoint to make: a recipe with one seed. The seeds of a method share a label."""

    label: str
    recipe: Recipe
    swept: Mapping[str, Any] = field(default_factory=dict)  # the setting that is varied, and its value here

    @property
    def name(self) -> str:
        """What the checkpoint is called: its folder, and the model in the run's records."""
        return f"{slug(self.label)}-s{self.recipe.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSpec:
    """A lab's file. `settings` go to every recipe, `run` is what `harness run --config` takes."""

    name: str
    base: str = embedded.NAME
    methods: tuple[str, ...]  # a method (the recipe smollm2-METHOD), a recipe's name or a YAML file
    seeds: tuple[int, ...] = (0, 1, 2)
    settings: Mapping[str, Any] = field(default_factory=dict)
    sweep: str = ""  # the one setting that is varied
    values: tuple[Any, ...] = ()
    reuse: tuple[Path, ...] = ()  # folders with checkpoints that were trained elsewhere
    run: Mapping[str, Any] = field(default_factory=dict)
    policy: Path | None = None
    gates: tuple[tuple[str, str], ...] = ()  # (baseline, candidate) by label

    def trials(self) -> Iterator[Trial]:
        """Every checkpoint, all seeds of a method in a row."""
        labels = label_methods(self.methods)
        for method, label in zip(self.methods, labels, strict=True):
            recipe = change(find(recipe_name(method)), {"base": self.base, **self.settings})
            for swept in [{self.sweep: value} for value in self.values] or [{}]:
                named = " ".join([label, *(f"{key}={value}" for key, value in swept.items())])
                for seed in self.seeds:
                    yield Trial(label=named, recipe=change(recipe, {**swept, "seed": seed}), swept=swept)

    def outline(self) -> RunSpec:
        """The run before its checkpoints are there: they stand in it by name."""
        return self.run_spec([Path(trial.name) for trial in self.trials()])

    def run_spec(self, adapters: Sequence[Path]) -> RunSpec:
        """The one run that evaluates the base and all checkpoints. Raises UsageError for a setting that is wrong."""
        return make_spec({**self.run, "model": self.base, "adapter": tuple(map(str, adapters))})


def read_spec(path: Path) -> LabSpec:
    """A lab's file, every name in it checked. Raises UsageError or UnknownName before anything is trained."""
    told = read_yaml(path)
    for key in told:
        if key not in KEYS:
            raise UnknownName(f"key of {path}:", key, KEYS)
    sweep, values = parse_sweep(told.get("sweep") or {})
    policy, gates = parse_gate(told.get("gate") or {})
    spec = LabSpec(
        name=str(told.get("name") or path.stem),
        base=str(told.get("base") or embedded.NAME),
        methods=tuple(map(str, items(told.get("methods"), "methods"))),
        seeds=parse_seeds(told.get("seeds", 3)),
        settings=mapping(told.get("set") or {}, "set"),
        sweep=sweep,
        values=values,
        reuse=tuple(Path(str(folder)).expanduser() for folder in items(told.get("reuse"), "reuse")),
        run={str(k).replace("-", "_"): v for k, v in mapping(told.get("run") or {}, "run").items()},
        policy=policy,
        gates=gates,
    )
    check(spec)
    return spec


def check(spec: LabSpec) -> None:
    """Raises UsageError or UnknownName for what can't work."""
    if not spec.methods:
        raise UsageError("a lab needs at least one method", hint="methods: [vanilla, derta]")
    for key in ("model", "adapter"):
        if key in spec.run:
            raise UsageError(f"run: {key} is set by the lab itself", hint="name the checkpoint with `base`")
    for key, own in {"base": "base", "seed": "seeds", "method": "methods"}.items():
        if key in spec.settings or key == spec.sweep:
            raise UsageError(f"{key!r} can't be a setting of the recipes here", hint=f"the file has `{own}`")
    if spec.sweep in IDLE:
        told = f"sweep: {spec.sweep} decides nothing of a checkpoint but rounding: one would do for all its values"
        raise UsageError(told, hint=f"set: {{{spec.sweep}: ...}}, and sweep what changes what is learned")
    for folder in spec.reuse:
        if not folder.is_dir():
            raise UsageError(f"reuse: there is no folder {folder}", hint="name folders with finished checkpoints")
    trials = list(spec.trials())
    full = sorted({trial.label for trial in trials if trial.recipe.tune != "lora"})
    if full:
        hint = "set: {tune: lora}; whole checkpoints are evaluated one by one: harness train, then harness run"
        raise UsageError(f"a lab evaluates adapters in one load; {', '.join(full)} trains all weights", hint=hint)
    names = [trial.name for trial in trials]
    if len(set(names)) < len(names):
        raise UsageError("two checkpoints of this lab would have the same name", hint="name each method and seed once")
    labels = {trial.label for trial in trials} | {BASE}
    for name in (name for pair in spec.gates for name in pair):
        if name not in labels:
            raise UnknownName("method in `gate`:", name, labels)
    if any(baseline == candidate for baseline, candidate in spec.gates):
        raise UsageError("gate: a method can't be gated against itself", hint="pairs: [[vanilla, derta]]")
    if spec.policy is not None:
        from harness.gate import load_policy

        load_policy(spec.policy)
    asked = spec.outline()
    if asked.skip_base and any(BASE in pair for pair in spec.gates):
        raise UsageError("gate: the base is compared with, and run: skip_base leaves it out", hint="skip_base: false")


def recipe_name(method: str) -> str:
    """The recipe that is meant by a method's name; recipes and YAML files stand for themselves."""
    known = (HOME / f"smollm2-{method}.yaml").is_file()
    return f"smollm2-{method}" if known else method


def label_methods(methods: Sequence[str]) -> list[str]:
    """How each is called in the report: a method by its name, a file by its stem."""
    return [Path(name).stem if name.endswith((".yaml", ".yml")) else name for name in methods]


def slug(text: str) -> str:
    """A name that can be a folder."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-.") or "method"


def parse_seeds(told: Any) -> tuple[int, ...]:
    """A number of seeds, or the seeds themselves."""
    if isinstance(told, int) and not isinstance(told, bool) and told > 0:
        return tuple(range(told))
    if isinstance(told, list) and told and all(isinstance(s, int) and not isinstance(s, bool) for s in told):
        return tuple(told)
    raise UsageError(f"seeds: {told!r} is neither a number of seeds nor a list of them", hint="seeds: 3")


def parse_sweep(told: Any) -> tuple[str, tuple[Any, ...]]:
    """The one setting that is varied, and its values."""
    found = mapping(told, "sweep")
    if len(found) > 1:
        raise UsageError("sweep varies one setting", hint="sweep: {rto_share: [0, 0.5, 1]}")
    for key, values in found.items():
        values = items(values, f"sweep: {key}")
        if len(values) < 2:
            raise UsageError(f"sweep: {key} needs at least two values", hint=f"sweep: {{{key}: [0, 0.5, 1]}}")
        return str(key), tuple(values)
    return "", ()


def parse_gate(told: Any) -> tuple[Path | None, tuple[tuple[str, str], ...]]:
    """The policy file, and the pairs to compare."""
    found = mapping(told, "gate")
    for key in found:
        if key not in ("policy", "pairs"):
            raise UnknownName("key of gate:", str(key), ("policy", "pairs"))
    pairs = [tuple(map(str, items(pair, "gate: pairs"))) for pair in items(found.get("pairs"), "gate: pairs")]
    if any(len(pair) != 2 for pair in pairs):
        raise UsageError("gate: each of `pairs` holds a baseline and a candidate", hint="pairs: [[vanilla, derta]]")
    policy = Path(str(found["policy"])).expanduser() if found.get("policy") else None
    return policy, tuple((a, b) for a, b in pairs)


def mapping(told: Any, where: str) -> dict[str, Any]:
    """A mapping of the file. Raises UsageError for anything else."""
    if not isinstance(told, dict):
        raise UsageError(f"{where}: must hold named settings, not {told!r}")
    return told


def items(told: Any, where: str) -> list[Any]:
    """A list of the file; nothing is an empty one. Raises UsageError for anything else."""
    if told is None:
        return []
    if not isinstance(told, list):
        raise UsageError(f"{where}: must be a list, not {told!r}", hint=f"{where.split(': ')[-1]}: [...]")
    return told
