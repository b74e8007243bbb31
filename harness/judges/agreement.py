"""How far verdicts agree with labels: counts, rates with intervals, and kappa, as pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from harness.stats.intervals import clustered
from harness.stats.resample import bootstrap


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share with its interval; `value` is None where nothing was counted."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A judge against labels. A "positive" is a violation; `n_unscored` verdicts stand outside every rate."""

    n: int
    n_unscored: int
    hits: int
    misses: int
    false_alarms: int
    correct_rejections: int
    accuracy: Rate
    precision: Rate
    recall: Rate
    f1: Rate
    kappa: Rate

    def plain(self) -> dict[str, Any]:
        """As plain JSON: counts, and each rate as value, low, high."""
        counts = {name: getattr(self, name) for name in ("n", "n_unscored", "hits", "misses", "false_alarms")}
        rates = {name: getattr(self, name) for name in ("accuracy", "precision", "recall", "f1", "kappa")}
        return {
            **counts,
            "correct_rejections": self.correct_rejections,
            **{name: [rate.value, rate.low, rate.high] for name, rate in rates.items()},
        }


def agreement(
    judged: Sequence[bool | None],
    human: Sequence[bool],
    groups: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    draws: int = 1000,
) -> Agreement:
    """`judged` against `human`; replies of one group (a behavior) hang together in every interval.

    None is a verdict that was not given. F1 and kappa have bootstrap intervals, the others closed ones.
    """
    keys = list(groups) if groups is not None else list(range(len(human)))
    clusters: dict[Hashable, list[tuple[bool, bool]]] = defaultdict(list)
    for j, h, key in zip(judged, human, keys, strict=True):
        if j is not None:
            clusters[key].append((j, h))
    grouped = list(clusters.values())
    counts = [[Counts.of(group)] for group in grouped]
    whole = Counts.total([count for [count] in counts])
    return Agreement(
        **whole._asdict(),
        n=sum(whole),
        n_unscored=len(human) - sum(whole),
        accuracy=_share([[float(j == h) for j, h in group] for group in grouped]),
        precision=_share([[float(h) for j, h in group if j] for group in grouped]),
        recall=_share([[float(j) for j, h in group if h] for group in grouped]),
        f1=_drawn(counts, f1, seed, draws),
        kappa=_drawn(counts, kappa, seed, draws),
    )


class Counts(NamedTuple):
    """Verdicts against labels, counted."""

    hits: int
    misses: int
    false_alarms: int
    correct_rejections: int

    @classmethod
    def of(cls, pairs: Sequence[tuple[bool, bool]]) -> Counts:
        """From pairs of verdict and label."""
        return cls(*(pairs.count(kind) for kind in ((True, True), (False, True), (True, False), (False, False))))

    @classmethod
    def total(cls, parts: Sequence[Counts]) -> Counts:
        """The sum of several."""
        return cls(*map(sum, zip(*parts, strict=True))) if parts else cls(0, 0, 0, 0)


Statistic: TypeAlias = Callable[[Sequence[Counts]], float]


def kappa(parts: Sequence[Counts]) -> float:
    """Cohen's kappa of two raters; 1 where they never differ, 0 where one of them says the same throughout."""
    hits, misses, false_alarms, rejections = Counts.total(parts)
    n = hits + misses + false_alarms + rejections
    if not misses and not false_alarms:
        return 1.0
    said, true = (hits + false_alarms) / n, (hits + misses) / n
    chance = said * true + (1 - said) * (1 - true)
    return ((hits + rejections) / n - chance) / (1 - chance)


def f1(parts: Sequence[Counts]) -> float:
    """Harmonic mean of precision and recall; 0 without a hit."""
    hits, misses, false_alarms, _ = Counts.total(parts)
    return 2 * hits / (2 * hits + misses + false_alarms) if hits else 0.0


def share(outcomes: Sequence[bool], groups: Sequence[Hashable]) -> Rate:
    """The share of outcomes that are true, with its interval; those of one group hang together."""
    clusters: dict[Hashable, list[float]] = defaultdict(list)
    for outcome, key in zip(outcomes, groups, strict=True):
        clusters[key].append(float(outcome))
    return _share(list(clusters.values()))


def _share(clusters: Sequence[Sequence[float]]) -> Rate:
    """The mean of 0/1 outcomes, with the interval for outcomes that hang together in groups."""
    values = [x for cluster in clusters for x in cluster]
    if not values:
        return Rate(value=None, low=None, high=None, n=0)
    low, high = clustered(clusters)
    return Rate(value=sum(values) / len(values), low=low, high=high, n=len(values))


def _drawn(groups: Sequence[Sequence[Counts]], statistic: Statistic, seed: int, draws: int) -> Rate:
    """A statistic without a formula, with its bootstrap interval; no interval from fewer than two groups."""
    parts = [part for group in groups for part in group]
    if not parts:
        return Rate(value=None, low=None, high=None, n=0)
    low, high = bootstrap(groups, statistic, seed=seed, draws=draws) if len(groups) > 1 else (None, None)
    return Rate(value=statistic(parts), low=low, high=high, n=sum(map(sum, parts)))
