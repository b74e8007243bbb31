"""How far verdicts agree with labels: counts, rates with intervals, and kappa, as pure functions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from harness.stats.intervals import clustered, normal_quantile

DRAWS = 4000  # of kappa's interval
Pair: TypeAlias = tuple[bool, bool]  # verdict, label


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
    judged: Sequence[bool | None], human: Sequence[bool], groups: Sequence[Hashable] | None = None, *, seed: int = 0
) -> Agreement:
    """`judged` against `human`; replies of one group (a behavior) hang together in every interval.

    None is a verdict that was not given. `seed` is that of kappa's interval, which is drawn; the others are closed.
    """
    keys = list(groups) if groups is not None else list(range(len(human)))
    clusters: dict[Hashable, list[Pair]] = defaultdict(list)
    for j, h, key in zip(judged, human, keys, strict=True):
        if j is not None:
            clusters[key].append((j, h))
    grouped = list(clusters.values())
    whole = Counts.of([pair for group in grouped for pair in group])
    return Agreement(
        **whole._asdict(),
        n=sum(whole),
        n_unscored=len(human) - sum(whole),
        accuracy=_share([[float(j == h) for j, h in group] for group in grouped]),
        precision=_share([[float(h) for j, h in group if j] for group in grouped]),
        recall=_share([[float(j) for j, h in group if h] for group in grouped]),
        f1=f1_rate(grouped),
        kappa=kappa_rate(grouped, seed=seed),
    )


class Counts(NamedTuple):
    """Verdicts against labels, counted."""

    hits: int
    misses: int
    false_alarms: int
    correct_rejections: int

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Counts:
        """From pairs of verdict and label."""
        return cls(*(pairs.count(kind) for kind in ((True, True), (False, True), (True, False), (False, False))))


def kappa(counts: Counts) -> float:
    """Cohen's kappa of two raters; 1 where they never differ, 0 where one of them says the same throughout."""
    n = sum(counts)
    if not counts.misses and not counts.false_alarms:
        return 1.0
    said, true = (counts.hits + counts.false_alarms) / n, (counts.hits + counts.misses) / n
    chance = said * true + (1 - said) * (1 - true)
    return ((counts.hits + counts.correct_rejections) / n - chance) / (1 - chance)


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


def f1_rate(groups: Sequence[Sequence[Pair]]) -> Rate:
    """Harmonic mean of precision and recall, 2 J / (1 + J) with J the share of hits in all that either calls a
    violation: a rate, whose interval is carried over."""
    found = _share([[float(j and h) for j, h in group if j or h] for group in groups])
    if found.value is None or found.low is None or found.high is None:
        return found
    value, low, high = (2 * x / (1 + x) for x in (found.value, found.low, found.high))
    return Rate(value=value, low=low, high=high, n=found.n)


def kappa_rate(groups: Sequence[Sequence[Pair]], *, seed: int = 0, level: float = 0.95) -> Rate:
    """Kappa with the interval of its values under the four counts' Dirichlet posterior, on the effective sample.

    The prior adds half a reply to each kind of agreement and a quarter to each kind of error: with fewer, rare
    errors that were not seen yet go missing (docs/coverage.md), and a bootstrap has none to redraw.
    """
    import numpy as np

    counts = Counts.of([pair for group in groups for pair in group])
    n = sum(counts)
    if not n:
        return Rate(value=None, low=None, high=None, n=0)
    share = _effective(groups, counts, level) / n
    prior = (0.5, 0.25, 0.25, 0.5)
    drawn = np.random.default_rng(seed).dirichlet([share * k + a for k, a in zip(counts, prior, strict=True)], DRAWS)
    hits, misses, false_alarms, _ = drawn.T
    said, true = hits + false_alarms, hits + misses
    chance = said * true + (1 - said) * (1 - true)
    values = 1 - (misses + false_alarms) / np.maximum(1 - chance, 1e-12)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    value = kappa(counts)
    return Rate(value=value, low=min(float(low), value), high=max(float(high), value), n=n)


def _effective(groups: Sequence[Sequence[Pair]], counts: Counts, level: float) -> float:
    """How many independent replies would tell as much about kappa: by the spread of its influence over groups.

    Where few groups hold the rarer label that spread looks too small as often as not, so it is averaged with one more
    such group, wholly dependent (as `intervals.effective_size` does).
    """
    from scipy.stats import t

    n, k = sum(counts), len(groups)
    if k < 2 or k == n:
        return float(k)
    of = {(j, h): _influence((j, h), counts) for j in (False, True) for h in (False, True)}
    pulls = [[of[pair] for pair in group] for group in groups]
    apart = math.fsum(x * x for group in pulls for x in group)
    together = math.fsum(math.fsum(group) ** 2 for group in pulls)
    rarer = min(sum(any(h is kind for _, h in group) for group in groups) for kind in (True, False))
    dependent = sum(len(group) ** 2 for group in groups) / n
    effect = (rarer * max(1.0, together / apart * k / (k - 1)) + dependent) / (rarer + 1) if apart else n / k
    return n / effect * (normal_quantile(level) / float(t.ppf((1 + level) / 2, k - 1))) ** 2


def _influence(pair: Pair, counts: Counts) -> float:
    """How far one reply pulls kappa, to first order."""
    n = sum(counts)
    said, true = (counts.hits + counts.false_alarms) / n, (counts.hits + counts.misses) / n
    agreed, chance = (counts.hits + counts.correct_rejections) / n, said * true + (1 - said) * (1 - true)
    if chance >= 1:
        return 0.0
    moved = (2 * true - 1) * (pair[0] - said) + (2 * said - 1) * (pair[1] - true)
    return ((pair[0] == pair[1]) - agreed) / (1 - chance) - (1 - agreed) / (1 - chance) ** 2 * moved
