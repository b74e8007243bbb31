"""The length-controlled win rate: what a win rate would be had both replies been equally long.

As in AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475), preferences are explained by a logistic regression,
    logit P(reply preferred) = a + b * tanh((length of reply - length of reference) / their standard deviation),
and the length-controlled rate is the logistic of `a`: the same model with the length term at 0. What differs: there is
no term for how hard each instruction is, which AlpacaEval learns from the replies of many other models.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

FEW = 5  # wins or losses below which the spread of the replies says too little about the uncertainty
RIDGE = 0.04  # pull of the slope to 0, as one of a normal prior with standard deviation 5: keeps it finite


@dataclass(frozen=True, slots=True, kw_only=True)
class Controlled:
    """A length-controlled rate, its interval, and the slope `b`: above 0 where longer replies were preferred."""

    value: float
    low: float
    high: float
    slope: float


def length_controlled(
    preferred: Sequence[float], longer: Sequence[float], clusters: Sequence[Hashable] = (), level: float = 0.95
) -> Controlled:
    """From preferences in [0, 1] (a tie is 0.5) and how much longer each reply was than its reference.

    Comparisons that share a cluster hang together. Half a win and half a loss at equal length are added: they keep the
    rate off 0 and 1, and the interval open when all came out alike. Raises ValueError without comparisons, or for
    a preference outside [0, 1].
    """
    import numpy as np
    from scipy.stats import t

    n = len(preferred)
    if not n or len(longer) != n or not all(0.0 <= p <= 1.0 for p in preferred):
        raise ValueError("needs at least one comparison, each with a preference between 0 and 1 and a length")
    spread = math.sqrt(math.fsum(d * d for d in longer) / n - (math.fsum(longer) / n) ** 2) if n > 1 else 0.0
    terms = [math.tanh(d / spread) if spread > 1e-9 else 0.0 for d in longer]
    design = np.array([[1.0, 0.0], [1.0, 0.0], *([1.0, term] for term in terms)])
    outcome, weight = np.array([1.0, 0.0, *preferred]), np.array([0.5, 0.5, *([1.0] * n)])
    beta, chance = _fit(design, outcome, weight)
    groups = list(clusters) or list(range(n))
    bread = np.linalg.inv(_information(design, chance, weight))
    variance = float(bread[0, 0])  # had every comparison been an independent yes or no
    count = len(set(groups))
    if min(math.fsum(preferred), n - math.fsum(preferred)) >= FEW and count > 2:
        variance = _sandwich(design, weight * (outcome - chance), groups, bread) * count / (count - 2)
    half = float(t.ppf((1 + level) / 2, max(1, count - 1))) * math.sqrt(variance)
    middle = float(beta[0])
    return Controlled(
        value=_logistic(middle), low=_logistic(middle - half), high=_logistic(middle + half), slope=float(beta[1])
    )


def _fit(design: Any, outcome: Any, weight: Any) -> tuple[Any, Any]:
    """Newton's method on the penalised likelihood: coefficients, and the chance each comparison had."""
    import numpy as np

    penalty = np.array([0.0, RIDGE])
    beta = np.zeros(2)
    for _ in range(100):
        chance = 1 / (1 + np.exp(-np.clip(design @ beta, -30, 30)))
        gradient = design.T @ (weight * (outcome - chance)) - penalty * beta
        step = np.linalg.solve(_information(design, chance, weight), gradient)
        beta = beta + np.clip(step, -2, 2)  # far steps overshoot where nearly all are won
        if abs(step).max() < 1e-10:
            break
    return beta, 1 / (1 + np.exp(-design @ beta))


def _information(design: Any, chance: Any, weight: Any) -> Any:
    """The curvature of the penalised likelihood."""
    import numpy as np

    return (design.T * (weight * chance * (1 - chance))) @ design + np.diag([1e-9, RIDGE])


def _sandwich(design: Any, residual: Any, groups: Sequence[Hashable], bread: Any) -> float:
    """Variance of the intercept, whatever hangs together within a cluster; the two added halves stand alone."""
    import numpy as np

    places: dict[Hashable, int] = {}
    index = [0, 1, *(2 + places.setdefault(group, len(places)) for group in groups)]
    sums = np.zeros((len(places) + 2, 2))
    np.add.at(sums, index, design * residual[:, None])
    return float((bread @ (sums.T @ sums) @ bread)[0, 0])


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
