"""The length-controlled win rate against simulations whose truth is known."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from harness.stats.winrate import Controlled, length_controlled


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def draw(
    rng: random.Random, n: int, quality: float, length_effect: float, mean: float
) -> tuple[list[float], list[int]]:
    """Preferences whose truth is `quality` at equal length, of replies that are `mean` characters longer (sd 400)."""
    longer = [round(rng.gauss(mean, 400)) for _ in range(n)]
    chance = [logistic(quality + length_effect * math.tanh(d / 400)) for d in longer]
    return [float(rng.random() < p) for p in chance], longer


def test_a_pure_length_effect_is_taken_away() -> None:
    # Replies are no better, only 300 characters longer on average, and length wins: the plain rate is far above 1/2.
    rng = random.Random(1)
    won, longer = draw(rng, 4000, 0.0, 2.0, 300)
    found = length_controlled(won, longer)
    assert fmean(won) > 0.65
    assert found.low < 0.5 < found.high
    assert found.value == pytest.approx(0.5, abs=0.03)
    assert found.slope == pytest.approx(2.0, abs=0.3)


def test_a_difference_in_quality_stays_when_there_is_no_length_effect() -> None:
    won, longer = draw(random.Random(2), 4000, 1.0, 0.0, 300)
    found = length_controlled(won, longer)
    assert found.value == pytest.approx(logistic(1.0), abs=0.03)
    assert found.value == pytest.approx(fmean(won), abs=0.03)
    assert abs(found.slope) < 0.3


def test_equal_lengths_leave_the_plain_rate() -> None:
    # 30 of 40 won, and half a win and half a loss are added: (30 + 0.5) / 41
    found = length_controlled([1.0] * 30 + [0.0] * 10, [0] * 40)
    assert found.value == pytest.approx(30.5 / 41)
    assert found.low < 0.75 < found.high


def test_swapping_who_is_who_turns_the_rate_around() -> None:
    won, longer = draw(random.Random(3), 60, 0.4, 1.0, 100)
    one = length_controlled(won, longer)
    other = length_controlled([1 - p for p in won], [-d for d in longer])
    assert other.value == pytest.approx(1 - one.value)
    assert (other.low, other.high) == (pytest.approx(1 - one.high), pytest.approx(1 - one.low))


@pytest.mark.parametrize("quality", [-1.0, 0.0, 1.5])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(quality: float) -> None:
    rng = random.Random(4)
    truth, held = logistic(quality), 0
    for _ in range(300):
        found = length_controlled(*draw(rng, 100, quality, 1.5, 200))
        held += found.low <= truth <= found.high
    # 95% of 300 is 285, with a standard deviation of 3.8
    assert 273 <= held <= 297


def test_comparisons_of_one_cluster_do_not_count_as_many() -> None:
    # 20 instructions, each compared five times with the same outcome: as unsure as 20 comparisons, not as 100.
    won, longer = draw(random.Random(5), 20, 0.0, 1.0, 0)
    five = [p for p in won for _ in range(5)], [d for d in longer for _ in range(5)]
    apart, together = length_controlled(*five), length_controlled(*five, [i for i in range(20) for _ in range(5)])
    alone = length_controlled(won, longer)

    def width(one: Controlled) -> float:
        return one.high - one.low

    assert width(together) > 1.6 * width(apart)
    assert width(together) == pytest.approx(width(alone), rel=0.2)


@pytest.mark.parametrize("won", [1.0, 0.0, 0.5])
def test_when_all_go_one_way_the_interval_is_wide_and_the_rate_is_not_certain(won: float) -> None:
    found = length_controlled([won] * 12, list(range(-6, 6)))
    assert 0 < found.low < found.value < found.high < 1
    assert found.high - found.low > 0.1
    assert found.value == pytest.approx(won, abs=0.1)


def test_wins_that_length_explains_entirely_leave_a_finite_slope() -> None:
    found = length_controlled([1.0] * 20 + [0.0] * 20, [500] * 20 + [-500] * 20)
    assert found.value == pytest.approx(0.5)
    assert 3 < found.slope < 30


def test_one_comparison_is_enough_and_none_is_not() -> None:
    assert length_controlled([1.0], [10]).value > 0.5
    for broken in (([], []), ([1.0], []), ([1.5], [0])):
        with pytest.raises(ValueError, match="at least one comparison"):
            length_controlled(*broken)
