"""Settings: one definition, typed, with a suggestion for what is misspelt."""

from pathlib import Path

import pytest

from harness.config import RunSpec, make_spec, read_yaml
from harness.errors import UnknownName, UsageError
from harness.models.checkpoints import checkpoints
from harness.types import Sampling


def test_text_from_the_command_line_and_yaml_values_give_the_same_spec(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model: smollm2-135m\nattacks: [direct, prefill]\nmax-tokens: 64\ntrust_remote_code: true\n")
    typed = {"model": "smollm2-135m", "attacks": "direct,prefill", "max_tokens": "64", "trust_remote_code": True}
    assert make_spec(read_yaml(path)) == make_spec(typed)


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match="did you mean 'max_tokens'"):
        make_spec({"model": "m", "max_token": 3})


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "no model"),
        ({"model": "m", "limit": "few"}, "is not a whole number"),
        ({"model": "m", "limit": -1}, "at least 0"),
        ({"model": "m", "seeds": 0}, "at least 1"),
        ({"model": "m", "split": "tset"}, "did you mean 'test'"),
        ({"model": "m", "profile": "dmo"}, "did you mean 'demo'"),
        ({"model": "m", "judge": "none"}, "no judge"),
        ({"model": "m", "chat_template": "/nowhere"}, "No such file"),
        ({"model": "m", "attacks": 5}, "--attacks: 5 is no list"),
        ({"model": "m", "attacks": ["direct", {"prefill": 1}]}, "--attacks: .* is not text"),
        ({"model": ["m"]}, "--model: .* is not text"),
        ({"model": "m", "judge_model": False}, "--judge-model: False is not text"),
        ({"model": "m", "limit": 2.7}, "--limit: 2.7 is not a whole number"),
        ({"model": "m", "limit": True}, "--limit: True is not a whole number"),
        ({"model": "m", "temperature": "nan"}, "--temperature: 'nan' is not a number"),
        ({"model": "m", "timeout": float("inf")}, "--timeout: inf is not a number"),
        ({"model": "m", "shard": "²/3"}, "not of the form i/n"),
        ({"model": "m", "subset": "direct=²"}, "not of the form attack=number"),
        ({"model": "m", "judge_base_url": "http://x/v1"}, "judge-base-url without --judge-model"),
        ({"model": "m", "attacker_base_url": "http://x/v1"}, "attacker-base-url without --attacker"),
        ({"model": "m", "reference_base_url": "http://x/v1"}, "reference-base-url without --reference"),
        ({"model": "m", "trust_remote_code": "perhaps"}, "neither true nor false"),
    ],
)
def test_a_value_that_does_not_fit_is_said(given: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        make_spec(given).target_options()


def test_what_is_given_wins_over_the_profile() -> None:
    spec = make_spec({"model": "m", "profile": "demo", "max_tokens": 7})
    assert (spec.max_tokens, spec.limit) == (7, 12)


def test_a_key_without_a_value_is_not_given(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model: m\nadapter:\nattacks:\njudge_model:\nlimit:\nprofile:\n")
    assert make_spec(read_yaml(path)) == RunSpec(model="m")


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("model: caf\xe9\n".encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin\.yaml is not UTF-8"):
        read_yaml(path)
    for setting in ("chat_template", "checkpoints"):
        spec = make_spec({"model": "m", setting: str(path)})
        assert spec.identity()
        with pytest.raises(UsageError, match=r"latin\.yaml is not UTF-8"):
            checkpoints(spec.target_options().checkpoints)


def test_none_empties_a_list() -> None:
    assert make_spec({"model": "m", "tasks": "none"}).tasks == ()


def test_identity_changes_with_what_decides_records_and_with_nothing_else() -> None:
    base = make_spec({"model": "m"})
    assert base.identity() != make_spec({"model": "m", "seed": 1}).identity()
    assert base.identity() == make_spec({"model": "m", "concurrency": 3}).identity()


def test_a_template_or_rows_in_a_file_count_by_what_they_hold(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jinja", tmp_path / "two.jinja"
    one.write_text("a")
    two.write_text("a")
    for setting in ("chat_template", "checkpoints"):
        same = [make_spec({"model": "m", setting: str(path)}).identity() for path in (one, two)]
        assert same[0] == same[1]
    two.write_text("b")
    assert make_spec({"model": "m", "chat_template": str(two)}).identity() != same[0]


def test_settings_of_a_plugin_are_found_by_its_name() -> None:
    spec = make_spec({"model": "m", "set": ["prefill.depths=0,20", "code.families=x"]})
    assert spec.options_of("prefill") == {"depths": "0,20"}
    text = make_spec({"model": "m", "set": "prefill.depths=0,20, code.families=x,y"})
    assert text.settings() == {"prefill": {"depths": "0,20"}, "code": {"families": "x,y"}}
    assert make_spec({"model": "m", "set": ""}).set == ()
    with pytest.raises(UsageError, match=r"plugin\.setting=value"):
        make_spec({"model": "m", "set": ["depths=3"]}).options_of("prefill")


def test_sampling_defaults_are_the_papers() -> None:
    assert Sampling() == Sampling(max_tokens=1024, temperature=0.0, top_p=1.0)
    assert RunSpec(model="m").sampling(3).seed == 3


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"bad\.yaml"):
        read_yaml(path)


@pytest.mark.parametrize("name", ["max_cost", "temperature", "timeout"])
def test_nan_is_no_number(name: str) -> None:
    with pytest.raises(UsageError, match="'nan' is not a number"):
        make_spec({"model": "scripted:refuse", name: "nan"})


def test_settings_of_attacks_and_judges_are_kept_as_they_were_given() -> None:
    """They may be JSON, which would no longer be any without what looks like a URL's query."""
    text = 'adaptive_prefill.openings=["see http://u:p@h/?q=1", "Sure:"]'
    spec = make_spec({"model": "m", "set": [text], "base_url": "http://u:p@h/v1?k=1"})
    assert spec.shown().set == (text,)
    assert spec.shown().base_url == "http://h/v1"
    assert spec.identity() != make_spec({"model": "m", "set": [text.replace("q=1", "q=2")]}).identity()
