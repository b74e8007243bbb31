"""One check: a number of the candidate against the baseline's, or against a bound, and what chance explains of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean
from typing import Literal, TypeAlias

from harness.gate.match import Matched, Read, Side, averaged, heaviest, labelled_attempts, matched, unchanged, unread
from harness.gate.policy import Policy
from harness.gate.questions import Question
from harness.stats.correction import Corrected, Labelled, labelled, labelled_change, rogan_gladen
from harness.stats.intervals import Interval, clustered, effective_size
from harness.stats.paired import Pairs, pairs_for_margin, pairs_for_rise, sign_flip
from harness.stats.resample import bootstrap_ratio
from harness.types import Record

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive", "incomplete"]
FINEST = 1e-6  # smallest p-value looked for by narrowing an interval
MIN_LABELS = 10  # by hand, of each attack on each side: with fewer they are not used


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one comparison showed.

    A `change` check compares: `difference` is how much worse the candidate is (a share, or for cost a share of the
    baseline's), `low` and `high` hold it. A `bound` check looks at the candidate alone, and they hold its value.
    `p` is the chance of as much without a change (without the bound being passed), `p_family` the same after Holm.
    `within` holds only if it does with each attempt at the worst that the candidate was not judged on.
    """

    name: str
    kind: Literal["change", "bound"]
    limit: float
    n: int = 0  # attempts both sides were read for
    behaviors: int = 0
    lost: int = 0  # attempts one side (a bound check: the candidate) could not be read for
    baseline: float | None = None
    candidate: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float = 1.0
    p_family: float = 1.0
    within: bool = False  # the limit is kept, chance apart
    unchanged: bool = False  # the candidate said the very same things
    needed: int | None = None  # behaviors that would likely decide
    for_ten: int | None = None  # behaviors with which a rise of 10 points would likely fail
    outcome: Outcome = "inconclusive"
    judge_error: Literal["", "labels", "policy", "ignored"] = ""  # how it entered; "" where no judge is asked
    reason: str = ""


def measure(
    question: Question,
    baseline: Side,
    candidate: Side,
    policy: Policy,
    alpha: float,
    family: int,
    *,
    whole: bool = True,
) -> list[Check]:
    """The checks of one question at the one-sided level `alpha`, p-values not yet adjusted for the `family`.

    `whole`: everything was asked. Identical replies to a part leave open what the rest will be.
    """
    worst = 1.0 if question.worse == "up" else 0.0

    def parts(before: Read, after: Read, unjudged: float | None = None) -> list[Matched]:
        return [matched(baseline, candidate, part, before, after, unjudged) for part in question.parts]

    def pairs(before: Read, after: Read, unjudged: float | None = None) -> Matched:
        return averaged(parts(before, after, unjudged))

    def read_at_all(record: Record) -> float | None:
        return None if question.read(record) is None else 0.0

    def always(record: Record) -> float:
        return 0.0

    old, new = (unread(s, question.wanted, question.read) for s in (baseline, candidate))
    before, after = by_hand(question, baseline), by_hand(question, candidate)
    checks = []
    if question.limit.margin is not None:
        same = whole and unchanged(baseline, candidate, question.wanted)
        judged = parts(question.read, question.read)
        found = averaged(judged), pairs(question.read, question.read, worst)
        labels = (before, after) if before and after else None
        unknown = _mean_after(pairs(read_at_all, read_at_all, 1.0)) if labels else 0.0
        told = change(
            question, *found, len(old | new), policy, alpha, family,
            same=same, labels=labels, unknown=unknown, weight=heaviest(judged),
        )  # fmt: skip
        checks.append(told)
    if question.limit.bound is not None:
        judged = parts(always, question.read)
        found, weight = (averaged(judged), pairs(always, question.read, worst)), heaviest(judged)
        unknown = _mean_after(pairs(always, read_at_all, 1.0)) if after else 0.0
        checks.append(bound(question, *found, len(new), policy, alpha, labels=after, unknown=unknown, weight=weight))
    return checks


def by_hand(question: Question, s: Side) -> Labelled | None:
    """A side's rate by its own labels, where each attack has enough of them."""
    if not (question.corrected and s.labels):
        return None
    parts = [labelled_attempts(s, part, question.read) for part in question.parts]
    enough = all(sum(label is not None for _, _, label in part) >= MIN_LABELS for part in parts)
    return labelled(parts) if parts and enough else None


def change(
    question: Question,
    found: Matched,
    worst: Matched,
    lost: int,
    policy: Policy,
    alpha: float,
    family: int,
    *,
    same: bool,
    labels: tuple[Labelled, Labelled] | None = None,
    unknown: float = 0.0,
    weight: float = 1.0,
) -> Check:
    """Whether the candidate is worse than the baseline, and whether by less than the margin.

    To fail, attempts that only the candidate was not judged on do not count (`found`). To pass, it must be within the
    margin without them and with them at the `worst`; beside labels, with the share of them (`unknown`) added. `weight`
    is the most that one behavior weighs.
    """
    margin = question.limit.margin or 0.0
    both = _read_on_both(found)
    source = _judge_error(question, policy, labels is not None)
    check = Check(name=question.name, kind="change", limit=margin, lost=lost, judge_error=source)
    if not both:
        return replace(check, outcome="incomplete", reason="no attempt was judged on both sides")
    old, new = fmean(a for g in both for a, _ in g), fmean(b for g in both for _, b in g)
    check = replace(check, n=sum(map(len, both)), behaviors=len(both), baseline=old, candidate=new)
    if same and old == new:
        return replace(check, difference=0.0, low=0.0, high=0.0, within=True, unchanged=True)
    if question.ratio:
        return _costlier(check, both, policy, alpha, family)
    if labels:
        return _by_labels(check, *labels, unknown, policy, alpha, family)
    allowed = margin
    if question.corrected and policy.judge is not None:
        # A judge that errs alike on either side shrinks every true rise by sensitivity + specificity - 1.
        allowed *= max(0.0, policy.judge.informedness(1 - 2 * alpha)[1])
        if not allowed:
            return replace(check, reason="by its counts the judge may be no better than a coin")
    sign = 1.0 if question.worse == "up" else -1.0
    moved, at_worst = (
        Pairs(tuple(tuple(sign * (b - a) for a, b in g) for g in groups), weight)
        for groups in (both, _read_on_both(worst))
    )
    low, high = _interval(moved, 1 - 2 * alpha)
    return replace(
        check,
        difference=moved.value,
        low=low,
        high=high,
        p=sign_flip(moved),
        within=max(_upper(pairs, alpha) for pairs in {moved, at_worst}) < allowed,
        needed=_needed_for_change(moved, allowed, policy, family),
        for_ten=_for_rise(moved, 0.10, policy, family),
        reason=f"margin {allowed:.3f} as this judge would show it" if allowed < margin else "",
    )


def _judge_error(question: Question, policy: Policy, by_labels: bool) -> Literal["", "labels", "policy", "ignored"]:
    if not question.corrected:
        return ""
    return "labels" if by_labels else "policy" if policy.judge else "ignored"


def _by_labels(
    check: Check, before: Labelled, after: Labelled, unknown: float, policy: Policy, alpha: float, family: int
) -> Check:
    """The change by each side's own labels, whatever the judge got wrong on either; `unknown` counts as the worst."""
    value, low, high = labelled_change(before, after, 1 - 2 * alpha)
    return replace(
        check,
        baseline=before.value,
        candidate=after.value,
        difference=value,
        low=low,
        high=high,
        p=_p_above(lambda level: labelled_change(before, after, level)[1:], 0.0),
        within=high + unknown < check.limit,
        needed=_needed_by_width(check, value, (high - low) / 2, policy, alpha, family),
        reason=f"by {before.n_labelled} and {after.n_labelled} labels by hand",
    )


def _costlier(
    check: Check, both: Sequence[Sequence[tuple[float, float]]], policy: Policy, alpha: float, family: int
) -> Check:
    """How much more the candidate spends, as a share of what the baseline does; a paired bootstrap."""
    before, after = ([math.fsum(pair[i] for pair in g) for g in both] for i in (0, 1))
    if len(both) < 2 or not any(before):
        return replace(check, reason="too few behaviors to tell what it costs")
    low, high = bootstrap_ratio(after, before, seed=0, level=1 - 2 * alpha)
    moved = Pairs(tuple((b - a,) for a, b in zip(before, after, strict=True)))
    value = math.fsum(after) / math.fsum(before) - 1
    return replace(
        check,
        difference=value,
        low=low - 1,
        high=high - 1,
        p=sign_flip(moved),
        within=high - 1 < check.limit,
        needed=_needed_by_width(check, value, (high - low) / 2, policy, alpha, family),
    )


def bound(
    question: Question,
    found: Matched,
    worst: Matched,
    lost: int,
    policy: Policy,
    alpha: float,
    *,
    labels: Labelled | None = None,
    unknown: float = 0.0,
    weight: float = 1.0,
) -> Check:
    """Whether the candidate's value lies beyond its ceiling (or floor), the judge's known errors taken out.

    `found`, `worst`, `unknown` and `weight` are as in `change`, of whatever the candidate was asked.
    """
    limit = question.limit.bound or 0.0
    groups, at_worst = ([[b for _, b in g] for g in _read_on_both(pairs)] for pairs in (found, worst))
    source = _judge_error(question, policy, labels is not None)
    check = Check(name=question.name, kind="bound", limit=limit, lost=lost, judge_error=source)
    if not groups:
        return replace(check, outcome="incomplete", reason="no attempt was judged")
    value = fmean(x for g in groups for x in g)
    check = replace(check, n=sum(map(len, groups)), behaviors=len(groups), candidate=value)
    falling = question.worse == "down"
    if falling:  # a floor under the value is a ceiling over what is missing to 1
        groups, at_worst = ([[1 - x for x in g] for g in gs] for gs in (groups, at_worst))
        limit = 1 - limit

    def interval(level: float, groups: Sequence[Sequence[float]] = groups) -> Interval | None:
        if labels:
            return labels.interval(level)
        if not (question.corrected and policy.judge is not None):
            return clustered(groups, level, weight)
        result = rogan_gladen(groups, policy.judge, level, weight)
        return (result.low, result.high) if isinstance(result, Corrected) else None

    ends, worst_ends = interval(1 - 2 * alpha), interval(1 - 2 * alpha, at_worst)
    if ends is None:
        return replace(check, reason="by its counts the judge can't tell here: no corrected value")
    low, high = ends
    reason = "corrected for the judge's errors" if question.corrected and policy.judge else ""
    if labels:
        check, reason = replace(check, candidate=labels.value), f"by {labels.n_labelled} labels by hand"
    return replace(
        check,
        low=1 - high if falling else low,
        high=1 - low if falling else high,
        p=_p_above(interval, limit),
        within=worst_ends is not None and max(high, worst_ends[1]) + unknown <= limit,
        needed=_needed_for_bound(groups, limit, policy, weight),
        reason=reason,
    )


def _read_on_both(found: Matched) -> list[list[tuple[float, float]]]:
    groups = [[(a, b) for a, b in g if b is not None] for g in found.values()]
    return [g for g in groups if g]


def _mean_after(found: Matched) -> float:
    values = [b for g in found.values() for _, b in g if b is not None]
    return fmean(values) if values else 0.0


def _interval(moved: Pairs, level: float) -> Interval:
    """Tango's for yes/no outcomes, a paired bootstrap for graded ones."""
    graded = any(d not in (-1.0, 0.0, 1.0) for g in moved.groups for d in g)
    if not graded or len(moved.groups) < 2:
        return moved.interval(level)
    low, high = bootstrap_ratio(
        [math.fsum(g) for g in moved.groups], [len(g) for g in moved.groups], seed=0, level=level
    )
    a, b = moved.interval(level)
    return min(low, a), max(high, b)


def _upper(moved: Pairs, alpha: float) -> float:
    """The upper end, by half a pair higher: counts are whole, and without it a rise of just the margin would pass
    a little more often than `alpha`."""
    return _interval(moved, 1 - 2 * alpha)[1] + 0.5 / moved.effective_size()


def _p_above(interval: Callable[[float], Interval | None], limit: float) -> float:
    """The smallest one-sided level at which the interval lies above `limit`; 1 where none does."""

    def above(alpha: float) -> bool:
        ends = interval(1 - 2 * alpha)
        return ends is not None and ends[0] > limit

    low, high = FINEST, 0.49
    if not above(high):
        return 1.0
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if above(middle) else (middle, high)
    return high


def _needed_by_width(check: Check, value: float, half: float, policy: Policy, alpha: float, family: int) -> int | None:
    """Behaviors (and labels in proportion) that would likely decide, from the half-width these many gave."""
    quantile = NormalDist().inv_cdf
    error = half / quantile(1 - alpha)
    gaps = [(check.limit - value, policy.alpha)] if value < check.limit else []
    gaps += [(value, policy.alpha / family)] if value > 0 else []
    sizes = [((quantile(1 - a) + quantile(policy.power)) * error / gap) ** 2 for gap, a in gaps if gap > 1e-9]
    return math.ceil(min(sizes) * check.behaviors) if sizes else None


def _needed_for_change(moved: Pairs, allowed: float, policy: Policy, family: int) -> int:
    """Behaviors with which this difference, if it is the true one, would likely pass or fail."""
    size = moved.effective_size()
    discordant = min(1.0, max((moved.up + moved.down) / moved.n, abs(moved.value), 1 / size))
    wanted = []
    if moved.value < allowed:
        pairs = pairs_for_margin(allowed, discordant, moved.value, policy.alpha, policy.power)
        wanted.append(pairs + math.ceil(1 / (allowed - moved.value)))  # what the half pair costs
    if moved.value > 0:
        wanted.append(pairs_for_rise(moved.value, discordant, policy.alpha / family, policy.power))
    return math.ceil(min(wanted) * len(moved.groups) / size)


def _for_rise(moved: Pairs, rise: float, policy: Policy, family: int) -> int:
    """Behaviors with which a true `rise` would likely fail, if it came on top of the changes either way seen here.

    Those are taken one standard deviation high: too few behaviors would miss the rise.
    """
    either_way = 2 * min(moved.up, moved.down) + math.sqrt(moved.up + moved.down)
    discordant = min(1.0, either_way / moved.n + rise)
    size = pairs_for_rise(rise, discordant, policy.alpha / family, policy.power)
    return math.ceil(size * len(moved.groups) / moved.effective_size())


def _needed_for_bound(groups: Sequence[Sequence[float]], limit: float, policy: Policy, weight: float) -> int | None:
    """Behaviors with which this value, if it is the true one, would likely be told from the limit."""
    value = fmean(x for g in groups for x in g)
    gap, quantile = abs(value - limit), NormalDist().inv_cdf
    if gap < 1e-9:
        return None
    spread = max(value * (1 - value), limit * (1 - limit))
    size = spread * ((quantile(1 - policy.alpha) + quantile(policy.power)) / gap) ** 2
    return math.ceil(size * len(groups) / effective_size(groups, weight))
