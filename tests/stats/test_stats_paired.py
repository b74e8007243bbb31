"""Paired comparison: against statsmodels and published values, by hand, and by how often it errs."""

import itertools
import math
import random

import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.multitest import multipletests

from harness.stats.paired import (
    Pairs,
    below_margin,
    holm,
    mcnemar,
    null_variance,
    pairs_for_margin,
    pairs_for_rise,
    power_rise,
    score,
    sign_flip,
    tango,
)


def pairs(up, down, same=0):
    return Pairs(tuple([(1.0,)] * up + [(-1.0,)] * down + [(0.0,)] * same))


@pytest.mark.parametrize(("b", "c"), [(5, 2), (0, 0), (10, 0), (3, 9), (40, 22)])
def test_mcnemar_agrees_with_statsmodels(b, c):
    assert mcnemar(b, c) == pytest.approx(sm_mcnemar([[0, b], [c, 0]], exact=True).pvalue)


@pytest.mark.parametrize(("b", "c"), [(5, 2), (10, 0), (3, 9), (40, 22), (1, 1)])
def test_sign_flip_of_single_attempts_is_mcnemars_upper_tail(b, c):
    assert sign_flip(pairs(b, c, 7)) == pytest.approx(binom.sf(b - 1, b + c, 0.5))


def test_sign_flip_of_behaviors_by_enumeration():
    groups = ((1.0, 1.0, 0.0), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), (0.5, 0.0, 0.0))  # totals 2, 1, -1, .5: sum 2.5
    flips = [
        sum(s * t for s, t in zip(signs, (2, 1, 1, 0.5), strict=True)) for signs in itertools.product((1, -1), repeat=4)
    ]
    assert sign_flip(Pairs(groups)) == sum(f >= 2.5 for f in flips) / 16


def test_sign_flip_of_very_many_is_close_to_the_exact_test(monkeypatch):
    many = pairs(160, 130, 50)
    exact = sign_flip(many)
    monkeypatch.setattr("harness.stats.paired.HEAVY", 0)
    assert sign_flip(many) == pytest.approx(exact, abs=0.001)


def test_sign_flip_without_any_change_is_one():
    assert sign_flip(pairs(0, 0, 30)) == 1.0


@pytest.mark.parametrize(("b", "c", "n"), [(0, 1, 44), (5, 2, 50), (30, 10, 200)])
def test_tango_limits_are_where_the_score_test_stops_rejecting(b, c, n):
    low, high = tango(b, c, n)
    assert score(b, c, n, low) == pytest.approx(1.959964, abs=1e-5)
    assert score(b, c, n, high) == pytest.approx(-1.959964, abs=1e-5)
    assert low < (b - c) / n < high


def test_tango_without_discordant_pairs_by_hand():
    # n d^2 = z^2 d (1 - d): d = z^2 / (n + z^2) = 3.8415 / 53.8415
    assert tango(0, 0, 50) == pytest.approx((-0.07135, 0.07135), abs=1e-5)


def test_tango_turns_round_with_its_arguments():
    low, high = tango(9, 4, 60)
    assert tango(4, 9, 60) == pytest.approx((-high, -low))
    assert tango(20, 0, 20)[1] == 1.0
    with pytest.raises(ValueError, match="b \\+ c <= n"):
        tango(5, 6, 10)


@pytest.mark.parametrize(("b", "c", "d"), [(5, 2, 0.1), (0, 3, 0.05), (7, 1, -0.2), (2, 2, 0.0)])
def test_null_variance_is_at_the_constrained_maximum_likelihood(b, c, d):
    n = 40

    def unlikely(falls):  # minus log-likelihood with rises = falls + d
        rises, same = falls + d, 1 - 2 * falls - d
        if min(rises, same) <= 0 or falls <= 0:
            return 1e9
        return -(b * math.log(rises) + c * math.log(falls) + (n - b - c) * math.log(same))

    falls = minimize_scalar(unlikely, bounds=(max(0, -d), (1 - d) / 2), method="bounded", options={"xatol": 1e-10}).x
    assert null_variance(b / n, c / n, d) == pytest.approx(2 * falls + d - d * d, abs=1e-4)


def test_score_is_zero_at_what_was_seen():
    assert score(8, 3, 50, 0.1) == pytest.approx(0)
    assert score(8, 3, 50, 0.0) == pytest.approx(5 / 11**0.5)  # McNemar's z


def test_identical_runs_are_within_any_margin_given_enough_pairs():
    assert below_margin(pairs(0, 0, 200), 0.05) < 0.05
    assert below_margin(pairs(0, 0, 20), 0.05) > 0.05  # too few to say so


def test_copies_of_one_attempt_tell_nothing_new():
    once = pairs(6, 3, 41)
    thrice = Pairs(tuple(g * 3 for g in once.groups))
    assert thrice.value == once.value
    assert thrice.effective_size() == pytest.approx(50, rel=0.03)
    assert sign_flip(thrice) == pytest.approx(sign_flip(once))
    low, high = once.interval()
    assert thrice.interval() == pytest.approx((low, high), abs=0.001)


def test_false_alarms_and_misses_stay_within_their_level():
    rng, alarms, passes = random.Random(0), 0, 0
    for _ in range(200):  # 20% of 100 behaviors change their mind either way; then a true rise of 10 points
        alarms += sign_flip(pairs(*flips(rng, 0.1, 0.1))) <= 0.05
        passes += below_margin(pairs(*flips(rng, 0.15, 0.05)), 0.10) <= 0.05
    assert alarms / 200 < 0.08
    assert passes / 200 < 0.08


def flips(rng, up, down, n=100):
    kinds = rng.choices("ud=", weights=[up, down, 1 - up - down], k=n)
    return kinds.count("u"), kinds.count("d"), kinds.count("=")


def test_holm_agrees_with_statsmodels():
    ps = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])
    assert holm([]) == []


def test_pairs_for_rise_reaches_its_power_and_one_pair_fewer_does_not():
    n = pairs_for_rise(0.1, 0.2)
    assert power_rise(n, 0.1, 0.2, 0.05) >= 0.8
    assert power_rise(n - 1, 0.1, 0.2, 0.05) < 0.8
    assert 90 <= n <= 140  # (1.645 sqrt(.2) + .842 sqrt(.19))^2 / .01 = 121 without exactness


def test_pairs_for_margin_by_hand():
    # No discordant pairs: z^2 (1 - m) / m = 2.7055 * .95 / .05 = 51.4
    assert pairs_for_margin(0.05, 0.0) == 52
    with pytest.raises(ValueError, match="below the margin"):
        pairs_for_margin(0.05, 0.2, difference=0.05)
