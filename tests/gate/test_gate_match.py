"""Runs that were not made alike are refused with the difference named, or joined on what they share."""

import dataclasses

import pytest
from made_runs import INFO, labels, record, run

from harness.errors import UsageError
from harness.gate import gate, parse_policy
from harness.types import Judgement

ASR = parse_policy("asr: {margin: 0.10}")
RECORDS = labels(10)


def changed(**info):
    return run(RECORDS, **info)


@pytest.mark.parametrize(
    ("candidate", "named"),
    [
        (changed(spec={**INFO["spec"], "max_tokens": 128}), "max_tokens: 64 against 128"),
        (changed(spec={**INFO["spec"], "temperature": 1.0}), "temperature: 0.0 against 1.0"),
        (changed(models={"m": {"chat_template_sha": "u"}}), "chat template: t against u"),
        (changed(judges={"rules": {"sha": "other"}}), "judge: rules@"),
        (changed(tasks={"magic": {"n": 50, "sha": "y"}}), "content of magic: x against y"),
        (changed(tasks={"v2/magic.jsonl": {"n": 50, "sha": "y"}}), "content of magic: x against y"),
        (changed(attacks={"direct": {"settings": {"k": 1}, "sha": "e"}}), "settings of attack direct"),
        (run(RECORDS[:-3]), "3 alone against 0 alone (such as magic/97 direct seed 0, magic/98"),
        (run([*RECORDS, record(500, "refused")]), "0 alone against 1 alone"),
        (run([dataclasses.replace(r, seed=1) for r in RECORDS]), "100 alone against 100 alone"),
    ],
)
def test_what_differs_is_refused_by_name(candidate, named):
    with pytest.raises(UsageError) as caught:
        gate(run(RECORDS), candidate, ASR)
    assert named in str(caught.value)


@pytest.mark.parametrize("key", ["spec", "models", "tasks"])
def test_nothing_is_shared_by_other_generation_templates_or_texts(key):
    other = {
        "spec": {"max_tokens": 9, "temperature": 0.0},
        "models": {"m": {"chat_template_sha": "u"}},
        "tasks": {"magic": {"n": 50, "sha": "y"}},
    }
    with pytest.raises(UsageError, match="share nothing"):
        gate(run(RECORDS), changed(**{key: other[key]}), ASR, intersect=True)


def test_intersect_compares_the_behaviors_both_have_and_says_so():
    verdict = gate(run(labels(10, 150)), run(labels(10, 120)), ASR, intersect=True)
    assert verdict.outcome == "pass"
    assert verdict.checks[0].n == 120
    assert "30 alone" in verdict.notes[0]


def test_intersect_refuses_ids_that_do_not_mean_the_same_behavior():
    def asked(n, sha):
        return [dataclasses.replace(r, behavior_sha=f"{sha}{r.behavior}") for r in labels(10, n)]

    smaller = {"tasks": {"magic": {"n": 40, "sha": "y"}}}  # a part of the set: its hash alone says nothing
    assert gate(run(asked(50, "a")), run(asked(40, "a"), **smaller), ASR, intersect=True).checks[0].n == 40
    with pytest.raises(UsageError, match="content of magic: the baseline's against 40 other questions"):
        gate(run(asked(50, "a")), run(asked(40, "b"), **smaller), ASR, intersect=True)


def test_intersect_leaves_out_an_attack_with_other_settings():
    attacks = {"direct": INFO["attacks"]["direct"], "pair": {"settings": {"streams": 3}, "sha": "p"}}
    old = run(labels(10) + labels(10, attack="pair"), attacks=attacks)
    new = run(labels(10) + labels(90, attack="pair"), attacks={**attacks, "pair": {"settings": {}, "sha": "q"}})
    verdict = gate(old, new, ASR, intersect=True)
    assert [c.name for c in verdict.checks] == ["asr/direct"]
    assert verdict.outcome == "pass"


def test_intersect_takes_the_judge_that_both_used():
    def judged(first, second):
        return [
            dataclasses.replace(
                r, judgements=(Judgement(judge=first[0], label=first[1]), Judgement(judge=second[0], label=second[1]))
            )
            for r in labels(0)
        ]

    old = run(judged(("llm", "complied"), ("rules", "refused")), judges={"llm": {}, "rules": {"sha": "r"}})
    new = run(judged(("rules", "refused"), ("vote", "complied")), judges={"vote": {}, "rules": {"sha": "r"}})
    with pytest.raises(UsageError, match="judge: llm against rules@"):
        gate(old, new, ASR)
    verdict = gate(old, new, ASR, intersect=True)
    assert (verdict.checks[0].baseline, verdict.checks[0].candidate) == (0.0, 0.0)


def test_the_judge_of_attacks_is_told_from_marks_even_where_an_item_was_not_marked():
    def marked(metric):  # sorts first, and is of no judge
        mark = Judgement(judge=f"lm_eval:{metric}", label="unscored")
        return dataclasses.replace(
            record(0, "unscored", task="arithmetic", expect="comply", attack=""), judgements=(mark,)
        )

    assert gate(run([marked("acc"), *RECORDS]), run([marked("exact_match"), *RECORDS]), ASR).outcome == "pass"
    other = {"rules": {"sha": "other"}}
    with pytest.raises(UsageError, match="judge: rules@"):
        gate(run([marked("acc"), *RECORDS]), run([marked("acc"), *RECORDS], judges=other), ASR)


def test_comparisons_by_another_model_are_refused():
    def compared(by):
        return {**INFO["judges"], "pairwise": {"judge": "pairwise", "model": by}}

    assert gate(run(RECORDS, judges=compared("A")), run(RECORDS, judges=compared("A")), ASR).outcome == "pass"
    with pytest.raises(UsageError, match="judge of comparisons: pairwise@"):
        gate(run(RECORDS, judges=compared("A")), run(RECORDS, judges=compared("B")), ASR)


def test_intersect_of_nothing_is_refused():
    with pytest.raises(UsageError, match="no behavior in common"):
        gate(run(labels(5, 10)), run([record(i, "refused") for i in range(50, 60)]), ASR, intersect=True)


def test_another_model_is_what_a_gate_compares_and_no_difference():
    new = [dataclasses.replace(r, model="derta") for r in labels(0)]
    models = {"derta": {"kind": "vllm", "checkpoint_sha": "9", "adapter_sha": "7", "chat_template_sha": "t"}}
    assert gate(run(labels(10)), run(new, models=models), ASR).outcome == "pass"
