"""What a run will do, checked before any of it begins: attacks, behaviors, judges, and what the model can't do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from harness import registry
from harness.config import ATTACKS, TASKS, RunSpec, convert
from harness.errors import UnknownName, UsageError
from harness.judges.vote import MEMBERS
from harness.metrics import CONTRAST
from harness.models.costs import Purse
from harness.models.libraries import hush
from harness.models.open import open_models
from harness.models.providers import host_of
from harness.models.scripted import Scripted
from harness.models.source import find_adapter
from harness.types import Attack, Behavior, Capability, Expect, Model, sha

T = TypeVar("T")


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
    pairs: dict[str, tuple[Behavior, ...]] = field(default_factory=dict)  # pairwise task -> its requests
    subsets: dict[str, tuple[Behavior, ...]] = field(default_factory=dict)  # attack -> all it is tried on
    part: tuple[int, int] = (0, 1)  # which part of how many this run does
    notes: tuple[str, ...] = ()
    about: dict[str, dict[str, Any]] = field(default_factory=dict)  # what each attack says of itself for run.json
    twins: bool = False  # what must be answered is asked under every attack too

    def work(self) -> list[tuple[Attack, Behavior]]:
        """What this part asks of each model with each seed; sets to be answered may hold contrasts to refuse."""
        direct: Attack = registry.make("attack", "direct")
        contrast: Attack = registry.make("attack", CONTRAST)
        every = [b for found in self.comply.values() for b in found]
        harmless = [b for b in every if b.expect == "comply"]
        under = [a for a in self.attacks if a.name != direct.name] if self.twins else []
        work = [
            *((attack, b) for attack in self.attacks for b in self.subsets.get(attack.name, self.refuse)),
            *((attack, b) for attack in [direct, *under] for b in harmless),
            *((contrast, b) for b in every if b.expect == "refuse"),
        ]
        once = {(attack.name, b.task, b.id): (attack, b) for attack, b in work}  # a set may be named in both roles
        return share(list(once.values()), self.part)

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
            self,
            refuse=kept(self.refuse),
            comply={name: kept(found) for name, found in self.comply.items()},
            subsets={name: kept(found) for name, found in self.subsets.items()},
        )

    def __len__(self) -> int:
        """The number of cases of one model."""
        return len(self.seeds) * len(self.work())


def share(items: Sequence[T], part: tuple[int, int]) -> list[T]:
    """One part of `items`: every n-th, so that the parts are disjoint, make up the whole, and differ in size by one."""
    index, parts = part
    return list(items[index::parts])


def chosen(found: Sequence[Behavior], number: int, seed: int) -> tuple[Behavior, ...]:
    """So many behaviors, drawn by the seed and in their order; a larger draw holds every smaller one."""
    order = sorted(found, key=lambda b: (sha([seed, b.task, b.id]), b.id))
    drawn = set(order[:number])
    return tuple(b for b in found if b in drawn)


def behaviors(name: str, spec: RunSpec, expect: Expect = "refuse") -> tuple[Behavior, ...]:
    """A set of behaviors, its split and limit applied: every category is drawn from in turn.

    Rows of a file that don't say what is expected are as `expect`.
    """
    split = None if spec.split == "all" else spec.split
    found: tuple[Behavior, ...] = registry.behaviors(name, split=split, expect=expect)
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
    known = {**registry.table("attack"), **registry.table("judge")}
    for name in spec.settings():
        if name not in known:
            raise UnknownName("attack or judge in --set:", name, known)
    wanted = list(spelled_out(spec.attacks, ATTACKS))
    if spec.from_run:
        wanted.append("replay")
    for name in dict.fromkeys(wanted):
        attack: Attack = registry.make("attack", name, options_of(name, spec))
        lacking = attack.needs - can
        if lacking and "all" in spec.attacks:
            notes.append(f"attack {name} left out: {spec.model} can't do {', '.join(sorted(lacking))}")
        elif lacking:
            hint = "an endpoint that can: --can " + ",".join(sorted(lacking)) if spec.base_url else "harness ls attacks"
            raise UsageError(f"attack {name!r} needs {', '.join(sorted(lacking))}; {spec.model} can't", hint=hint)
        else:
            attacks.append(attack)
    idle = spec.settings().keys() - {*wanted, *judges_of(spec)}
    notes += [f"--set {name}: no attack or judge of this run" for name in sorted(idle)]
    refuse = behaviors(spec.behaviors, spec)
    tasks, pairs, missing = load_tasks(spec, logprobs="logprobs" in can)
    comply = {name: behaviors(name, spec, "comply") for name in spec.overrefusal}
    check_apart([(spec.behaviors, refuse), *comply.items()])
    subsets = drawn(spec, attacks, refuse)
    about = {attack.name: attack.describe(subsets.get(attack.name, refuse), can) for attack in attacks}
    notes += [note for told in about.values() for note in told.pop("notes", ())]
    return Plan(
        attacks=tuple(attacks),
        about=about,
        refuse=refuse,
        comply=comply,
        twins=spec.twins,
        tasks=tasks,
        seeds=tuple(range(spec.seed, spec.seed + spec.seeds)),
        pairs=pairs,
        subsets=subsets,
        part=spec.part(),
        notes=(*dict.fromkeys(note for m in models for note in getattr(m, "notes", ())), *notes, *missing),
    )


def check_names(spec: RunSpec) -> None:
    """Resolves every name of a run as for a model that can do everything: said before weights are loaded.

    The data of lm-eval's tasks is left for later. Raises UsageError, UnknownName or DataError.
    """
    from harness.winrate import is_pairwise

    able = Scripted(policy="refuse", can=frozenset(get_args(Capability)))
    names = [name for name in spelled_out(spec.tasks, TASKS) if not is_pairwise(name)]
    plan = make_plan(replace(spec, tasks=tuple(name for name in spec.tasks if is_pairwise(name))), [able])
    check_attacker(plan, able, [] if spec.attacker or spec.skip_base else [able])
    for name in spec.judge:
        make_judge(name, spec, able)
    if names:
        from harness.helpfulness import find

        find(names)


def spelled_out(given: Sequence[str], every: Sequence[str]) -> tuple[str, ...]:
    """The names given, each once; `all` stands for every one."""
    return tuple(dict.fromkeys(name for word in given for name in (every if word == "all" else (word,))))


def check_attacker(plan: Plan, attacker: Model, targets: Sequence[Model]) -> None:
    """Raises UsageError when an attack needs another attacker than the run has."""
    for attack in plan.attacks:
        lacking = attack.attacker_needs - (frozenset() if attacker in targets else attacker.can)
        if lacking:
            why = f"an attacker of its own that can do {', '.join(sorted(attack.attacker_needs))}"
            raise UsageError(f"attack {attack.name!r} needs {why}", hint="name a smaller checkpoint with --attacker")


def judges_of(spec: RunSpec) -> set[str]:
    """The judges whose settings a run heeds: those named, and the members of a vote."""
    members = convert(tuple[str, ...], spec.options_of("vote").get("judges", MEMBERS), "vote.judges")
    asked = (*spec.judge, *(members if "vote" in spec.judge else ()))
    return {name.partition(":")[0] for name in asked}  # a preset may follow


def check_apart(sets: Sequence[tuple[str, Sequence[Behavior]]]) -> None:
    """Raises UsageError when two sets share a behavior's task and id: their records would overwrite each other."""
    taken: dict[tuple[str, str], str] = {}
    for name, found in sets:
        for each in found:
            other = taken.setdefault((each.task, each.id), name)
            if other != name:
                hint = "use one of them, or rename a file: its name without the suffix names the set"
                raise UsageError(f"{other} and {name} both hold {each.id!r} of set {each.task!r}", hint=hint)


def options_of(name: str, spec: RunSpec) -> dict[str, Any]:
    """The settings of an attack; --from-run is one of replay's."""
    return {**({"run": spec.from_run} if name == "replay" else {}), **spec.options_of(name)}


def drawn(spec: RunSpec, attacks: Sequence[Attack], refuse: Sequence[Behavior]) -> dict[str, tuple[Behavior, ...]]:
    """The behaviors of each attack that is tried on some only. Raises UnknownName for what is no attack."""
    names = [attack.name for attack in attacks]
    for name in spec.subsets():
        if name not in registry.table("attack"):
            raise UnknownName("attack in --subset:", name, registry.table("attack"))
    return {name: chosen(refuse, number, spec.seed) for name, number in spec.subsets().items() if name in names}


def load_tasks(spec: RunSpec, *, logprobs: bool) -> tuple[dict[str, Any], dict[str, tuple[Behavior, ...]], list[str]]:
    """The helpfulness tasks of lm-eval, the pairwise ones, and notes on those left out.

    Raises UsageError or UnknownName.
    """
    from harness.winrate import is_pairwise
    from harness.winrate import prepare as prepare_pairs

    names = spelled_out(spec.tasks, TASKS)
    pairwise = [name for name in names if is_pairwise(name)]
    pairs = prepare_pairs(pairwise, spec)
    rest = [name for name in names if name not in pairwise]
    if not rest:
        return {}, pairs, []
    from harness.helpfulness import prepare

    tasks, notes = prepare(rest, explicit="all" not in spec.tasks, logprobs=logprobs, who=spec.model)
    return tasks, pairs, notes


async def open_targets(spec: RunSpec, purse: Purse | None = None) -> list[Model]:
    """The models under attack: the base, then each adapter, named after its folder. `purse` pays for endpoints."""
    hush()
    return await open_models(spec.model, replace(spec.target_options(), purse=purse), adapters(spec))


def check_labels(models: Sequence[Model]) -> None:
    """Raises UsageError when two models have one name: each would be given what is remembered of the other.

    The same model opened twice, say as judge and as attacker, is one.
    """
    known: dict[str, Model] = {}
    for model in models:
        other = known.setdefault(model.name, model)
        if other is not model and other.describe() != model.describe():
            hint = "rename a folder, or serve one under another name: the last part of a model's name is its label"
            raise UsageError(f"two different models are called {model.name!r}", hint=hint)


def adapters(spec: RunSpec) -> dict[str, Path]:
    """Each adapter's folder under its label, the last part of its name.

    Raises UsageError when there is no such adapter, or when two share a name.
    """
    found = dict(find_adapter(name, spec.target_options()) for name in spec.adapter)
    if len(found) < len(spec.adapter):
        raise UsageError("two adapters have the same folder name", hint="rename one: the name labels it in the report")
    return found


async def open_helper(
    role: Literal["attacker", "judge", "reference"],
    spec: RunSpec,
    targets: Sequence[Model] = (),
    purse: Purse | None = None,
    helpers: dict[tuple[str, str, str], Model] | None = None,
) -> Model:
    """A role's model: one of those under attack (the first, or by name), that of another role, or one of its own.

    `helpers` holds those that were opened by reference, base URL and key; a new one joins them.
    """
    reference = {"attacker": spec.attacker, "judge": spec.judge_model, "reference": spec.reference}[role]
    base_url: str = getattr(spec, f"{role}_base_url")
    shared = [m for m in targets if not reference or (m.name == reference and not base_url)]
    if shared:
        return shared[0]
    key: str = getattr(spec, f"{role}_api_key_env")
    if not key and host_of(reference, base_url) == host_of(spec.model, spec.base_url):
        key = spec.api_key_env
    helpers = {} if helpers is None else helpers
    if known := helpers.get((reference, base_url, key)):
        return known
    own: dict[str, Any] = {"base_url": base_url or None, "chat": None, "max_model_len": None, "capabilities": ()}
    own["api_key_env"] = key
    [model] = await open_models(reference, replace(spec.target_options(), purse=purse, **own))
    helpers[reference, base_url, key] = model
    return model


async def open_reference(
    spec: RunSpec, plan: Plan, targets: Sequence[Model], purse: Purse, helpers: dict[tuple[str, str, str], Model]
) -> Model | None:
    """The model whose replies pairwise tasks compare with; None where there are none, or a file or task has them."""
    from harness.winrate import from_file

    if not plan.pairs or not spec.reference or from_file(spec.reference):
        return None
    return await open_helper("reference", spec, targets, purse, helpers)


def make_judge(name: str, spec: RunSpec, model: Model | None) -> Any:
    """A judge by name; one that asks a model gets it, and a vote its members' settings.

    Raises UnknownName or UsageError.
    """
    known = getattr(registry.load("judge", name), "__dataclass_fields__", {})
    given = {"model": model, "member_settings": spec.settings()}
    return registry.make("judge", name, spec.options_of(name), **{k: v for k, v in given.items() if k in known})
