"""Group-sequential limits: they spend what they may, no more, and agree with simulation."""

import numpy as np
import pytest
from scipy.stats import norm

from harness.stats.sequential import nominal_levels, overall_level, spend


def test_one_look_is_a_plain_test():
    assert nominal_levels([1.0], 0.05) == pytest.approx([0.05], abs=1e-3)


def test_first_look_spends_by_hand():
    # .05 * .2^1.5 = .00447
    assert spend(0.2, 0.05) == pytest.approx(0.00447, abs=1e-5)
    assert nominal_levels([0.2, 1.0], 0.05)[0] == pytest.approx(0.00447, abs=2e-4)


def test_all_looks_together_err_as_often_as_stated():
    levels = nominal_levels([0.25, 0.5, 0.75, 1.0], 0.05)
    draws = np.random.default_rng(0).normal(size=(100_000, 4)).cumsum(axis=1) / np.sqrt([1, 2, 3, 4])
    crossed = (draws > norm.isf(levels)).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=0.003)
    assert levels == sorted(levels)


@pytest.mark.parametrize("shares", [[], [0.5, 0.5], [0.5, 0.2], [0.0, 1.0], [0.5, 1.2]])
def test_looks_that_do_not_rise_to_the_end_are_refused(shares):
    with pytest.raises(ValueError, match="looks must rise"):
        nominal_levels(shares, 0.05)


def test_an_early_p_value_stands_for_the_level_that_would_just_allow_it():
    shares = [0.25, 0.5, 0.75, 1.0]
    levels = nominal_levels(shares, 0.05)
    for look, level in enumerate(levels):
        assert overall_level(level, shares, look, 0.05) == pytest.approx(0.05, rel=0.02)
    assert overall_level(0.04, shares, 0, 0.05) > 0.2
    assert overall_level(0.5, shares, 3, 0.05) == 1.0
