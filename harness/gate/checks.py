"""One check: a number of the candidate against the baseline's, or against a bound, and what chance explains of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean
from typing import Literal, TypeAlias

from harness.gate.match import Matched, Side, averaged, matched, unchanged
from harness.gate.policy import Policy
from harness.gate.questions import Question
from harness.stats.correction import Corrected, rogan_gladen
from harness.stats.intervals import Interval, clustered, effective_size
from harness.stats.paired import Pairs, pairs_for_margin, pairs_for_rise, sign_flip
from harness.stats.resample import bootstrap_ratio

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive", "incomplete"]
FINEST = 1e-6  # smallest p-value looked for by narrowing an interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one comparison showed.

    A `change` check compares: `difference` is how much worse the candidate is (a share, or for cost a share of the
    baseline's), `low` and `high` hold it. A `bound` check looks at the candidate alone, and they hold its value.
    `p` is the chance of as much without a change (without the bound being passed), `p_family` the same after Holm.
    """

    name: str
    kind: Literal["change", "bound"]
    limit: float
    n: int = 0  # attempts both sides were read for
    behaviors: int = 0
    lost: int = 0  # attempts one side could not be read for
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
    parts = [matched(baseline, candidate, part, question.read) for part in question.parts]
    lost = sum(n for _, n in parts)
    found = averaged([part for part, _ in parts]) if len(parts) > 1 else parts[0][0] if parts else {}
    checks = []
    if question.limit.margin is not None:
        same = whole and unchanged(baseline, candidate, question.wanted)
        checks.append(change(question, found, lost, policy, alpha, family, same=same))
    if question.limit.bound is not None:
        checks.append(bound(question, found, lost, policy, alpha))
    return checks


def change(
    question: Question, found: Matched, lost: int, policy: Policy, alpha: float, family: int, *, same: bool
) -> Check:
    """Whether the candidate is worse than the baseline, and whether by less than the margin.

    To pass, attempts that only the candidate was not judged on count as the worst; to fail, they do not count.
    """
    margin = question.limit.margin or 0.0
    both = _read_on_both(found)
    hidden = sum(map(len, found.values())) - sum(map(len, both))
    check = Check(name=question.name, kind="change", limit=margin, lost=lost + hidden)
    if not both:
        return replace(check, outcome="incomplete", reason="no attempt was judged on both sides")
    old, new = fmean(a for g in both for a, _ in g), fmean(b for g in both for _, b in g)
    check = replace(check, n=sum(map(len, both)), behaviors=len(both), baseline=old, candidate=new)
    if same and old == new:
        return replace(check, difference=0.0, low=0.0, high=0.0, within=True, unchanged=True)
    if question.ratio:
        return _costlier(check, both, alpha)
    allowed = margin
    if question.corrected and policy.judge is not None:
        # A judge that errs alike on either side shrinks every true rise by sensitivity + specificity - 1.
        allowed *= max(0.0, policy.judge.informedness(1 - 2 * alpha)[1])
        if not allowed:
            return replace(check, reason="by its counts the judge may be no better than a coin")
    sign = 1.0 if question.worse == "up" else -1.0
    moved = Pairs(tuple(tuple(sign * (b - a) for a, b in g) for g in both))
    worst = Pairs(tuple(tuple(sign * (_worst(b, sign) - a) for a, b in g) for g in found.values()))
    low, high = _interval(moved, 1 - 2 * alpha)
    return replace(
        check,
        difference=moved.value,
        low=low,
        high=high,
        p=sign_flip(moved),
        within=(_interval(worst, 1 - 2 * alpha)[1] if hidden else high) < allowed,
        needed=_needed_for_change(moved, allowed, policy, family),
        for_ten=_for_rise(moved, 0.10, policy, family),
        reason=f"margin {allowed:.3f} as this judge would show it" if allowed < margin else "",
    )


def _costlier(check: Check, both: Sequence[Sequence[tuple[float, float]]], alpha: float) -> Check:
    """How much more the candidate spends, as a share of what the baseline does; a paired bootstrap."""
    before, after = ([math.fsum(pair[i] for pair in g) for g in both] for i in (0, 1))
    if len(both) < 2 or not any(before):
        return replace(check, reason="too few behaviors to tell what it costs")
    low, high = bootstrap_ratio(after, before, seed=0, level=1 - 2 * alpha)
    moved = Pairs(tuple((b - a,) for a, b in zip(before, after, strict=True)))
    return replace(
        check,
        difference=math.fsum(after) / math.fsum(before) - 1,
        low=low - 1,
        high=high - 1,
        p=sign_flip(moved),
        within=high - 1 < check.limit,
    )


def bound(question: Question, found: Matched, lost: int, policy: Policy, alpha: float) -> Check:
    """Whether the candidate's value lies beyond its ceiling (or floor), the judge's known errors taken out."""
    limit = question.limit.bound or 0.0
    groups = [[b for _, b in g if b is not None] for g in found.values()]
    groups = [g for g in groups if g]
    check = Check(name=question.name, kind="bound", limit=limit, lost=lost)
    if not groups:
        return replace(check, outcome="incomplete", reason="no attempt was judged")
    value = fmean(x for g in groups for x in g)
    check = replace(check, n=sum(map(len, groups)), behaviors=len(groups), candidate=value)
    falling = question.worse == "down"
    if falling:  # a floor under the value is a ceiling over what is missing to 1
        groups, limit = [[1 - x for x in g] for g in groups], 1 - limit

    def interval(level: float) -> Interval | None:
        if not (question.corrected and policy.judge is not None):
            return clustered(groups, level)
        result = rogan_gladen(groups, policy.judge, level)
        return (result.low, result.high) if isinstance(result, Corrected) else None

    ends = interval(1 - 2 * alpha)
    if ends is None:
        return replace(check, reason="by its counts the judge can't tell here: no corrected value")
    low, high = ends
    return replace(
        check,
        low=1 - high if falling else low,
        high=1 - low if falling else high,
        p=_p_above(interval, limit),
        within=high <= limit,
        needed=_needed_for_bound(groups, limit, policy),
        reason="corrected for the judge's errors" if question.corrected and policy.judge else "",
    )


def _read_on_both(found: Matched) -> list[list[tuple[float, float]]]:
    groups = [[(a, b) for a, b in g if b is not None] for g in found.values()]
    return [g for g in groups if g]


def _worst(value: float | None, sign: float) -> float:
    if value is not None:
        return value
    return 1.0 if sign > 0 else 0.0


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


def _needed_for_change(moved: Pairs, allowed: float, policy: Policy, family: int) -> int:
    """Behaviors with which this difference, if it is the true one, would likely pass or fail."""
    size = moved.effective_size()
    discordant = min(1.0, max((moved.up + moved.down) / moved.n, abs(moved.value), 1 / size))
    wanted = []
    if moved.value < allowed:
        wanted.append(pairs_for_margin(allowed, discordant, moved.value, policy.alpha, policy.power))
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


def _needed_for_bound(groups: Sequence[Sequence[float]], limit: float, policy: Policy) -> int | None:
    """Behaviors with which this value, if it is the true one, would likely be told from the limit."""
    value = fmean(x for g in groups for x in g)
    gap, quantile = abs(value - limit), NormalDist().inv_cdf
    if gap < 1e-9:
        return None
    spread = max(value * (1 - value), limit * (1 - limit))
    size = spread * ((quantile(1 - policy.alpha) + quantile(policy.power)) / gap) ** 2
    return math.ceil(size * len(groups) / effective_size(groups))
