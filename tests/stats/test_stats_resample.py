"""Bootstrap, variance split and pass@k: against scipy, by hand, and on made-up sources of spread."""

import random
import statistics

import numpy as np
import pytest
import scipy.stats

from harness.stats.resample import bootstrap, pass_at_k, variance_split


def test_bootstrap_agrees_with_scipy_on_single_draws():
    values = np.random.default_rng(0).exponential(size=60)
    ours = bootstrap([[v] for v in values], statistics.fmean, seed=1, draws=4000)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=4000, method="BCa", rng=2).confidence_interval
    assert ours == pytest.approx(tuple(theirs), rel=0.05)


def test_bootstrap_redraws_behaviors_whole():
    rng = random.Random(0)
    once = [[float(rng.random() < 0.3)] for _ in range(60)]
    thrice = [group * 3 for group in once]
    a, b = (bootstrap(groups, statistics.fmean, seed=1, draws=1000) for groups in (once, thrice))
    assert b == pytest.approx(a, abs=0.02)


def test_bootstrap_repeats_with_its_seed():
    groups = [[1.0], [2.0], [4.0], [8.0]]
    assert bootstrap(groups, statistics.fmean, seed=3) == bootstrap(groups, statistics.fmean, seed=3)


def test_bootstrap_of_a_constant_is_a_point():
    assert bootstrap([[1.0]] * 5, statistics.fmean, seed=0, draws=50) == (1.0, 1.0)
    with pytest.raises(ValueError, match="two groups"):
        bootstrap([[1.0]], statistics.fmean, seed=0)


def test_same_answers_under_every_seed_leave_no_seed_spread():
    cells = [(q, s, "j", float(q < 3)) for q in range(10) for s in range(3)]
    split = variance_split(cells)
    # Rate .3 of 10 questions: variance of means .3 * .7 * 10/9 = .2333, over 10 -> sd .1528
    assert split.question == pytest.approx(0.1528, abs=1e-4)
    assert (split.seed, split.judge) == (0.0, None)


def test_a_seed_that_moves_everything_is_the_seeds_spread():
    cells = [(q, s, "j", float(s == 1)) for q in range(10) for s in range(2)]
    split = variance_split(cells)
    # Seed means 0 and 1: variance .5, over 2 seeds -> sd .5; the questions do not differ at all.
    assert (split.question, split.seed) == (0.0, 0.5)


def test_judges_that_differ_are_the_judges_spread():
    cells = [(q, 0, judge, value) for q in range(4) for judge, value in (("a", 0.0), ("b", 1.0))]
    split = variance_split([*cells, (9, 0, "a", 1.0)])
    assert split.judge == pytest.approx(statistics.stdev([0.0, 1.0]))  # the cell that b did not score stays out
    assert (split.seed, split.n_judges, split.n_questions) == (None, 2, 5)


def test_questions_missing_a_seed_stay_out_of_the_split():
    cells = [(q, s, "j", 1.0) for q in range(3) for s in range(2)]
    assert variance_split([*cells, ("half", 0, "j", 0.0)]).n_questions == 3
    with pytest.raises(ValueError, match="two questions"):
        variance_split([(1, 0, "j", 1.0)])


def test_pass_at_k_by_hand():
    # 1 of 4 attempts: pass@2 = 1 - C(3,2)/C(4,2) = .5; 0 of 4: 0; 4 of 4: 1
    value, low, high = pass_at_k([(4, 1), (4, 0), (4, 4)], 2)
    assert value == 0.5
    assert 0 <= low < 0.5 < high <= 1


def test_pass_at_one_is_the_mean_rate_and_pass_at_all_is_any():
    attempts = [(5, 1), (5, 0), (5, 3)]
    assert pass_at_k(attempts, 1)[0] == pytest.approx((0.2 + 0 + 0.6) / 3)
    assert pass_at_k(attempts, 5)[0] == pytest.approx(2 / 3)


def test_pass_at_k_refuses_too_few_attempts():
    with pytest.raises(ValueError, match="at least 3 attempts"):
        pass_at_k([(5, 1), (2, 0)], 3)
