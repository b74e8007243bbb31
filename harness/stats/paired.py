"""Paired comparison of two runs on the same behaviors: tests, intervals, non-inferiority, sample size.

A difference is candidate minus baseline. `Pairs` holds them by behavior, so several attempts on one behavior (seeds,
variants) count for what they are worth together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

from harness.stats.intervals import Interval, independent, normal_quantile

FINE = 7  # the exact test adds whole numbers: graded scores in steps of about 2**-7 of a typical one
LARGE = 5000  # pairs from which the normal approximation of the power is used
HEAVY = 10**9  # additions from which the sign-flip test uses its normal approximation


@dataclass(frozen=True, slots=True)
class Pairs:
    """Differences in [-1, 1] by behavior; `up` and `down` are what the rises and the falls sum to.

    `weight`: the most that one behavior weighs in the mean; a weighted difference may lie outside.
    """

    groups: tuple[tuple[float, ...], ...]
    weight: float = 1.0

    @property
    def n(self) -> int:
        """Number of pairs."""
        return sum(map(len, self.groups))

    @property
    def up(self) -> float:
        """Sum of the rises: McNemar's b."""
        return math.fsum(d for group in self.groups for d in group if d > 0)

    @property
    def down(self) -> float:
        """Sum of the falls: McNemar's c."""
        return math.fsum(-d for group in self.groups for d in group if d < 0)

    @property
    def value(self) -> float:
        """The mean difference."""
        return max(-1.0, min(1.0, (self.up - self.down) / self.n))

    def effective_size(self) -> float:
        """How many independent pairs of yes/no outcomes tell as much; see `intervals.effective_size`."""
        value = self.value
        return independent(
            [len(group) for group in self.groups],
            spread=math.fsum((math.fsum(g) - value * len(g)) ** 2 for g in self.groups),
            apart=self.up + self.down - self.n * value**2,
            rarer=sum(any(g) for g in self.groups),
            graded=any(d not in (-1.0, 0.0, 1.0) for g in self.groups for d in g),
            weight=self.weight,
        )

    def interval(self, level: float = 0.95) -> Interval:
        """Tango's score interval for the mean difference, on the effective size and with Student's quantile."""
        from scipy.stats import t

        size = self.effective_size()
        if len(self.groups) > 1:
            size *= (normal_quantile(level) / float(t.ppf((1 + level) / 2, len(self.groups) - 1))) ** 2
        return tango(self.up * size / self.n, self.down * size / self.n, size, level)


def mcnemar(b: int, c: int) -> float:
    """Exact two-sided p-value that `b` rises and `c` falls are a fair coin."""
    from scipy.stats import binomtest

    return float(binomtest(b, b + c, 0.5).pvalue) if b + c else 1.0


def sign_flip(pairs: Pairs) -> float:
    """Exact one-sided p-value of a rise this large had each behavior's two runs been swapped by a fair coin.

    With one yes/no attempt per behavior this is McNemar's exact test.
    """
    import numpy as np

    sums = [math.fsum(group) for group in pairs.groups]
    typical = math.fsum(map(abs, sums)) / len(sums)
    if not typical:
        return 1.0
    step = 2.0 ** (max(0, math.ceil(math.log2(typical))) - FINE)
    totals = [round(x / step) for x in sums]
    unit = math.gcd(*totals)
    if not unit:
        return 1.0
    sizes = [abs(total) // unit for total in totals if total]
    if len(sizes) * sum(sizes) > HEAVY:
        return 1 - NormalDist().cdf((sum(totals) // unit - 1) / math.sqrt(sum(size * size for size in sizes)))
    chance = np.ones(1)  # chance[i]: that the flipped total is 2 i - sum so far
    for size in sizes:
        longer = np.zeros(len(chance) + size)
        longer[: len(chance)] += chance / 2
        longer[size:] += chance / 2
        chance = longer
    ups = (sum(totals) // unit + sum(sizes)) // 2
    return min(1.0, float(chance[ups:].sum()))


def tango(b: float, c: float, n: float, level: float = 0.95) -> Interval:
    """Tango's (1998) score interval for a difference of paired proportions: `b` rises and `c` falls in `n` pairs."""
    from scipy.optimize import brentq

    if not (n > 0 and b >= 0 and c >= 0 and b + c <= n * (1 + 1e-9)):
        raise ValueError(f"needs b, c >= 0 and b + c <= n; got b={b}, c={c}, n={n}")
    z, value = normal_quantile(level), (b - c) / n

    def end(sign: int) -> float:
        edge = float(sign)
        if sign * value >= 1 or sign * (score(b, c, n, edge * (1 - 1e-9)) + sign * z) > 0:
            return edge
        return float(brentq(lambda d: score(b, c, n, d) + sign * z, value, edge * (1 - 1e-9)))

    return end(-1), end(1)


def score(b: float, c: float, n: float, difference: float) -> float:
    """Tango's score statistic against a true `difference`: standard normal there, above 0 where more was seen."""
    gap, variance = b - c - n * difference, n * null_variance(b / n, c / n, difference)
    if variance <= 0:
        return math.copysign(math.inf, gap) if gap else 0.0
    return gap / math.sqrt(variance)


def null_variance(b: float, c: float, difference: float) -> float:
    """Variance of one pair's difference when its mean is `difference`, from shares `b` of rises and `c` of falls."""
    linear = (2 - b + c) * difference - b - c
    root = linear * linear + 8 * c * difference * (1 - difference)
    falls = (math.sqrt(max(root, 0.0)) - linear) / 4  # maximum likelihood under that constraint
    return 2 * falls + difference * (1 - difference)


def below_margin(pairs: Pairs, margin: float) -> float:
    """One-sided p-value that the true difference is `margin` or more: small means non-inferior."""
    size = pairs.effective_size()
    return NormalDist().cdf(score(pairs.up * size / pairs.n, pairs.down * size / pairs.n, size, margin))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: reject those at most alpha, and the family errs alpha at most."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def power_rise(n: int, rise: float, discordant: float, alpha: float) -> float:
    """Chance that `sign_flip` on `n` yes/no pairs finds a true `rise` when `discordant` of the pairs differ."""
    import numpy as np
    from scipy.stats import binom

    differ = np.arange(n + 1)
    weight = binom.pmf(differ, n, discordant)
    likely = weight > 1e-12
    needed = np.array(_rises_needed(alpha, 2 ** (n + 1).bit_length()))[: n + 1][likely]
    found = binom.sf(needed - 1, differ[likely], (discordant + rise) / (2 * discordant))
    return float((weight[likely] * found).sum())


@cache
def _rises_needed(alpha: float, top: int) -> tuple[float, ...]:
    """For each number of differing pairs below `top`, the fewest rises that a fair coin gives `alpha` at most."""
    import numpy as np
    from scipy.stats import binom

    return tuple((binom.isf(alpha, np.arange(top), 0.5) + 1).tolist())


@cache
def pairs_for_rise(rise: float, discordant: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Pairs with which a true `rise` is found with this power, when `discordant` of the pairs differ."""
    if not 0 < rise <= discordant * (1 + 1e-9) <= 1 + 1e-9:
        raise ValueError("needs 0 < rise <= discordant <= 1")
    quantile = NormalDist().inv_cdf
    spread = quantile(1 - alpha) * math.sqrt(discordant) + quantile(power) * math.sqrt(max(discordant - rise**2, 0.0))
    low = math.ceil((spread / rise) ** 2)  # Connor 1987; the exact test needs more
    if low > LARGE:
        return low
    high = low
    while power_rise(high, rise, discordant, alpha) < power:
        low, high = high + 1, high + max(4, high // 4)
    while low < high:
        middle = (low + high) // 2
        enough = power_rise(middle, rise, discordant, alpha) >= power
        low, high = (low, middle) if enough else (middle + 1, high)
    return high


def pairs_for_margin(
    margin: float, discordant: float, difference: float = 0.0, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Pairs with which a true `difference` is shown to lie below `margin` with this power."""
    if not abs(difference) <= discordant <= 1 or not difference < margin:
        raise ValueError("needs a difference below the margin and no larger than the share of discordant pairs")
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha), NormalDist().inv_cdf(power)
    rises, falls = (discordant + difference) / 2, (discordant - difference) / 2
    at_margin = math.sqrt(null_variance(rises, falls, margin))
    at_truth = math.sqrt(max(discordant - difference**2, 0.0))
    return math.ceil(((z_alpha * at_margin + z_power * at_truth) / (margin - difference)) ** 2)
