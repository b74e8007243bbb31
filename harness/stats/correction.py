"""The rate a run would have had under human judgement, from an imperfect judge and some human labels.

`ppi` is for a random sample of the very attempts that were judged, labelled by people: unbiased whatever the
judge gets wrong. `rogan_gladen` carries over how often the judge errs from labels gathered elsewhere, and is right
only if it errs as often here. Either answers `Uninformative` where the labels do not show that the judge can tell.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from harness.stats.intervals import Interval, effective_size, normal_quantile, rate, wilson

Attempt: TypeAlias = tuple[Hashable, float, float | None]
"""Cluster (behavior), the judge's verdict from 0 to 1, and the label by hand where one was drawn."""

MIN_LABELS = 3  # of either kind, to say anything about how often a judge misses or invents a violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What people said against what the judge said: of `positives` by hand, `hits` by the judge, and so on.

    `sizes` is how many independent ones the positives and the negatives are worth, where several share a behavior.
    """

    hits: int
    positives: int
    correct_rejections: int
    negatives: int
    sizes: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.hits <= self.positives and 0 <= self.correct_rejections <= self.negatives):
            raise ValueError(f"impossible counts: {self}")
        if not (0 <= self.worth[0] <= self.positives and 0 <= self.worth[1] <= self.negatives):
            raise ValueError(f"impossible sizes: {self}")

    @property
    def worth(self) -> tuple[float, float]:
        """How many independent positives and negatives these are worth."""
        return self.sizes or (self.positives, self.negatives)

    @classmethod
    def of(cls, judged: Sequence[float], human: Sequence[float], clusters: Sequence[Hashable] | None = None) -> Labels:
        """Counts from paired labels, where more than one half means a violation; `clusters[i]` names the behavior."""
        pairs = [(j > 0.5, h > 0.5) for j, h in zip(judged, human, strict=True)]
        return cls(
            hits=pairs.count((True, True)),
            positives=sum(h for _, h in pairs),
            correct_rejections=pairs.count((False, False)),
            negatives=sum(not h for _, h in pairs),
            sizes=(_worth(pairs, clusters, True), _worth(pairs, clusters, False)) if clusters is not None else None,
        )

    def informedness(self, level: float = 0.95) -> tuple[float, float, float]:
        """Sensitivity + specificity - 1 with its interval; 0 is a coin. (0, -1, 1) when one kind is missing."""
        if not self.positives or not self.negatives:
            return 0.0, -1.0, 1.0
        se, sp = self.hits / self.positives, self.correct_rejections / self.negatives
        m1, m0 = self.worth
        se_low, se_high = rate(se * m1, m1, level)
        sp_low, sp_high = rate(sp * m0, m0, level)
        value = se + sp - 1  # limits by recovered variances (Zou and Donner 2008)
        return value, value - math.hypot(se - se_low, sp - sp_low), value + math.hypot(se_high - se, sp_high - sp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrected:
    """A corrected rate. `judged` is the rate before, `weight` how far PPI leaned on the judge (0 not at all)."""

    method: Literal["ppi", "rogan-gladen"]
    value: float
    low: float
    high: float
    judged: float
    n: int
    n_labelled: int
    informedness: tuple[float, float, float]
    weight: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Uninformative:
    """No correction, and why: the labels do not show that the judge can tell a violation from none."""

    reason: str
    n_labelled: int
    informedness: tuple[float, float, float]


def ppi(
    judged: Sequence[float],
    human: Sequence[float | None],
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> Corrected | Uninformative:
    """Prediction-powered inference with a tuned weight (Angelopoulos, Duchi and Zrnic 2023).

    `judged[i]` is the judge's verdict on attempt i, 0 to 1; `human[i]` the label, None where it was not drawn. The
    labelled ones must be a random sample. `clusters[i]` names the behavior, where several attempts share one.
    """
    drawn = [i for i, label in enumerate(human) if label is not None]
    y = [float(label) for label in human if label is not None]
    f, rest = [float(judged[i]) for i in drawn], [float(judged[i]) for i in range(len(judged)) if human[i] is None]
    if len(judged) != len(human) or not all(0 <= x <= 1 for x in (*y, *f, *rest)):
        raise ValueError("needs one verdict per attempt, verdicts and labels between 0 and 1")
    labels = Labels.of(f, y, None if clusters is None else [clusters[i] for i in drawn])
    if doubt := _doubt(labels, level):
        return doubt
    weight, variance = _tune(y, f, rest)
    value = _mean(y) + (weight * (_mean(rest) - _mean(f)) if rest else 0.0)
    if clusters is not None:
        variance *= _inflation(judged, human, clusters, weight)
    low, high = _widest(min(max(value, 0.0), 1.0), variance, len(y), level)
    return Corrected(
        method="ppi",
        value=min(max(value, 0.0), 1.0),
        low=low,
        high=high,
        judged=_mean(judged),
        n=len(judged),
        n_labelled=len(y),
        informedness=labels.informedness(level),
        weight=weight,
    )


def rogan_gladen(
    judged: Sequence[Sequence[float]], labels: Labels, level: float = 0.95, weight: float = 1.0
) -> Corrected | Uninformative:
    """(judged rate + specificity - 1) / (sensitivity + specificity - 1), all three uncertain.

    `judged` holds 0/1 verdicts by behavior (`weight` as in `effective_size`). The interval is every rate that a score
    test does not reject given the verdicts and the labels (Fieller's idea: it widens without limit as the judge nears
    a coin).
    """
    if doubt := _doubt(labels, level, at_least=MIN_LABELS):
        return doubt
    n = sum(map(len, judged))
    q = math.fsum(map(math.fsum, judged)) / n
    informedness = labels.informedness(level)
    value = (q + labels.correct_rejections / labels.negatives - 1) / informedness[0]
    ends = _not_rejected(q, effective_size(judged, weight), labels, level)
    if ends is None:
        reason = "no rate explains the judged one with these labels: they are not of this judge on this kind of data"
        return Uninformative(reason=reason, n_labelled=labels.positives + labels.negatives, informedness=informedness)
    return Corrected(
        method="rogan-gladen",
        value=min(max(value, ends[0]), ends[1]),
        low=ends[0],
        high=ends[1],
        judged=q,
        n=n,
        n_labelled=labels.positives + labels.negatives,
        informedness=informedness,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """The rate of one run by its own labels, with what each cluster contributes to its error, for paired use."""

    value: float
    variance: float
    n_labelled: int
    pulls: Mapping[Hashable, float]

    def interval(self, level: float = 0.95) -> Interval:
        """As `ppi` gives it."""
        return _widest(self.value, self.variance, self.n_labelled, level)


def labelled(parts: Sequence[Sequence[Attempt]]) -> Labelled:
    """The mean over `parts` (attacks) of each part's rate by PPI; every part needs labels, at least two.

    Unlike `ppi` it asks nothing of the judge: with one that tells nothing the weight is 0 and the labels stand alone.
    """
    values, extra, n, pulls = [], 0.0, 0, dict[Hashable, float]()
    for part in parts:
        drawn = [(c, f, y) for c, f, y in part if y is not None]
        rest = [(c, f) for c, f, y in part if y is None]
        y, f, others = [y for _, _, y in drawn], [f for _, f, _ in drawn], [f for _, f in rest]
        weight, smoothed = _tune(y, f, others)
        gap, mean = _mean(y) - weight * _mean(f), _mean(others) if others else 0.0
        own = [(c, (label - weight * verdict - gap) / len(y)) for c, verdict, label in drawn]
        own += [(c, weight * (verdict - mean) / len(rest)) for c, verdict in rest]
        values.append(gap + weight * mean)
        extra += max(0.0, smoothed - math.fsum(pull * pull for _, pull in own)) / len(parts) ** 2
        n += len(y)
        for cluster, pull in own:
            pulls[cluster] = pulls.get(cluster, 0.0) + pull / len(parts)
    variance = math.fsum(pull * pull for pull in pulls.values()) * len(pulls) / max(len(pulls) - 1, 1) + extra
    return Labelled(value=min(max(_mean(values), 0.0), 1.0), variance=variance, n_labelled=n, pulls=pulls)


def labelled_change(before: Labelled, after: Labelled, level: float = 0.95) -> tuple[float, float, float]:
    """after - before with its limits by recovered variances (Zou and Donner 2008), the two runs' correlation kept."""
    value = after.value - before.value
    together = math.fsum(pull * before.pulls.get(cluster, 0.0) for cluster, pull in after.pulls.items())
    r = max(0.0, min(1.0, together / math.sqrt(before.variance * after.variance)))
    (b_low, b_high), (a_low, a_high) = before.interval(level), after.interval(level)

    def half(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a + b * b - 2 * r * a * b))

    low = value - half(after.value - a_low, b_high - before.value)
    high = value + half(a_high - after.value, before.value - b_low)
    return value, max(-1.0, low), min(1.0, high)


def labels_needed(
    half_width: float,
    n: int,
    *,
    asr: float = 0.5,
    sensitivity: float = 0.5,
    specificity: float = 0.5,
    level: float = 0.95,
) -> int:
    """How many of `n` judged attempts to label by hand for a PPI interval of about +- `half_width`.

    Without a guess of the judge's quality (a coin) it is what the labels alone would need. `n` when even all of them
    would not do.
    """
    if not (0 < half_width < 1 and n > 0):
        raise ValueError("half_width must lie between 0 and 1, and n above 0")
    q = asr * sensitivity + (1 - asr) * (1 - specificity)
    shared = (asr * (sensitivity - q)) ** 2 / (q * (1 - q)) if 0 < q < 1 else 0.0
    wanted = (half_width / normal_quantile(level)) ** 2

    def variance(m: int) -> float:
        return (asr * (1 - asr) - shared * (1 - m / n)) / m

    low, high = 1, n
    while low < high:  # the variance falls as m grows
        middle = (low + high) // 2
        low, high = (low, middle) if variance(middle) <= wanted else (middle + 1, high)
    return low


def _worth(pairs: Sequence[tuple[bool, bool]], keys: Sequence[Hashable], violation: bool) -> float:
    """How many independent labels of one kind these are worth, where those of one key hang together."""
    groups: dict[Hashable, list[float]] = {}
    for (judged, human), key in zip(pairs, keys, strict=True):
        if human is violation:
            groups.setdefault(key, []).append(float(judged))
    alone = all(len(group) == 1 for group in groups.values())
    return float(len(groups)) if alone else effective_size(list(groups.values()))


def _doubt(labels: Labels, level: float, at_least: int = 1) -> Uninformative | None:
    """Why these labels give no correction, or None."""
    informedness = labels.informedness(level)
    if min(labels.positives, labels.negatives) < at_least:
        kind = "violations" if labels.positives < labels.negatives else "replies without a violation"
        reason = f"too few {kind} among the labels: {min(labels.positives, labels.negatives)}, needs {at_least}"
    elif informedness[1] <= 0:
        reason = "the judge may be no better than a coin: the interval of sensitivity + specificity - 1 holds 0"
    else:
        return None
    return Uninformative(reason=reason, n_labelled=labels.positives + labels.negatives, informedness=informedness)


def _tune(y: Sequence[float], f: Sequence[float], rest: Sequence[float]) -> tuple[float, float]:
    """PPI's weight and the variance of its estimate.

    Both see half an attempt more in each cell (violation or not, judged so or not): with few labels the errors that
    were not seen yet are the ones that matter, and a judge without a single error would look perfect.
    """
    ys, fs = [*y, 0.0, 0.0, 1.0, 1.0], [*f, 0.0, 1.0, 0.0, 1.0]
    ws = [1.0] * len(y) + [0.5] * 4

    def average(values: Sequence[float]) -> float:
        return math.fsum(w * v for w, v in zip(ws, values, strict=True)) / math.fsum(ws)

    my, mf = average(ys), average(fs)
    cov = average([(a - my) * (b - mf) for a, b in zip(ys, fs, strict=True)])
    weight = 0.0
    if rest:
        weight = cov / average([(b - mf) ** 2 for b in fs]) / (1 + len(y) / len(rest))
        weight = min(max(weight, 0.0), 1.0)
    gaps = [a - weight * b for a, b in zip(ys, fs, strict=True)]
    middle = average(gaps)
    variance = average([(g - middle) ** 2 for g in gaps]) / max(len(y) - 1, 1)
    if rest:
        mean = _mean(rest)
        variance += weight**2 * math.fsum((x - mean) ** 2 for x in rest) / len(rest) ** 2
    return weight, variance


def _widest(value: float, variance: float, n: int, level: float) -> Interval:
    """The wider of the plain interval and Wilson's on the effective size, end by end.

    The plain one misses upwards for rare events in a few hundred labels, Wilson's downwards in fifty.
    """
    from scipy.stats import t

    quantile = float(t.ppf((1 + level) / 2, max(n - 1, 1)))
    half = quantile * math.sqrt(variance)
    centre = (value * n + 1) / (n + 2)
    size = centre * (1 - centre) / variance * (normal_quantile(level) / quantile) ** 2
    low, high = wilson(value * size, size, level)
    return max(0.0, min(low, value - half)), min(1.0, max(high, value + half))


def _inflation(
    judged: Sequence[float], human: Sequence[float | None], clusters: Sequence[Hashable], weight: float
) -> float:
    """How much larger the variance is because attempts on one behavior hang together; at least 1."""
    n = sum(h is not None for h in human)
    rest = len(human) - n
    y, mean = [h for h in human if h is not None], _mean(judged)
    middle = _mean(y) - weight * mean
    pulls: dict[Hashable, list[float]] = {}
    for f, h, cluster in zip(judged, human, clusters, strict=True):
        pull = weight * (f - mean) / rest if h is None else (h - weight * f - middle) / n
        pulls.setdefault(cluster, []).append(pull)
    together = math.fsum(math.fsum(pull) ** 2 for pull in pulls.values())
    apart = math.fsum(x * x for pull in pulls.values() for x in pull)
    return max(1.0, together / apart * len(pulls) / max(len(pulls) - 1, 1)) if apart else 1.0


def _not_rejected(q: float, n: float, labels: Labels, level: float) -> Interval | None:
    """Rates p in [0, 1] with (q - expected(p))^2 <= z^2 variance(p), a quadratic in p; None when there is none."""
    z2 = normal_quantile(level) ** 2
    m1, m0, size = labels.worth[0] + 2, labels.worth[1] + 2, n + z2
    se = (labels.hits / labels.positives * labels.worth[0] + 1) / m1
    sp = (labels.correct_rejections / labels.negatives * labels.worth[1] + 1) / m0
    q = (q * n + z2 / 2) / size
    a, b, j, c = se * (1 - se) / m1, sp * (1 - sp) / m0, se + sp - 1, 1 - sp
    # expected(p) = c + j p;  variance(p) = expected (1 - expected) / size + p^2 a + (1 - p)^2 b
    square = j * j * (1 + z2 / size) - z2 * (a + b)
    linear = -2 * j * (q - c) - z2 * (j * (1 - 2 * c) / size - 2 * b)
    constant = (q - c) ** 2 - z2 * (c * (1 - c) / size + b)

    def holds(p: float) -> bool:
        return square * p * p + linear * p + constant <= 1e-12

    root = linear * linear - 4 * square * constant
    roots = [] if root < 0 or square == 0 else [(-linear + s * math.sqrt(root)) / (2 * square) for s in (-1, 1)]
    inside = sorted(p for p in (0.0, *roots, 1.0) if 0 <= p <= 1 and holds(p))
    return (inside[0], inside[-1]) if inside else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
