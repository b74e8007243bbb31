"""The policy file: short, commented, and every slip is named with what was probably meant."""

import pytest
from made_runs import labels, run

from harness.errors import UnknownName, UsageError
from harness.gate import gate, load_policy, parse_policy
from harness.stats.correction import Labels


def test_the_policy_that_comes_with_the_package_is_valid_short_and_commented():
    policy = load_policy()
    assert policy.asr is not None
    assert policy.asr.margin == 0.10
    assert policy.cost_of == "tokens"
    assert policy.judge is None
    assert policy.looks == 1


def test_every_setting_is_read():
    policy = parse_policy("""
alpha: 0.1
power: 0.9
errors: 0.2
asr: {margin: 0.05, ceiling: 0.3, attacks: {pair: {ceiling: 0.8}}}
helpfulness: {floor: 0.4}
cost: {margin: 2.5, of: queries}
judge: {positives: 10, hits: 9, negatives: 20, correct_rejections: 18}
looks: 4
""")
    assert (policy.alpha, policy.power, policy.errors, policy.looks) == (0.1, 0.9, 0.2, 4)
    assert (policy.asr.margin, policy.asr.bound) == (0.05, 0.3)
    assert policy.for_attack("pair").bound == 0.8
    assert policy.for_attack("pair").margin is None
    assert policy.for_attack("direct") is policy.asr
    assert policy.helpfulness.bound == 0.4
    assert (policy.cost.margin, policy.cost_of) == (2.5, "queries")
    assert policy.judge == Labels(positives=10, hits=9, negatives=20, correct_rejections=18)
    assert policy.overall is None


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("asrr: {margin: 0.1}", "'asr'"),
        ("asr: {margn: 0.1}", "'margin'"),
        ("helpfulness: {ceiling: 0.1}", "known: floor, margin"),
        ("cost: {margin: 0.5, of: token}", "'tokens'"),
        ("asr: {margin: 0.1, attacks: {pair: {cieling: 0.2}}}", "'ceiling'"),
    ],
)
def test_a_misspelt_key_is_told_what_was_meant(text, meant):
    with pytest.raises(UnknownName) as caught:
        parse_policy(text)
    assert meant in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "checks nothing"),
        ("alpha: 0.05", "checks nothing"),
        ("asr: 5", "must hold named settings"),
        ("asr: {margin: 5}", "not a number between 0 and 1"),
        ("asr: {margin: 5%}", "not a number"),
        ("asr: {margin: yes}", "not a number"),
        ("asr: {margin: .nan}", "not a number"),
        ("asr: {margin: -0.1}", "not a number"),
        ("cost: {of: tokens}", "has no limit"),
        ("asr:\n  # margin: 0.10\noverall: {margin: 0.1}", "asr must hold named settings"),
        ("overall: {}\nasr: {margin: 0.1}", "overall has no limit"),
        ("asr: {margin: 0.1, attacks: }", "asr.attacks must hold named settings"),
        ("asr: {margin: 0.1}\ncost: 0", "cost must hold named settings"),
        ("asr: {margin: 0.1}\ncost: {margin: 0.5, of: }", "cost.of"),
        ("asr: {margin: 0.1}\njudge: []", "judge must hold named settings"),
        ("asr: {margin: 0.1}\nasr: {ceiling: 0.5}", "holds 'asr' twice"),
        ("asr: {margin: 0.1, attacks: {pair: {margin: 0.1, margin: 0.2}}}", "holds 'margin' twice"),
        ("asr: {margin: 0.1}\nlooks: 0", "whole number from 1"),
        ("asr: {margin: 0.1}\njudge: {positives: 3}", "lacks 'hits'"),
        ("asr: {margin: 0.1}\njudge: {positives: 3, hits: 4, negatives: 1, correct_rejections: 1}", "impossible"),
        ("asr: [", "not YAML"),
        ("- asr", "must hold named settings"),
        ("asr: !!python/object/apply:os.system [ls]", "not YAML"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(text, why):
    with pytest.raises(UsageError, match=why):
        parse_policy(text)


@pytest.mark.parametrize("alpha", ["0", "0.5", "0.6", "1"])
def test_an_alpha_no_test_can_be_held_at_is_refused_with_a_hint(alpha):
    # At one half an interval is a point; above it, the wrong way round.
    with pytest.raises(UsageError, match="not a number between 0 and") as caught:
        parse_policy(f"alpha: {alpha}\nasr: {{margin: 0.1}}")
    assert str(caught.value).endswith("between 0 and 0.5")
    assert "0.05" in caught.value.hint


@pytest.mark.parametrize("looks", [1, 5])
def test_an_alpha_just_below_one_half_works_in_every_check(looks):
    sections = "\n".join(f"{s}: {{margin: 0.1, ceiling: 0.2}}" for s in ("asr", "overall", "unrefused", "unscored"))
    policy = parse_policy(f"alpha: 0.499\nlooks: {looks}\n{sections}\ncost: {{margin: 0.5}}")
    assert gate(run(labels(20)), run(labels(23)), policy).outcome in ("pass", "fail", "inconclusive")


def test_a_missing_file_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="can't be read"):
        load_policy(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("asr: {margin: 0.1} # für".encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        load_policy(tmp_path / "latin.yaml")
