"""The gate on folders: outputs written, GitHub's files fed, baselines kept without a word of any model."""

import json
import sys
from dataclasses import asdict

import pytest
from made_runs import INFO, labels

from harness import cli
from harness.errors import DataError, UsageError
from harness.gate import compare, run_gate, set_baseline, show_baseline


def folder(path, records, **info):
    path.mkdir()
    (path / "run.json").write_text(json.dumps({**INFO, "finished": "2026-01-02T03:04:05+00:00", **info}))
    (path / "records.jsonl").write_text("".join(json.dumps(asdict(r)) + "\n" for r in records))
    (path / "metrics.json").write_text("[]")
    (path / "transcripts.jsonl").write_text('{"text": "secret"}\n')
    return path


@pytest.fixture
def pair(tmp_path):
    return folder(tmp_path / "old", labels(10)), folder(tmp_path / "new", labels(60))


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "gate.yaml"
    path.write_text("asr: {margin: 0.10}\n")
    return path


def test_every_output_is_written_and_the_exit_code_told(pair, policy, tmp_path):
    verdict, printed = run_gate(*pair, policy, out=tmp_path / "out", environment={})
    assert verdict.exit_code == 1
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"gate.json", "gate.md", "gate.junit.xml", "gate.sarif", "gate.svg"}
    assert printed.startswith("gate fail")
    assert "2026-01-02T03:04:05" in (tmp_path / "out" / "gate.junit.xml").read_text()


def test_github_gets_its_summary_and_annotations(pair, policy, tmp_path):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    _, printed = run_gate(*pair, policy, environment=environment)
    assert summary.read_text().startswith("before\n### Safety gate: fail")
    assert "::error title=asr/direct::" in printed


def test_a_step_summary_that_can_not_be_written_is_said_and_the_verdict_stands(pair, policy, tmp_path):
    verdict, printed = run_gate(*pair, policy, environment={"GITHUB_STEP_SUMMARY": str(tmp_path)})
    assert verdict.exit_code == 1
    assert printed.endswith(f"the step summary can't be written: {tmp_path}: Is a directory")


def test_no_output_holds_a_word_of_a_transcript(pair, policy, tmp_path):
    run_gate(*pair, policy, out=tmp_path / "out", environment={})
    assert all("secret" not in p.read_text() for p in (tmp_path / "out").iterdir())


def test_a_run_against_itself_passes_and_is_named_as_such(pair, policy, tmp_path):
    verdict, printed = run_gate(pair[0], pair[0], policy, out=tmp_path / "out", environment={})
    assert verdict.outcome == "pass"
    assert "the same run" in printed


def test_another_version_of_harness_is_noted(pair, policy, tmp_path):
    newer = folder(tmp_path / "newer", labels(10), harness="9.9")
    _, printed = run_gate(folder(tmp_path / "older", labels(10), harness="0.1"), newer, policy, environment={})
    assert "different versions of harness: 0.1 and 9.9" in printed


def test_a_baseline_is_kept_without_transcripts_and_gated_against(pair, policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = set_baseline(pair[0])
    assert sorted(p.name for p in home.iterdir()) == ["baseline.json", "metrics.json", "records.jsonl", "run.json"]
    assert "100 records" in show_baseline()
    assert run_gate(None, pair[0], policy, environment={})[0].outcome == "pass"
    assert run_gate(None, pair[1], policy, environment={})[0].outcome == "fail"


def test_an_unfinished_run_can_not_become_the_baseline(tmp_path):
    with pytest.raises(DataError, match="not finished"):
        set_baseline(folder(tmp_path / "half", labels(1, 3), status="partial"), tmp_path / "home")
    with pytest.raises(DataError, match="no baseline"):
        show_baseline(tmp_path / "home")


def test_folders_that_are_no_runs_are_refused(pair, policy, tmp_path):
    with pytest.raises(DataError, match="not a run folder"):
        run_gate(tmp_path, pair[1], policy)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't be written"):
        run_gate(*pair, policy, out=tmp_path / "file", environment={})


def test_compare_shows_what_two_runs_share(pair, tmp_path):
    third = folder(tmp_path / "third", labels(20, 80), status="partial")
    assert "| `asr/direct` | 0.100 | 0.600 | 0.500 |" in compare(*pair)
    text = compare(pair[0], third)
    assert "| `asr/direct` | 0.125 | 0.250 | 0.125 |" in text  # of the 80 both have: 10 and 20
    assert "20 alone" in text


def exit_code(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["harness", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    return done.value.code


def test_the_command_exits_as_documented(pair, policy, tmp_path, monkeypatch, capsys):
    old, bad = pair
    small = folder(tmp_path / "a", labels(4, 20)), folder(tmp_path / "b", labels(5, 20))
    half = folder(tmp_path / "half", labels(10), status="partial")

    def gate(baseline, candidate, *more):
        return exit_code(
            monkeypatch, "gate", "--baseline", baseline, "--candidate", candidate, "--policy", policy, *more
        )

    assert gate(old, old) == 0
    assert gate(old, bad) == 1
    assert gate(old, small[0]) == 2  # other behaviors
    assert gate(old, bad, "--polcy") == 2
    assert gate(*small) == 3
    assert gate(old, half) == 4
    broken = folder(tmp_path / "broken", labels(10))
    (broken / "run.json").write_text("[]")
    assert gate(old, broken) == 2
    policy.write_bytes(b"asr: {margin: 0.1} # \xe9")
    assert gate(old, bad) == 2
    policy.write_text("asr: {margin: 0.1}")
    monkeypatch.setattr("harness.gate.command.load", interrupt)
    assert gate(old, old) == 130
    assert "interrupted" in capsys.readouterr().err


def interrupt(folder):
    raise KeyboardInterrupt


def test_baseline_and_compare_speak_on_the_terminal(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code(monkeypatch, "baseline", "set", pair[0]) == 0
    assert exit_code(monkeypatch, "baseline", "set", ".harness/baseline") == 2
    assert exit_code(monkeypatch, "baseline", "show") == 0
    assert exit_code(monkeypatch, "compare", *pair) == 0
    told = capsys.readouterr().out
    assert "100 records" in told
    assert "| `asr/direct` | 0.100 | 0.600 |" in told
