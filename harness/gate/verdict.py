"""The gate: does the candidate differ from the baseline for the worse, beyond what chance explains?

pass: every check is shown to keep its limit. fail: at least one is shown to be worse. inconclusive: neither, and how
many behaviors would decide. incomplete: a run is half-finished, failed too often, or lacks what the policy asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.errors import UsageError
from harness.gate.checks import Check, Outcome, measure
from harness.gate.match import Side, Unit, differences, shared, side
from harness.gate.policy import Policy
from harness.gate.questions import questions
from harness.stats.paired import holm
from harness.stats.sequential import nominal_levels, overall_level
from harness.types import Run, sha

EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 1, "inconclusive": 3, "incomplete": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Where a sequential gate stopped: look `number` of `of`, after `queries` of the model calls `planned` for all."""

    number: int
    of: int
    queries: int
    planned: int

    @property
    def saved(self) -> float:
        """Share of the queries that need not have been made."""
        return 1 - self.queries / self.planned if self.planned else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome with everything it rests on."""

    outcome: Outcome
    checks: tuple[Check, ...] = ()
    baseline: str = ""
    candidate: str = ""
    alpha: float = 0.05
    notes: tuple[str, ...] = ()
    look: Look | None = None

    @property
    def exit_code(self) -> int:
        """What the command exits with."""
        return EXIT_CODES[self.outcome]

    @property
    def judge_error(self) -> str:
        """Whether the ASR checks reckon with the judge's errors, in a sentence; empty when there are none."""
        told = [c.judge_error for c in self.checks if c.judge_error]
        words = {
            "labels": "corrected by each side's own labels",
            "policy": "by known figures, taken to be alike on both sides",
            "ignored": "not accounted for (no labels in both run folders, no `judge` in the policy)",
        }
        parts = [f"{text}: {told.count(how)} of {len(told)} ASR checks" for how, text in words.items() if how in told]
        return f"judge error {'; '.join(parts)}" if parts else ""

    @property
    def needed(self) -> int | None:
        """Behaviors with which the undecided checks would likely be decided."""
        wanted = [c.needed for c in self.checks if c.outcome == "inconclusive" and c.needed is not None]
        return max(wanted) if wanted else None


def gate(
    baseline: Run,
    candidate: Run,
    policy: Policy,
    *,
    intersect: bool = False,
    baseline_model: str | None = None,
    candidate_model: str | None = None,
    labels: tuple[Mapping[str, bool], Mapping[str, bool]] = ({}, {}),
) -> Verdict:
    """Judges a candidate run against a baseline run; `labels` by hand of either, by record key, correct its judge.

    Raises UsageError when the two were not made alike: with `intersect` only when they share nothing to compare.
    """
    old = side(baseline, baseline_model, "baseline", labels[0])
    new = side(candidate, candidate_model, "candidate", labels[1])
    blank = Verdict(outcome="incomplete", baseline=old.model, candidate=new.model, alpha=policy.alpha)
    apart = differences(old, new)
    unfinished = [name for name, s in (("baseline", old), ("candidate", new)) if s.partial]
    if unfinished:
        apart = [d for d in apart if not d.what.startswith("behaviors")]  # still to come
    notes = _remarks(old, new)
    if apart and not intersect:
        hint = "--intersect compares what they share" if all(d.shared for d in apart) else "make both runs alike"
        raise UsageError(f"the runs can't be compared: {'; '.join(map(str, apart))}", hint=hint)
    if apart:
        old, new, given_up = shared(old, new, apart)
        notes += given_up
    if unfinished and (policy.looks == 1 or old.partial):
        return replace(blank, notes=(*notes, *(f"the {name} run is not finished" for name in unfinished)))
    broken = [note for name, s in (("baseline", old), ("candidate", new)) if (note := _failures(name, s, policy))]
    if broken:
        return replace(blank, notes=(*notes, *broken))
    if policy.looks > 1:
        found = sequential(old, new, policy, blank)
        return replace(found, notes=(*notes, *found.notes))
    return replace(decide(old, new, policy, policy.alpha, blank), notes=tuple(notes))


def sequential(old: Side, new: Side, policy: Policy, blank: Verdict) -> Verdict:
    """Looks after each share of the behaviors and stops at the first clear answer; incomplete while data is missing."""
    shares = [(k + 1) / policy.looks for k in range(policy.looks)]
    levels = nominal_levels(tuple(shares), policy.alpha)
    verdict = blank
    for k, share in enumerate(shares):
        units = first(old, share)
        before, after = old.restricted(units), new.restricted(units)
        if new.partial and not _asked(before, after, share):
            note = f"the candidate run has not reached look {k + 1} of {policy.looks}"
            return replace(verdict, outcome="incomplete", notes=(note,))
        queries = _queries(after)
        planned = round(queries * _queries(old) / (_queries(before) or 1))  # as the baseline's are spread
        look = Look(number=k + 1, of=policy.looks, queries=queries, planned=planned)
        verdict = replace(decide(before, after, policy, levels[k], blank, early=(shares, k)), look=look)
        if verdict.outcome in ("pass", "fail"):
            return verdict
    return verdict


def _asked(before: Side, after: Side, share: float) -> bool:
    """Whether an unfinished candidate was asked all this share holds.

    An attack may make fewer attempts of another model; that none is still to come is known of whole pieces only.
    """
    whole = float(after.run.info.get("reached") or 0.0) >= share
    return all(
        len(after.units.get(unit, ())) >= (1 if whole else len(records)) for unit, records in before.units.items()
    )


def first(s: Side, share: float) -> set[Unit]:
    """The units of the first `share` of each task's behaviors, in an order that hangs on nothing but their ids."""
    tasks: dict[str, set[str]] = {}
    for task, behavior, _, _ in s.units:
        tasks.setdefault(task, set()).add(behavior)
    chosen = {
        (task, behavior)
        for task, behaviors in tasks.items()
        for behavior in look_order(behaviors)[: math.ceil(share * len(behaviors) - 1e-9)]
    }
    return {unit for unit in s.units if unit[:2] in chosen}


def look_order(behaviors: Sequence[str] | set[str]) -> list[str]:
    """The order in which a sequential run must take its behaviors: shuffled, and the same everywhere."""
    return sorted(behaviors, key=lambda behavior: (sha(behavior), behavior))


def decide(
    old: Side, new: Side, policy: Policy, alpha: float, blank: Verdict, early: tuple[Sequence[float], int] | None = None
) -> Verdict:
    """Outcome and checks at the one-sided level `alpha`; `early` names all looks of a sequential gate and this one."""
    asked = questions(policy, old)
    family = sum((q.limit.margin is not None) + (q.limit.bound is not None) for q in asked)
    whole = early is None or early[1] == len(early[0]) - 1
    measured = [c for q in asked for c in measure(q, old, new, policy, alpha, family, whole=whole)]
    spent = [overall_level(c.p, *early, policy.alpha) if early else c.p for c in measured]
    checks = tuple(settle(replace(c, p_family=p), policy.alpha) for c, p in zip(measured, holm(spent), strict=True))
    outcomes = {c.outcome for c in checks}
    order: tuple[Outcome, ...] = ("fail", "incomplete", "inconclusive", "pass")
    return replace(blank, outcome=next(o for o in order if o in outcomes), checks=checks)


def settle(check: Check, alpha: float) -> Check:
    """The outcome of a check: shown to keep its limit, shown to be worse, or neither."""
    if check.outcome == "incomplete":
        return check
    if check.within:
        return replace(check, outcome="pass", needed=None)
    return replace(check, outcome="fail" if check.p_family <= alpha else "inconclusive")


def _failures(name: str, s: Side, policy: Policy) -> str:
    """A note when a run failed too often to be compared, or holds nothing."""
    records = s.records
    failed = sum(r.label is None for r in records)
    if not records:
        return f"the {name} run holds no record"
    if failed / len(records) > policy.errors:
        return f"{failed} of {len(records)} attempts of the {name} failed, more than {policy.errors:.1%}"
    return ""


def _remarks(old: Side, new: Side) -> list[str]:
    """What a reader should know about the two runs that keeps nobody from comparing them."""
    a, b = old.run.info.get("harness"), new.run.info.get("harness")
    return [f"made with different versions of harness: {a} and {b}"] if a and b and a != b else []


def _queries(s: Side) -> int:
    return sum(r.queries for r in s.records)
