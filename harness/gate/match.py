"""Puts two runs side by side: what differs in how they were made, and which attempts belong together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

from harness.errors import UnknownName, UsageError
from harness.judges.pairwise import Pairwise
from harness.metrics import is_graded
from harness.stats.correction import Attempt
from harness.types import Record, Run, sha

Unit: TypeAlias = tuple[str, str, str, int]
"""Task, behavior, attack and seed: what was asked, however many attempts an attack made of it."""

Wanted: TypeAlias = Callable[[Record], bool]
Read: TypeAlias = Callable[[Record], float | None]
Matched: TypeAlias = dict[tuple[str, str], list[tuple[float, float | None]]]
"""(before, after) of each attempt by behavior; after is None where the candidate could not be judged."""

# Settings that decide what a reply is; the model itself is what a gate compares, so it is not among them.
GENERATION = ("max_tokens", "temperature", "top_p", "attacker", "budget", "reference", "from_run")
SETTINGS = "settings of attack "


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One model's part of a run."""

    run: Run
    model: str
    units: Mapping[Unit, tuple[Record, ...]]
    labels: Mapping[str, bool] = field(default_factory=dict)  # by hand, by record key

    @property
    def partial(self) -> bool:
        """Whether the run was not finished."""
        return self.run.info.get("status") != "complete"

    @property
    def records(self) -> list[Record]:
        """Every record, in order."""
        return [record for records in self.units.values() for record in records]

    def restricted(self, units: Collection[Unit]) -> Side:
        """The same with these units only."""
        return replace(self, units={u: r for u, r in self.units.items() if u in units})


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing in which two runs were not made alike; `shared` says that what they share can still be compared."""

    what: str
    baseline: str
    candidate: str
    shared: bool = False
    such_as: str = ""  # a few of them by name

    def __str__(self) -> str:
        more = f" (such as {self.such_as})" if self.such_as else ""
        return f"{self.what}: {self.baseline} against {self.candidate}{more}"


def side(run: Run, model: str | None, which: str, labels: Mapping[str, bool] | None = None) -> Side:
    """One model of a run. Raises UsageError when the run holds several and none is named, UnknownName for another."""
    names = sorted({r.model for r in run.records})
    if model is not None and model not in names:
        raise UnknownName(f"model of the {which}:", model, names)
    if model is None and len(names) > 1:
        raise UsageError(f"the {which} holds {len(names)} models", hint=f"--{which}-model, one of: {', '.join(names)}")
    model = model if model is not None else (names[0] if names else "")
    units: dict[Unit, list[Record]] = defaultdict(list)
    for record in run.records:
        if record.model == model:
            units[record.task, record.behavior, record.attack, record.seed].append(record)
    return Side(run=run, model=model, units={u: tuple(units[u]) for u in sorted(units)}, labels=labels or {})


def differences(baseline: Side, candidate: Side) -> list[Difference]:
    """Everything that makes the two not comparable as they are."""
    found = [
        *_settings(baseline, candidate),
        *_judges(baseline, candidate),
        *_texts(baseline, candidate),
        *_attacks(baseline, candidate),
    ]
    missing = baseline.units.keys() - candidate.units.keys()
    extra = candidate.units.keys() - baseline.units.keys()
    if missing or extra:
        some = sorted({_unit_name(unit) for unit in missing | extra})
        alone = [f"{len(only)} alone" for only in (missing, extra)]
        such_as = ", ".join(some[:3])
        found.append(Difference(what="behaviors", baseline=alone[0], candidate=alone[1], shared=True, such_as=such_as))
    return found


def forecast(baseline: Side, info: Mapping[str, Any]) -> list[Difference]:
    """What will make a candidate not comparable, as far as its run.json tells before its first request."""
    coming = Side(
        run=Run(folder=Path(), info=info, records=(), metrics=()),
        model=next(iter(info.get("models") or {}), ""),
        units={},
    )
    old, new = _sets(baseline), _sets(coming)
    sets = [
        Difference(what=f"content of {name}", baseline=str(old[name].get("sha")), candidate=str(told.get("sha")))
        for name, told in new.items()
        if name in old and old[name].get("sha") != told.get("sha")
    ]
    return [*_settings(baseline, coming), *_judges(baseline, coming), *sets, *_attacks(baseline, coming)]


def shared(baseline: Side, candidate: Side, apart: Sequence[Difference]) -> tuple[Side, Side, list[str]]:
    """Both sides cut down to what they share, with a note on each thing given up.

    Raises UsageError for a difference that leaves nothing to share.
    """
    blocking = [d for d in apart if not d.shared]
    if blocking:
        raise UsageError(f"the runs share nothing to compare: {'; '.join(map(str, blocking))}")
    both = baseline.units.keys() & candidate.units.keys()
    changed = {d.what.removeprefix(SETTINGS) for d in apart if d.what.startswith(SETTINGS)}
    both = {unit for unit in both if unit[2] not in changed}
    if not both:
        raise UsageError("the runs have no behavior in common", hint="compare runs of the same sets and attacks")
    baseline, candidate = baseline.restricted(both), candidate.restricted(both)
    if any(d.what == "judge" for d in apart):
        judge = _common_judge(baseline, candidate)
        assert judge is not None  # else the difference would not be shared
        baseline, candidate = _judged_by(baseline, judge), _judged_by(candidate, judge)
    return baseline, candidate, [f"not compared: {d}" for d in apart]


def matched(
    baseline: Side, candidate: Side, wanted: Wanted, before: Read, after: Read, unjudged: float | None = None
) -> Matched:
    """(before, after) by behavior wherever the baseline could be read.

    Attempts are paired one by one; where an attack made other attempts for each model, their means are. `unjudged`:
    what each attempt counts that the candidate could not be read for; None leaves it out.
    """
    found: Matched = defaultdict(list)
    for unit, records in baseline.units.items():
        if not wanted(records[0]):  # all attempts of a unit are of one task and attack
            continue
        old = {_attempt(r): before(r) for r in records}
        read = {_attempt(r): after(r) for r in candidate.units.get(unit, ())}
        new = {attempt: unjudged if value is None else value for attempt, value in read.items()}
        if old and new and old.keys() != new.keys():
            old, new = {("", 0): _mean(old.values())}, {("", 0): _mean(new.values())}
        for attempt, value in old.items():
            if value is not None:
                found[unit[:2]].append((value, new.get(attempt, unjudged)))
    return dict(found)


def unread(s: Side, wanted: Wanted, read: Read) -> set[tuple[Unit, tuple[str, int]]]:
    """The attempts of a side that could not be read."""
    return {
        (unit, _attempt(record))
        for unit, records in s.units.items()
        for record in records
        if wanted(record) and read(record) is None
    }


def labelled_attempts(s: Side, wanted: Wanted, read: Read) -> list[Attempt]:
    """Every attempt of a side that could be read, with the label it was given by hand, if any."""
    return [
        (unit[:2], value, float(s.labels[record.key]) if record.key in s.labels else None)
        for unit, records in s.units.items()
        for record in records
        if wanted(record) and (value := read(record)) is not None
    ]


def averaged(parts: Sequence[Matched]) -> Matched:
    """One pair a behavior, whose mean is the mean over parts (attacks) of each part's, where both sides have a value.

    A part of fewer behaviors weighs more on each of them. A single part stays as it is.
    """
    if len(parts) == 1:
        return parts[0]
    means = _means(parts)
    behaviors, weights = _weights(means)

    def weighted(behavior: tuple[str, str], i: int) -> float:
        return fsum(w * part[behavior][i] for w, part in zip(weights, means, strict=True) if behavior in part)

    return {b: [(weighted(b, 0), weighted(b, 1))] for b in behaviors}


def heaviest(parts: Sequence[Matched]) -> float:
    """The most that one behavior weighs in `averaged`: 1 where all parts hold the same behaviors."""
    if len(parts) == 1:
        return 1.0
    means = _means(parts)
    behaviors, weights = _weights(means)
    each = (fsum(w for w, part in zip(weights, means, strict=True) if b in part) for b in behaviors)
    return max(1.0, round(max(each, default=1.0), 9))


def _means(parts: Sequence[Matched]) -> list[dict[tuple[str, str], list[float]]]:
    """What each behavior has on either side, by part; parts that nothing was judged of are left out."""
    means = []
    for part in parts:
        read = {b: [(old, new) for old, new in values if new is not None] for b, values in part.items()}
        means.append({b: [fmean(side) for side in zip(*both, strict=True)] for b, both in read.items() if both})
    return [part for part in means if part]


def _weights(means: Sequence[Collection[tuple[str, str]]]) -> tuple[list[tuple[str, str]], list[float]]:
    """All behaviors, and what a value of each part weighs."""
    behaviors = list(dict.fromkeys(b for part in means for b in part))
    return behaviors, [len(behaviors) / len(part) / len(means) for part in means]


def unchanged(baseline: Side, candidate: Side, wanted: Wanted) -> bool:
    """Whether the candidate said the very same things: then nothing is left to chance.

    The same replies by their hash; where there is no reply to hash (a task answered by likelihoods), the same
    verdicts from a model of the same weights.
    """
    same_model = _same_model(baseline, candidate)
    for unit, before in baseline.units.items():
        old = {_attempt(r): r for r in before if wanted(r)}
        new = {_attempt(r): r for r in candidate.units.get(unit, ()) if wanted(r)}
        if old.keys() != new.keys():
            return False
        for key, record in old.items():
            twin = new[key]
            replied = bool(record.reply_sha) and record.reply_sha == twin.reply_sha
            silent = not record.reply_sha and not twin.reply_sha and same_model
            if not (replied or silent) or record.judgements != twin.judgements or record.error or twin.error:
                return False
    return True


def _unit_name(unit: Unit) -> str:
    task, behavior, attack, seed = unit
    return f"{task}/{behavior} {attack} seed {seed}".replace("  ", " ")


def _attempt(record: Record) -> tuple[str, int]:
    return record.variant, record.depth


def _mean(values: Collection[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def _told(s: Side, *path: str) -> Any:
    value: Any = s.run.info
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _settings(baseline: Side, candidate: Side) -> list[Difference]:
    found = []
    for name in GENERATION:
        a, b = _told(baseline, "spec", name), _told(candidate, "spec", name)
        usual = None if name != "top_p" else 1.0
        if (a or usual) != (b or usual):  # an earlier version may lack it
            found.append(Difference(what=f"generation setting {name}", baseline=str(a), candidate=str(b)))
    a, b = (_told(s, "models", s.model, "chat_template_sha") for s in (baseline, candidate))
    if a != b:
        found.append(Difference(what="chat template", baseline=str(a), candidate=str(b)))
    return found


def _judges(baseline: Side, candidate: Side) -> list[Difference]:
    found = []
    a, b = _judge_id(baseline, _first_judge(baseline)), _judge_id(candidate, _first_judge(candidate))
    if a and b and a != b:
        shared_judge = _common_judge(baseline, candidate) is not None
        found.append(Difference(what="judge", baseline=a, candidate=b, shared=shared_judge))
    if all(_told(s, "judges", Pairwise.name) for s in (baseline, candidate)):
        a, b = _judge_id(baseline, Pairwise.name), _judge_id(candidate, Pairwise.name)
        found += [Difference(what="judge of comparisons", baseline=a, candidate=b)] if a != b else []
    return found


def _first_judge(s: Side) -> str:
    """The judge whose verdict on attacks and look-alikes counts; before there is any record, the first of all."""
    names = [r.judgements[0].judge for r in s.records if r.judgements and not is_graded(r)]
    return next(iter(names if s.units else _told(s, "judges") or {}), "")


def _judge_id(s: Side, judge: str) -> str:
    told = _told(s, "judges", judge)
    return f"{judge}@{sha(json.dumps(told, sort_keys=True, default=str))[:8]}" if told else judge


def _common_judge(baseline: Side, candidate: Side) -> str | None:
    """A judge that judged everything judged on either side, with the same settings."""

    def everywhere(s: Side) -> list[str]:
        judged = [r for r in s.records if r.judgements and not is_graded(r)]
        sets = [[j.judge for j in r.judgements] for r in judged]
        return [name for name in (sets[0] if sets else []) if all(name in names for names in sets)]

    theirs = everywhere(candidate)
    for name in everywhere(baseline):
        if name in theirs and _judge_id(baseline, name) == _judge_id(candidate, name):
            return name
    return None


def _judged_by(s: Side, judge: str) -> Side:
    """The same with this judge's verdict first."""

    def turned(record: Record) -> Record:
        first = [j for j in record.judgements if j.judge == judge]
        rest = [j for j in record.judgements if j.judge != judge]
        return replace(record, judgements=(*first, *rest)) if first else record

    return replace(s, units={u: tuple(map(turned, records)) for u, records in s.units.items()})


def _texts(baseline: Side, candidate: Side) -> list[Difference]:
    """Sets of one name and size but another content: the same ids then do not mean the same questions."""
    old, new = _sets(baseline), _sets(candidate)
    sets = [
        Difference(what=f"content of {name}", baseline=str(old[name].get("sha")), candidate=str(new[name].get("sha")))
        for name in sorted(old.keys() & new.keys())
        if old[name].get("n") == new[name].get("n") and old[name].get("sha") != new[name].get("sha")
    ]
    return [*sets, *_items(baseline, candidate)]


def _sets(s: Side) -> dict[str, Mapping[str, Any]]:
    """What run.json tells of each set, by its task: a file's name without folder and suffix, wherever it lies."""
    return {Path(name).stem: told for name, told in (_told(s, "tasks") or {}).items()}


def _items(baseline: Side, candidate: Side) -> list[Difference]:
    """Behaviors and items that are not the same under one id; an earlier version kept no hash of a behavior."""

    def asked(records: Sequence[Record]) -> set[str]:  # an item's prompt is hashed without the model's name
        return {r.behavior_sha if r.attack else r.prompt_sha for r in records}

    changed: dict[str, set[str]] = defaultdict(set)
    for unit in baseline.units.keys() & candidate.units.keys():
        old, new = asked(baseline.units[unit]), asked(candidate.units[unit])
        if old != new and not (unit[2] and "" in old | new):
            changed[unit[0]].add(unit[1])
    return [
        Difference(what=f"content of {task}", baseline="the baseline's", candidate=f"{len(ids)} other questions")
        for task, ids in sorted(changed.items())
    ]


def _attacks(baseline: Side, candidate: Side) -> list[Difference]:
    old, new = _told(baseline, "attacks") or {}, _told(candidate, "attacks") or {}

    def told(attack: Mapping[str, Any]) -> str:
        return json.dumps(attack.get("settings"), default=str)[:80]

    return [
        Difference(what=f"{SETTINGS}{name}", baseline=told(old[name]), candidate=told(new[name]), shared=True)
        for name in sorted(old.keys() & new.keys())
        if old[name].get("sha") != new[name].get("sha")
    ]


def _same_model(baseline: Side, candidate: Side) -> bool:
    """Whether both sides describe the same weights; an endpoint's name is no proof."""
    a, b = _told(baseline, "models", baseline.model), _told(candidate, "models", candidate.model)
    return bool(a) and a == b and a.get("kind") != "openai"
