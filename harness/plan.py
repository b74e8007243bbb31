"""What a run will do, checked before any of it begins: attacks, behaviors, judges, and what the model can't do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import registry
from harness.config import ATTACKS, TASKS, RunSpec
from harness.errors import UnknownName, UsageError
from harness.metrics import CONTRAST
from harness.models.libraries import hush
from harness.models.open import open_models
from harness.models.options import ModelOptions
from harness.types import Attack, Behavior, Model

BUNDLED = Path(__file__).parent / "train" / "adapters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One unit of work: one attack on one behavior of one model with one seed."""

    model: int  # index into the run's models
    attack: Attack
    behavior: Behavior
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything settled before the first request. `notes` says what was left out, and why."""

    attacks: tuple[Attack, ...]
    refuse: tuple[Behavior, ...]
    comply: dict[str, tuple[Behavior, ...]]  # by set
    tasks: dict[str, Any]  # name -> lm-eval's loaded task objects
    seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()
    twins: bool = False  # what must be answered is asked under every attack too

    def work(self) -> list[tuple[Attack, Behavior]]:
        """What is asked of each model with each seed; sets of what must be answered may hold contrasts to refuse."""
        direct: Attack = registry.make("attack", "direct")
        contrast: Attack = registry.make("attack", CONTRAST)
        every = [b for found in self.comply.values() for b in found]
        harmless = [b for b in every if b.expect == "comply"]
        under = [a for a in self.attacks if a.name != direct.name] if self.twins else []
        return [
            *((attack, b) for attack in self.attacks for b in self.refuse),
            *((attack, b) for attack in [direct, *under] for b in harmless),
            *((contrast, b) for b in every if b.expect == "refuse"),
        ]

    def cases(self, models: int) -> Iterator[Case]:
        """Every case. Models take turns, so that all finish together."""
        work = self.work()
        for seed in self.seeds:
            for attack, behavior in work:
                for model in range(models):
                    yield Case(model=model, attack=attack, behavior=behavior, seed=seed)

    def only(self, chosen: Collection[tuple[str, str]]) -> Plan:
        """The same with these (task, behavior) pairs only."""

        def kept(found: Sequence[Behavior]) -> tuple[Behavior, ...]:
            return tuple(b for b in found if (b.task, b.id) in chosen)

        return replace(
            self, refuse=kept(self.refuse), comply={name: kept(found) for name, found in self.comply.items()}
        )

    def __len__(self) -> int:
        """The number of cases of one model."""
        return len(self.seeds) * len(self.work())


def behaviors(name: str, spec: RunSpec) -> tuple[Behavior, ...]:
    """A set of behaviors, its split and limit applied: every category is drawn from in turn."""
    split = None if spec.split == "all" else spec.split
    found: tuple[Behavior, ...] = registry.behaviors(name, split=split)
    if not found:
        raise UsageError(f"{name!r} holds no behavior in split {spec.split!r}", hint="--split all")
    return spread(found, spec.limit) if spec.limit else found


def spread(found: Sequence[Behavior], limit: int) -> tuple[Behavior, ...]:
    """The first `limit`, taking one of each category in turn, so that a small run still sees them all."""
    by_category: dict[str, list[Behavior]] = {}
    for behavior in found:
        by_category.setdefault(behavior.category, []).append(behavior)
    order = [b for rank in range(len(found)) for group in by_category.values() for b in group[rank : rank + 1]]
    return tuple(order[:limit])


def make_plan(spec: RunSpec, models: Sequence[Model]) -> Plan:
    """Resolves every name and checks every need. Raises UsageError before anything is spent."""
    can = models[0].can
    notes = []
    attacks = []
    wanted = [name for given in spec.attacks for name in (ATTACKS if given == "all" else (given,))]
    for name in dict.fromkeys(wanted):
        attack: Attack = registry.make("attack", name, spec.options_of(name))
        lacking = attack.needs - can
        if lacking and "all" in spec.attacks:
            notes.append(f"attack {name} left out: {spec.model} can't do {', '.join(sorted(lacking))}")
        elif lacking:
            hint = "an endpoint that can: --can " + ",".join(sorted(lacking)) if spec.base_url else "harness ls attacks"
            raise UsageError(f"attack {name!r} needs {', '.join(sorted(lacking))}; {spec.model} can't", hint=hint)
        else:
            attacks.append(attack)
    tasks, missing = load_tasks(spec, logprobs="logprobs" in can)
    return Plan(
        attacks=tuple(attacks),
        refuse=behaviors(spec.behaviors, spec),
        comply={name: behaviors(name, spec) for name in spec.overrefusal},
        twins=spec.twins,
        tasks=tasks,
        seeds=tuple(range(spec.seed, spec.seed + spec.seeds)),
        notes=(*notes, *missing),
    )


def load_tasks(spec: RunSpec, *, logprobs: bool) -> tuple[dict[str, Any], list[str]]:
    """The helpfulness tasks, and notes on those left out. Raises UsageError or UnknownName."""
    names = dict.fromkeys(name for given in spec.tasks for name in (TASKS if given == "all" else (given,)))
    if not names:
        return {}, []
    from harness.helpfulness import prepare

    return prepare(list(names), explicit="all" not in spec.tasks, logprobs=logprobs, who=spec.model)


async def open_targets(spec: RunSpec) -> list[Model]:
    """The models under attack: the base, then each adapter, named after its folder."""
    hush()
    return await open_models(spec.model, spec.target_options(), adapters(spec))


def adapters(spec: RunSpec) -> dict[str, Path]:
    """Each adapter's folder under its label, the folder's name; a bundled one goes by its name alone.

    Raises UsageError when there is no such folder, or when two share a name.
    """
    found = {folder.name: folder for folder in map(adapter_folder, spec.adapter)}
    if len(found) < len(spec.adapter):
        raise UsageError("two adapters have the same folder name", hint="rename one: the name labels it in the report")
    return found


def adapter_folder(name: str) -> Path:
    """A folder, or the bundled adapter of that name. Raises UnknownName."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if (BUNDLED / name).is_dir():
        return BUNDLED / name
    known = [path.name for path in BUNDLED.glob("*") if path.is_dir()]
    raise UnknownName("adapter", name, known, hint=f"a folder, or bundled: {', '.join(known) or 'none'}")


async def open_helper(reference: str, base_url: str, spec: RunSpec, default: Model | None = None) -> Model:
    """The attacker's or the judge's model: a model of its own, or the one under attack."""
    if not reference and default is not None:
        return default
    options = ModelOptions(base_url=base_url or None, api_key_env=spec.api_key_env, concurrency=spec.concurrency)
    [model] = await open_models(reference, options)
    return model


def make_judge(name: str, spec: RunSpec, model: Model | None) -> Any:
    """A judge by name; one that asks a model gets it. Raises UnknownName or UsageError."""
    options: dict[str, Any] = spec.options_of(name)
    plugin = registry.load("judge", name)
    if "model" in getattr(plugin, "__dataclass_fields__", {}):
        return registry.make("judge", name, options, model=model)
    return registry.make("judge", name, options)
