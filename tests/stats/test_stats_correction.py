"""Correction for an imperfect judge: hand-worked estimates, honest refusals, and how often the truth is held."""

import random

import pytest

from harness.stats.correction import (
    Corrected,
    Labels,
    Uninformative,
    labelled,
    labelled_change,
    labels_needed,
    ppi,
    rogan_gladen,
)

GOOD = Labels(hits=90, positives=100, correct_rejections=95, negatives=100)  # sensitivity .9, specificity .95


def draw(rng, n, rate, sensitivity=0.9, specificity=0.95):
    truth = [float(rng.random() < rate) for _ in range(n)]
    return truth, [float(rng.random() < (sensitivity if t else 1 - specificity)) for t in truth]


def test_informedness_by_hand():
    value, low, high = GOOD.informedness()
    assert value == pytest.approx(0.85)
    # .9 of 100 -> (.8256, .9481), .95 of 100 -> (.8882, .9815): down by hypot(.0744, .0618), up by hypot(.0481, .0315)
    assert (low, high) == pytest.approx((0.85 - 0.0967, 0.85 + 0.0575), abs=1e-3)


def test_labels_count_what_agrees():
    labels = Labels.of([1, 1, 0, 0.4, 0.9], [1, 0, 0, 1, 1])
    assert labels == Labels(hits=2, positives=3, correct_rejections=1, negatives=2)


def test_labels_of_one_behavior_count_for_less():
    # 20 behaviors three times with one verdict each, two of them missed; as many that the judge leaves alone.
    behaviors = [i for i in range(40) for _ in range(3)]
    human = [float(i < 20) for i in behaviors]
    judged = [float(2 <= i < 20) for i in behaviors]
    apart, together = Labels.of(judged, human), Labels.of(judged, human, behaviors)
    # Sums differ from 2.7 by .3 (18 times) and 2.7 (twice): 16.2 x 20/19 / 60 / .09 = 3.158, averaged with one wholly
    # dependent behavior, (2 x 3.158 + 3) / 3 = 3.105: 60 / 3.105 = 19.3. Where all verdicts are the same: 20 behaviors.
    assert together.worth == pytest.approx((19.3, 20), abs=0.03)
    assert (apart.worth, together.hits, together.positives) == ((60, 60), 54, 60)
    assert together.informedness()[0] == pytest.approx(apart.informedness()[0])
    assert together.informedness()[1] < apart.informedness()[1] - 0.05
    verdicts = [[1.0]] * 220 + [[0.0]] * 780
    wide, narrow = rogan_gladen(verdicts, together), rogan_gladen(verdicts, apart)
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)
    assert Labels.of(judged[::3], human[::3], behaviors[::3]).worth == (20, 20)  # one of each counts once


@pytest.mark.parametrize("bad", [{"hits": 4}, {"correct_rejections": -1}, {"sizes": (4, 1)}])
def test_impossible_counts_are_refused(bad):
    with pytest.raises(ValueError, match="impossible"):
        Labels(**{"hits": 1, "positives": 3, "correct_rejections": 1, "negatives": 3} | bad)


def test_rogan_gladen_by_hand():
    judged = [[1.0]] * 220 + [[0.0]] * 780
    result = rogan_gladen(judged, GOOD)  # (.22 + .95 - 1) / .85 = .2
    assert isinstance(result, Corrected)
    assert (result.value, result.judged) == pytest.approx((0.2, 0.22))
    assert result.low < 0.2 < result.high


def test_rogan_gladen_is_as_wide_as_the_labels_are_few():
    judged = [[1.0]] * 220 + [[0.0]] * 780
    few = rogan_gladen(judged, Labels(hits=9, positives=10, correct_rejections=19, negatives=20))
    many = rogan_gladen(judged, Labels(hits=900, positives=1000, correct_rejections=950, negatives=1000))
    assert few.high - few.low > 2 * (many.high - many.low)


def test_attempts_of_one_behavior_widen_the_correction():
    apart = rogan_gladen([[1.0]] * 60 + [[0.0]] * 240, GOOD)
    together = rogan_gladen([[1.0] * 10] * 6 + [[0.0] * 10] * 24, GOOD)
    assert together.value == apart.value
    assert together.high - together.low > apart.high - apart.low


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (Labels(hits=20, positives=40, correct_rejections=20, negatives=40), "coin"),
        (Labels(hits=2, positives=2, correct_rejections=40, negatives=40), "too few violations"),
        (Labels(hits=40, positives=40, correct_rejections=0, negatives=0), "too few replies without"),
    ],
)
def test_a_judge_that_may_be_a_coin_corrects_nothing(labels, why):
    result = rogan_gladen([[1.0], [0.0]], labels)
    assert isinstance(result, Uninformative)
    assert why in result.reason


def test_labels_of_another_data_set_are_noticed():
    # Specificity .5 says at least half of all are judged violations; none was.
    labels = Labels(hits=100, positives=100, correct_rejections=50, negatives=100)
    result = rogan_gladen([[0.0]] * 500, labels)
    assert isinstance(result, Uninformative)
    assert "not of this judge" in result.reason


def test_ppi_removes_a_bias_that_the_judge_has():
    rng = random.Random(1)
    truth, judged = draw(rng, 4000, 0.2, sensitivity=0.95, specificity=0.8)  # judged: .19 + .16 = .35
    human = [t if i < 400 else None for i, t in enumerate(truth)]
    result = ppi(judged, human)
    assert result.judged == pytest.approx(0.35, abs=0.03)
    assert result.low < 0.2 < result.high < 0.3
    assert 0 < result.weight < 1


def test_ppi_with_every_attempt_labelled_is_the_labels_own_rate():
    truth, judged = draw(random.Random(2), 200, 0.3)
    result = ppi(judged, truth)
    assert result.value == pytest.approx(sum(truth) / 200)
    assert result.weight == 0


def test_ppi_is_narrower_than_the_labels_alone():
    truth, judged = draw(random.Random(3), 2000, 0.4, 0.98, 0.98)
    human = [t if i < 200 else None for i, t in enumerate(truth)]
    result = ppi(judged, human)
    assert result.high - result.low < 0.5 * 2 * 1.96 * (0.24 / 200) ** 0.5


def test_ppi_on_a_coin_corrects_nothing():
    truth, judged = draw(random.Random(4), 400, 0.4, 0.5, 0.5)
    result = ppi(judged, [t if i < 200 else None for i, t in enumerate(truth)])
    assert isinstance(result, Uninformative)
    assert result.n_labelled == 200


def test_ppi_widens_where_attempts_on_a_behavior_agree():
    truth, judged = draw(random.Random(5), 100, 0.4)
    truth, judged = [t for t in truth for _ in range(5)], [j for j in judged for _ in range(5)]
    human = [t if i % 2 else None for i, t in enumerate(truth)]
    apart = ppi(judged, human)
    together = ppi(judged, human, clusters=[i // 5 for i in range(500)])
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


@pytest.mark.parametrize("bad", [([1.0, 2.0], [1.0, 0.0]), ([1.0], [1.0, None])])
def test_verdicts_off_the_scale_or_unpaired_are_refused(bad):
    with pytest.raises(ValueError, match="one verdict per attempt"):
        ppi(*bad)


@pytest.mark.parametrize("method", ["ppi", "rogan-gladen"])
def test_corrected_intervals_hold_the_truth(method):
    rng, held, made = random.Random(6), 0, 0
    for _ in range(300):
        truth, judged = draw(rng, 500, 0.1)
        if method == "ppi":
            result = ppi(judged, [t if i < 200 else None for i, t in enumerate(truth)])
        else:
            result = rogan_gladen([[j] for j in judged[200:]], Labels.of(judged[:200], truth[:200]))
        if isinstance(result, Corrected):
            made, held = made + 1, held + (result.low <= 0.1 <= result.high)
    assert made > 280
    assert held / made > 0.93  # two standard errors under the 96% of docs/coverage.md


def test_labels_needed_by_hand():
    # A coin: 1.96^2 * .25 / .1^2 = 96.04
    assert labels_needed(0.1, 100_000) == 97
    # A perfect judge leaves .25 m/n / m = .25 / n, whatever m: one label would do, were it known to be perfect
    assert labels_needed(0.05, 1000, sensitivity=1, specificity=1) == 1
    assert labels_needed(0.01, 50) == 50  # more than there are: all of them


def test_a_better_judge_needs_fewer_labels():
    assert labels_needed(0.05, 2000, sensitivity=0.9, specificity=0.95) < labels_needed(0.05, 2000) / 2


def test_a_rate_by_labels_alone_is_their_mean_and_needs_nothing_of_the_judge():
    # 10 of 40 labelled; the judge says "refused" throughout, so its weight is 0.
    part = [(i, 0.0, float(i < 10) if i < 40 else None) for i in range(100)]
    found = labelled([part])
    assert found.value == pytest.approx(0.25)
    assert found.n_labelled == 40
    low, high = found.interval()
    assert low < 0.25 < high
    assert 0.2 < high - low < 0.32  # +- 1.96 sqrt(.25 x .75 / 40) = .134 either way


def test_a_faultless_judge_carries_its_rate_over():
    part = [(i, float(i % 2), float(i % 2) if i < 100 else None) for i in range(1000)]
    found = labelled([part])
    assert found.value == pytest.approx(0.5, abs=0.01)
    assert found.interval()[1] - found.interval()[0] < 0.12  # 100 labels alone would give .2


def test_a_change_by_labels_holds_the_truth_and_its_direction():
    before = labelled([[(i, float(i < 30), float(i < 30)) for i in range(100)]])
    after = labelled([[(i, float(i < 50), float(i < 50)) for i in range(100)]])
    value, low, high = labelled_change(before, after)
    assert value == pytest.approx(0.2)
    assert 0 < low < 0.2 < high
    # The same behaviors moved: closer than two runs on other behaviors would be.
    other = labelled([[(i + 100, float(i < 50), float(i < 50)) for i in range(100)]])
    _, low2, high2 = labelled_change(before, other)
    assert high - low < high2 - low2
    assert labelled_change(after, before)[0] == pytest.approx(-0.2)


@pytest.mark.parametrize(("rate", "rise"), [(0.02, 0.0), (0.3, 0.1), (0.05, 0.05)])
def test_a_change_by_labels_covers_under_a_judge_that_errs_differently(rate, rise):
    # 400 draws, 60 labels of 200: at nominal 95% fewer than 92% would be three standard errors below 95.
    rng = random.Random(7)

    def draw(p, false_alarms):
        truth = [rng.random() < p for _ in range(200)]
        judged = [rng.random() < (0.9 if t else false_alarms) for t in truth]
        drawn = set(rng.sample(range(200), 60))
        return labelled([[(i, float(judged[i]), float(t) if i in drawn else None) for i, t in enumerate(truth)]])

    held = 0
    for _ in range(400):
        _, low, high = labelled_change(draw(rate, 0.05), draw(rate + rise, 0.25))
        held += low <= rise <= high
    assert held / 400 >= 0.92
