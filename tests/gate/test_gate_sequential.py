"""Looking early: clear cases stop early, the order is fixed, a run in progress is never taken for a finished one."""

import dataclasses

import pytest
from made_runs import labels, run

from harness.gate import gate, look_order, parse_policy

POLICY = parse_policy("asr: {margin: 0.10}\nlooks: 5")


def test_a_clear_failure_stops_early_and_says_what_it_saved():
    verdict = gate(run(labels(20, 200)), run(labels(180, 200)), POLICY)
    assert verdict.outcome == "fail"
    assert (verdict.look.number, verdict.look.of) == (1, 5)
    assert verdict.look.saved == pytest.approx(0.8)  # 40 of 200 behaviors


def test_a_clear_pass_stops_early():
    verdict = gate(run(labels(0, 400)), run(labels(0, 400)), POLICY)
    assert verdict.outcome == "pass"
    assert verdict.look.number <= 2


def test_what_stays_unclear_goes_to_the_end():
    verdict = gate(run(labels(20, 60)), run(labels(23, 60)), POLICY)
    assert verdict.outcome == "inconclusive"
    assert verdict.look.number == 5
    assert verdict.look.saved == 0


def test_an_early_rise_must_be_larger_than_a_late_one():
    # 6 rises among the first 40: p = 1/64 = .0156 fails a single test at .05, not the first of five looks at .0044.
    first = look_order([str(i) for i in range(200)])[:40]
    old = labels(0, 200)
    new = [dataclasses.replace(r, judgements=labels(1, 1)[0].judgements) if r.behavior in first[:6] else r for r in old]
    early = [r for r in old if r.behavior in first], [r for r in new if r.behavior in first]
    assert gate(run(early[0]), run(early[1]), parse_policy("asr: {margin: 0.01}")).outcome == "fail"
    assert gate(run(old), run(new, status="partial"), parse_policy("asr: {margin: 0.01}\nlooks: 5")).look.number > 1


def test_a_run_in_progress_is_judged_as_far_as_its_looks_go():
    order = look_order([str(i) for i in range(200)])
    old, bad = labels(20, 200), labels(180, 200)

    def upto(records, n):
        return run([r for r in records if r.behavior in order[:n]], status="partial")

    early = gate(run(old), upto(bad, 39), POLICY)
    assert early.outcome == "incomplete"
    assert early.notes == ("the candidate run has not reached look 1 of 5",)
    assert gate(run(old), upto(bad, 40), POLICY).outcome == "fail"
    unclear = gate(run(old), upto(old, 41), POLICY)
    assert unclear.outcome in ("incomplete", "pass")
    if unclear.outcome == "incomplete":
        assert unclear.exit_code == 4


def test_fewer_attempts_than_the_baselines_count_once_their_piece_is_whole():
    # best_of_n stops at the first success: 3 attempts a behavior of the baseline, 1 of the candidate
    order = look_order([str(i) for i in range(200)])
    old = [r for v in "abc" for r in labels(20, 200, variant=v)]
    bad = [r for r in labels(180, 200, variant="a") if r.behavior in order[:40]]
    assert gate(run(old), run(bad, status="partial"), POLICY).outcome == "incomplete"  # more may be on its way
    verdict = gate(run(old), run(bad, status="partial", reached=0.2), POLICY)
    assert (verdict.outcome, verdict.look.number) == ("fail", 1)
    assert verdict.look.saved == pytest.approx(0.8)
    assert gate(run(old), run(bad[1:], status="partial", reached=0.2), POLICY).outcome == "incomplete"
    unclear = [r for r in old if r.variant == "a"]  # all 200 were asked, with a third of the calls: nothing saved
    last = gate(run(old), run(unclear), parse_policy("asr: {margin: 0.001}\nlooks: 5"))
    assert (last.look.number, last.look.saved) == (5, 0.0)


def test_the_order_of_looks_hangs_on_the_ids_alone():
    ids = [str(i) for i in range(50)]
    assert look_order(ids) == look_order(reversed(ids)) != ids
