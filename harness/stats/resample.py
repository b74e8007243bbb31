"""Resampling and repetition: a clustered bootstrap, what the sample, the seed and the judge each add, pass@k."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

from harness.stats.intervals import Interval, clustered

T = TypeVar("T")


def bootstrap(
    groups: Sequence[Sequence[T]],
    statistic: Callable[[Sequence[T]], float],
    *,
    seed: int,
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """BCa bootstrap interval of any statistic; whole groups are redrawn, so a behavior keeps all its seeds.

    For statistics without a formula (kappa, a rank correlation, a ratio). A rate of 0 or 1 has no bootstrap
    interval worth the name: use `intervals.clustered` there.
    """
    import numpy as np

    rng, k = np.random.default_rng(seed), len(groups)
    if k < 2:
        raise ValueError("a bootstrap needs at least two groups")
    value = statistic([x for group in groups for x in group])
    drawn = [statistic([x for i in row for x in groups[i]]) for row in rng.integers(k, size=(draws, k))]
    left_out = [statistic([x for j, group in enumerate(groups) if j != i for x in group]) for i in range(k)]
    return _bca(value, drawn, left_out, level)


def bootstrap_ratio(
    tops: Sequence[float], bottoms: Sequence[float], *, seed: int, draws: int = 2000, level: float = 0.95
) -> Interval:
    """`bootstrap` of sum(tops) / sum(bottoms), one of each a group: a mean, or one cost over another; fast."""
    import numpy as np

    top, bottom = np.asarray(tops, dtype=float), np.asarray(bottoms, dtype=float)
    if len(top) < 2:
        raise ValueError("a bootstrap needs at least two groups")
    rows = np.random.default_rng(seed).integers(len(top), size=(draws, len(top)))
    drawn = top[rows].sum(axis=1) / np.maximum(bottom[rows].sum(axis=1), 1e-12)
    left_out = (top.sum() - top) / np.maximum(bottom.sum() - bottom, 1e-12)
    return _bca(float(top.sum() / bottom.sum()), drawn.tolist(), left_out.tolist(), level)


def _bca(value: float, drawn: Sequence[float], left_out: Sequence[float], level: float) -> Interval:
    """Bias-corrected and accelerated limits (Efron 1987) from the draws and the leave-one-out values.

    Pushed out as far as Student's interval is beyond the plain one (Hesterberg 2015): redrawn groups vary less than new
    ones would, by k - 1 in k, which shows with fifty of them.
    """
    import numpy as np
    from scipy.stats import t

    below = (sum(x < value for x in drawn) + sum(x <= value for x in drawn)) / 2 / len(drawn)
    if min(drawn) == max(drawn) or not 0 < below < 1:
        return min(*drawn, value), max(*drawn, value)
    middle = statistics.fmean(left_out)
    pull = [middle - x for x in left_out]
    squares = math.fsum(x * x for x in pull)
    skew = math.fsum(x**3 for x in pull) / (6 * squares**1.5) if squares else 0.0
    bias, k = NormalDist().inv_cdf(below), len(left_out)
    reach = float(t.ppf((1 + level) / 2, k - 1)) * math.sqrt(k / (k - 1))

    def at(end: float) -> float:
        z = bias + end
        return float(np.quantile(drawn, NormalDist().cdf(bias + z / (1 - skew * z))))

    return at(-reach), at(reach)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How far a printed mean would move (one standard deviation) if one thing alone were drawn again.

    `seed` is None with one seed, `judge` with one judge; `question` then holds what they would have taken off it.
    """

    question: float
    seed: float | None
    judge: float | None
    n_questions: int
    n_seeds: int
    n_judges: int


def variance_split(cells: Iterable[tuple[Hashable, int, str, float]], counts: str = "") -> Split:
    """Splits the spread of a mean over (question, seed, judge, value) cells by where it comes from.

    Question and seed: the judge that `counts` (the first one seen where none is named), on the questions it scored
    under every seed. Judge: the spread between the judges' means on the cells that all of them scored. Raises
    ValueError with fewer than two such questions.
    """
    judges: dict[str, dict[tuple[Hashable, int], float]] = {}
    for question, seed, judge, value in cells:
        judges.setdefault(judge, {})[question, seed] = value
    first = judges.get(counts, {}) if counts else next(iter(judges.values()), {})
    seeds = sorted({seed for _, seed in first})
    rows = defaultdict(list)
    for (question, _), value in sorted(first.items(), key=lambda item: item[0][1]):
        rows[question].append(value)
    block = [row for row in rows.values() if len(row) == len(seeds)]
    if len(block) < 2:
        raise ValueError("needs at least two questions scored under every seed")
    between = statistics.variance([statistics.fmean(row) for row in block]) / len(block)
    seed_sd = None
    if len(seeds) > 1:
        means = [statistics.fmean(column) for column in zip(*block, strict=True)]
        seed_sd = math.sqrt(statistics.variance(means) / len(seeds))
        within = statistics.fmean([statistics.variance(row) for row in block])
        between = max(0.0, between - within / len(seeds) / len(block))
    return Split(
        question=math.sqrt(between),
        seed=seed_sd,
        judge=_between_judges(list(judges.values())),
        n_questions=len(block),
        n_seeds=len(seeds),
        n_judges=len(judges),
    )


def _between_judges(verdicts: Sequence[dict[tuple[Hashable, int], float]]) -> float | None:
    """Standard deviation of the judges' means over what all of them scored."""
    shared = set.intersection(*map(set, verdicts)) if len(verdicts) > 1 else set()
    if not shared:
        return None
    return statistics.stdev([statistics.fmean([judged[cell] for cell in shared]) for judged in verdicts])


def pass_at_k(attempts: Sequence[tuple[int, int]], k: int, level: float = 0.95) -> tuple[float, float, float]:
    """Share of behaviors that at least one of `k` attempts breaks, with its interval, from (attempts, successes) each.

    The unbiased estimator of Chen et al. 2021; needs k attempts or more on every behavior, else ValueError.
    """
    if not attempts or not all(0 <= c <= n and 1 <= k <= n for n, c in attempts):
        raise ValueError(f"pass@{k} needs at least {k} attempts on every behavior")
    values = [1 - math.comb(n - c, k) / math.comb(n, k) for n, c in attempts]
    low, high = clustered([[v] for v in values], level)
    return math.fsum(values) / len(values), low, high
