"""Looking early without erring more often: group-sequential limits by error spending (Lan and DeMets 1983)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

STEPS = 640  # points of the grid on which the density between looks is followed
REACH = 8.0  # standard deviations it spans on either side


def spend(share: float, alpha: float) -> float:
    """How much of a one-sided `alpha` may be used up once `share` of the data is in.

    Kim and DeMets' power family with exponent 1.5: between Pocock's even and O'Brien and Fleming's late spending.
    """
    return alpha * math.pow(min(1.0, share), 1.5)


def nominal_levels(shares: Sequence[float], alpha: float) -> list[float]:
    """The one-sided level to test at when `shares` of the data (rising, the last is 1) are in.

    All looks together err `alpha` at most under the null hypothesis; exact for normal increments.
    """
    if not shares or list(shares) != sorted(set(shares)) or shares[0] <= 0 or shares[-1] > 1 + 1e-9:
        raise ValueError("looks must rise and lie in (0, 1]")
    return list(_levels(tuple(shares), alpha))


@cache
def _levels(shares: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """The limits, by following the density of the running sum from look to look."""
    import numpy as np

    levels: list[float] = []
    grid = np.linspace(-REACH, REACH, STEPS + 1)
    width = grid[1] - grid[0]
    density: npt.NDArray[np.float64] | None = None  # of the running sum, on `grid`, while no limit was crossed
    spent = before = 0.0
    for share in shares:
        step = math.sqrt(share - before)
        if density is None:
            density = _normal(grid / step) / step
        else:
            density = _normal((grid[:, None] - grid[None, :]) / step) @ density * width / step
        allowed = spend(share, alpha) - spent
        tail = np.cumsum(density[::-1])[::-1] * width - density * width / 2  # mass above each point
        limit = float(np.interp(-allowed, -tail, grid))
        levels.append(1 - NormalDist().cdf(limit / math.sqrt(share)))
        density = density * np.clip((limit - grid) / width + 0.5, 0.0, 1.0)  # the cell at the limit counts in part
        spent, before = spent + allowed, share
    return tuple(levels)


def overall_level(p: float, shares: Sequence[float], look: int, alpha: float) -> float:
    """The overall level at which a p-value seen at the `look`-th of `shares` (from 0) would just be enough.

    It turns an early p-value into one that can stand in a family (Holm) next to others; 1 where it is far off.
    """
    import numpy as np

    overall, nominal = _levels_around(tuple(shares), alpha)
    column = [levels[look] for levels in nominal]
    if p >= column[-1]:
        return 1.0
    return math.exp(float(np.interp(math.log(max(p, 1e-300)), np.log(column), np.log(overall))))


@cache
def _levels_around(shares: tuple[float, ...], alpha: float) -> tuple[list[float], list[list[float]]]:
    """Overall levels around `alpha`, and what each of them allows at every look."""
    overall = [level for k in range(-9, 3) if (level := alpha * 2.0**k) < 0.5]
    return overall, [nominal_levels(shares, level) for level in overall]


def _normal(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    import numpy as np

    density: npt.NDArray[np.float64] = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return density
