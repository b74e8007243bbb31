"""Confidence intervals for rates and means; plain floats in and out, one two-sided level (0.95) by default.

`rate` is the interval for independent yes/no outcomes, `clustered` the one for several attempts per behavior
and for scores between 0 and 1, `over_columns` widens both for training seeds, `mean` the one for counts with no
upper bound. docs/coverage.md shows how often each holds the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TypeAlias

Interval: TypeAlias = tuple[float, float]


def wilson(k: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval for `k` successes in `n`; both may be fractions (an effective sample)."""
    _check(k, n, level)
    z2 = normal_quantile(level) ** 2
    p = k / n
    centre = (k + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (n * p * (1 - p) + z2 / 4)) / (n + z2)
    return (0.0 if k == 0 else max(0.0, centre - half), 1.0 if k == n else min(1.0, centre + half))


def exact(k: float, n: float, level: float = 0.95) -> Interval:
    """Clopper and Pearson's interval: never covers less than `level`, usually more."""
    from scipy.special import betaincinv

    _check(k, n, level)
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def mid_p(k: float, n: float, level: float = 0.95) -> Interval:
    """The exact interval with half the weight on the observed count, which takes most of its excess away."""
    _check(k, n, level)
    tail = (1 - level) / 2
    return _mid_p_low(k, n, tail), 1.0 - _mid_p_low(n - k, n, tail)


def rate(k: float, n: float, level: float = 0.95) -> Interval:
    """The interval we print for `k` of `n` independent outcomes: Wilson's, widened to mid-P where that is wider.

    Wilson's alone drops to 84% for rates near 1/n (91% at n = 50, rate 1%); together they hold 93% or more
    for every rate from n = 20 on, and stay near 95% on average.
    """
    (a, b), (c, d) = wilson(k, n, level), mid_p(k, n, level)
    return min(a, c), max(b, d)


def effective_size(clusters: Sequence[Sequence[float]], weight: float = 1.0) -> float:
    """How many independent 0/1 draws would tell as much about the mean as these values in [0, 1].

    The values' number over their design effect (the variance of the mean, clusters respected, over that of as
    many independent 0/1 draws). When few clusters hold the rarer outcome that estimate is too hopeful as often as
    not, so it is averaged with one more such cluster, wholly dependent. Where all values are equal nothing can be
    estimated and each cluster counts once. Yes/no outcomes never count for more than there are. `weight`: the most
    that one cluster weighs in the mean, if some weigh more than 1; those may all be among the silent ones.
    """
    groups = [cluster for cluster in clusters if cluster]
    sums, sizes = [math.fsum(group) for group in groups], [len(group) for group in groups]
    count, value = sum(sizes), math.fsum(sums) / sum(sizes)
    return independent(
        sizes,
        spread=math.fsum((total - value * size) ** 2 for total, size in zip(sums, sizes, strict=True)),
        apart=count * value * (1 - value),
        rarer=min(sum(s > 0 for s in sums), sum(s < m for s, m in zip(sums, sizes, strict=True))),
        graded=any(x not in (0.0, 1.0) for group in groups for x in group),
        weight=weight,
    )


def independent(sizes: Sequence[int], *, spread: float, apart: float, rarer: int, graded: bool, weight: float) -> float:
    """What `effective_size` says of clusters of these sizes.

    `spread`: squared deviations of the clusters' sums, added up; `apart`: what independent draws would add up to;
    `rarer`: clusters that hold the rarer outcome.
    """
    count, k = sum(sizes), len(sizes)
    if k < 2 or spread <= 1e-12 or apart <= 1e-12:
        return min(float(k), count / weight)
    dependent = max(sum(m * m for m in sizes) / count, weight)
    effect = (rarer * spread * k / (k - 1) / apart + dependent) / (rarer + 1)
    size = count / (effect if graded else max(effect, 1.0))
    return min(size, count / weight) if weight > 1 else size


def clustered(clusters: Sequence[Sequence[float]], level: float = 0.95, weight: float = 1.0) -> Interval:
    """Interval for a mean in [0, 1] of values of at least 0 when those in one cluster (a behavior) hang together.

    `rate` on the effective size, with Student's quantile because the size is estimated from the clusters. A weighted
    value may exceed 1 (`weight` as in `effective_size`). Raises ValueError when there is no value, one below 0, or a
    mean above 1.
    """
    from scipy.stats import t

    groups = [cluster for cluster in clusters if cluster]
    values = [x for group in groups for x in group]
    if not (values and min(values) >= 0 and math.fsum(values) <= len(values) * (1 + 1e-9)):
        raise ValueError("needs at least one value, none below 0, and a mean between 0 and 1")
    if weight <= 1 and all(len(group) == 1 for group in groups) and all(x in (0.0, 1.0) for x in values):
        return rate(math.fsum(values), len(values), level)
    size = effective_size(groups, weight)
    if len(groups) > 1:
        size *= (normal_quantile(level) / float(t.ppf((1 + level) / 2, len(groups) - 1))) ** 2
    return rate(min(1.0, math.fsum(values) / len(values)) * size, size, level)


def over_columns(value: float, ends: Interval, columns: Sequence[tuple[float, int]], level: float = 0.95) -> Interval:
    """Widens the interval of a rate over behaviors by what its columns (training seeds) differ in beyond chance.

    `columns` holds each one's mean and n. As two-way clustered errors do, the variance between columns counts less
    that of as many independent draws (never below 0), on one degree of freedom less than there are columns; the two
    parts are joined arm by arm (Zou and Donner 2008), so that an interval at the edge of the scale stays lopsided.
    """
    from scipy.stats import t

    k, n = len(columns), sum(size for _, size in columns)
    if k < 2 or n == 0:
        return ends
    between = math.fsum((size * (at - value)) ** 2 for at, size in columns) * k / (k - 1) / n**2
    extra = max(0.0, between - value * (1 - value) / n)
    reach = float(t.ppf((1 + level) / 2, k - 1)) ** 2 * extra
    low = value - math.sqrt((value - ends[0]) ** 2 + reach)
    high = value + math.sqrt((ends[1] - value) ** 2 + reach)
    return max(0.0, low), min(1.0, high)


def mean(clusters: Sequence[Sequence[float]], level: float = 0.95) -> Interval | None:
    """Interval for the mean of any numbers over clusters; None with fewer than two clusters.

    Student's t on cluster totals, with Hall's correction for skewness: counts of tokens have a long right tail,
    and the plain interval then misses on one side.
    """
    from scipy.stats import t

    groups = [cluster for cluster in clusters if cluster]
    k = len(groups)
    if k < 2:
        return None
    count = sum(map(len, groups))
    value = math.fsum(map(math.fsum, groups)) / count
    parts = [(math.fsum(group) - value * len(group)) * k / count for group in groups]
    sd = math.sqrt(math.fsum(x * x for x in parts) / (k - 1))
    if sd == 0:
        return value, value
    skew = math.fsum(x**3 for x in parts) / k / sd**3
    quantile, se = float(t.ppf((1 + level) / 2, k - 1)), sd / math.sqrt(k)
    return (value - se * _hall(quantile, skew, k), value - se * _hall(-quantile, skew, k))


def _hall(x: float, skew: float, n: int) -> float:
    """The t statistic whose skewness-corrected form (Hall 1992) is `x`."""
    a = skew / (3 * math.sqrt(n))
    if abs(a) < 1e-9:
        return x
    inner = 1 + 3 * a * (x - skew / (6 * math.sqrt(n)))
    return (math.copysign(abs(inner) ** (1 / 3), inner) - 1) / a


def _mid_p_low(k: float, n: float, tail: float) -> float:
    """The rate at which seeing more than `k`, plus half of seeing `k`, has probability `tail`."""
    from scipy.optimize import brentq
    from scipy.special import betainc

    if k == 0:
        return 0.0

    def excess(p: float) -> float:
        more = float(betainc(k + 1, n - k, p)) if k < n else 0.0
        return (float(betainc(k, n - k + 1, p)) + more) / 2 - tail

    return float(brentq(excess, 0.0, 1.0))


def normal_quantile(level: float) -> float:
    """The two-sided quantile of the normal distribution."""
    return NormalDist().inv_cdf((1 + level) / 2)


def _check(k: float, n: float, level: float) -> None:
    if not (n > 0 and 0 <= k <= n and 0 < level < 1):
        raise ValueError(f"needs 0 <= k <= n, n > 0 and a level between 0 and 1; got k={k}, n={n}, level={level}")
