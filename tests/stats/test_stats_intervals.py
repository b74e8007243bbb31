"""Intervals: against statsmodels and scipy, against hand-worked values, and by how often they hold the truth."""

import math

import pytest
from scipy.stats import binom, t
from statsmodels.stats.proportion import proportion_confint

from harness.stats.intervals import clustered, effective_size, exact, mean, mid_p, rate, wilson

CASES = [(0, 20), (1, 50), (7, 50), (25, 50), (50, 50), (3, 1000)]


@pytest.mark.parametrize(("k", "n"), CASES)
@pytest.mark.parametrize(("ours", "theirs"), [(wilson, "wilson"), (exact, "beta")])
def test_agrees_with_statsmodels(ours, theirs, k, n):
    assert ours(k, n) == pytest.approx(proportion_confint(k, n, method=theirs), abs=1e-9)
    assert ours(k, n, 0.9) == pytest.approx(proportion_confint(k, n, alpha=0.1, method=theirs), abs=1e-9)


def test_wilson_by_hand():
    # k=5, n=10, z=1.96: centre .5, half = 1.96/13.8416 * sqrt(10*.25 + .9604) = .2634
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-3)


@pytest.mark.parametrize(("k", "n"), CASES)
def test_mid_p_limits_leave_half_a_tail(k, n):
    low, high = mid_p(k, n)
    if k:
        assert binom.sf(k, n, low) + binom.pmf(k, n, low) / 2 == pytest.approx(0.025)
    if k < n:
        assert binom.cdf(k - 1, n, high) + binom.pmf(k, n, high) / 2 == pytest.approx(0.025)


@pytest.mark.parametrize("interval", [wilson, exact, mid_p, rate])
def test_no_and_all_successes_touch_the_end_and_stay_open_at_the_other(interval):
    low, high = interval(0, 50)
    assert low == 0.0
    assert 0.03 < high < 0.1
    assert interval(50, 50) == pytest.approx((1 - high, 1.0))


@pytest.mark.parametrize("interval", [wilson, exact, mid_p, rate])
@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0), (math.nan, 5)])
def test_impossible_counts_are_refused(interval, k, n):
    with pytest.raises(ValueError, match="0 <= k <= n"):
        interval(k, n)


@pytest.mark.parametrize("n", [20, 50])
def test_rate_covers_every_truth_where_wilson_alone_does_not(n):
    def worst(interval):
        ends = [interval(k, n) for k in range(n + 1)]
        truths = [i / 200 for i in range(1, 101)]
        held = [[k for k, (a, b) in enumerate(ends) if a <= p <= b] for p in truths]
        return min(binom.pmf(ks, n, p).sum() for ks, p in zip(held, truths, strict=True))

    assert worst(rate) > 0.928
    assert worst(wilson) < 0.92


def test_one_attempt_each_is_the_plain_rate():
    assert clustered([[1.0]] * 3 + [[0.0]] * 47) == rate(3, 50)


def test_attempts_that_always_agree_count_once_per_behavior():
    # 30 behaviors, 10 like attempts each, 9 comply: design effect 10 * 30/29, so about 29 draws, not 300.
    alike = [[1.0] * 10] * 9 + [[0.0] * 10] * 21
    # (9 * 10.345 + 10) / 10 = 10.310; 300 / 10.310 = 29.1
    assert effective_size(alike) == pytest.approx(29.1, abs=0.05)


def test_attempts_that_share_nothing_count_nearly_each():
    # Every behavior complies in 1 of 2: no spread between behaviors at all, so the two draws each count.
    assert effective_size([[1.0, 0.0]] * 40) == 40  # no spread to estimate from: one each
    mixed = [[1.0, 0.0]] * 20 + [[1.0, 1.0]] * 10 + [[0.0, 0.0]] * 10
    # spread = 20 * 1, effect = 20 * 40/39 / 80 / .25 = 1.0256; (30 * 1.0256 + 2) / 31 = 1.0571; 80 / 1.0571
    assert effective_size(mixed) == pytest.approx(75.68, abs=0.01)


def test_all_alike_falls_back_to_the_number_of_behaviors():
    low, high = clustered([[0.0] * 5] * 50)
    assert low == 0.0
    assert rate(0, 50)[1] < high < 0.08


def test_graded_scores_are_narrower_than_yes_or_no():
    scores = [[0.4 + 0.005 * i] for i in range(40)]
    low, high = clustered(scores)
    assert low < 0.4975 < high
    assert high - low < 0.07  # a share of 50% in 40 draws would be 0.3 wide


def test_empty_clusters_do_not_count():
    assert clustered([[], [1.0], [0.0], []]) == clustered([[1.0], [0.0]])


@pytest.mark.parametrize("bad", [[], [[]], [[1.5]], [[math.nan]], [[-0.1]]])
def test_values_outside_the_scale_are_refused(bad):
    with pytest.raises(ValueError, match="between 0 and 1"):
        clustered(bad)


def test_weighted_values_may_pass_one_where_their_mean_does_not():
    # three in four weigh 1/3, one in four 3, and all are violations: 9 x 1/3 + 3 x 3 = 12 of 12
    assert clustered([[1 / 3]] * 9 + [[3.0]] * 3) == pytest.approx(clustered([[0.9, 1.1]] * 12))


def test_mean_without_skew_is_students():
    values = [1.0, 2.0, 3.0, 4.0, 5.0]  # mean 3, sd 1.5811, se .7071, t(4) = 2.7764
    assert mean([[v] for v in values]) == pytest.approx((3 - 2.7764 * 0.7071, 3 + 2.7764 * 0.7071), abs=1e-3)
    assert t.ppf(0.975, 4) == pytest.approx(2.7764, abs=1e-4)


def test_mean_of_a_long_right_tail_reaches_further_up():
    low, high = mean([[float(v)] for v in [1] * 20 + [30, 60]])
    value = (20 + 90) / 22
    assert high - value > value - low


def test_mean_needs_two_behaviors():
    assert mean([[1.0, 2.0]]) is None
    assert mean([[7.0], [7.0]]) == (7.0, 7.0)
