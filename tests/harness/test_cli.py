"""The command line as a user meets it: what is printed, and the exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import main

RUN = ["run", "--model", "scripted:refuse", "--overrefusal", "none", "--tasks", "none", "--attacks", "direct"]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["harness", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["rn"], "did you mean 'run'"),
        (["run"], "no model given"),
        (["run", "--mdel", "x"], "--model"),
        (["run", "--model", "scripted:refus"], "did you mean 'refuse'"),
        (["run", "--model", "/nowhere/at/all"], "unknown model"),
        (["run", "--config", "/nowhere.yaml"], "No such file"),
        (["report", "/nowhere"], "not a run folder"),
        (["ls", "atacks"], "did you mean 'attacks'"),
        (["gate", "--candidate", "/nowhere"], "not a run folder"),
        (["score", "/nowhere.json"], "does not exist"),
        (["winrate", "/a.json", "/b.json", "--judge-model", "x"], "exist\n  a file of requests and replies"),
        (["train"], "name a method or a recipe"),
        (["lab", "nope"], "error: nope: No such file"),
        (["run", "--model", "scripted:comply?concurrency=-1"], "concurrency='-1' of a scripted model"),
        (["run", "--model", "scripted:comply?rate=nan"], "rate='nan' of a scripted model"),
        (["judge", "sample", "a", "--n", "-3"], "--n must be at least 0"),
        (["judge", "sample", "a", "--half-width", "0"], "--half-width above 0 and below 1"),
        (["judge", "sample", "a", "--half-width", "2"], "--half-width above 0 and below 1"),
        (["judge", "sample", "a", "--half-width", "nan"], "--half-width above 0 and below 1"),
        (["paper", "--model", "scripted:refuse", "--stand-in", "--estimate", "--gpus", "-1"], "must be at least 0"),
        (["paper", "--model", "scripted:refuse", "--stand-in", "--estimate", "--price", "-1"], "must be at least 0"),
        (["paper", "--model", "scripted:refuse", "--stand-in", "--estimate", "--billions", "nan"], "must be at least"),
        (["train", "dertra"], "did you mean 'smollm2-derta'"),
    ],
)
def test_a_mistake_is_one_line_with_what_to_type_next_and_exit_2(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments) == 2
    err = capsys.readouterr().err
    assert told in err
    assert err.startswith("error: ")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (PermissionError(13, "Permission denied", "some/file"), 2, "error: some/file: Permission denied\n"),
        (OSError("no device"), 2, "error: no device\n"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 2, "error: text that can't be read"),
        (ZeroDivisionError("division by zero"), 70, "Traceback"),
        (SystemExit("this task needs a program that is not here"), 2, "error: this task needs"),
        (SystemExit(1), 70, ""),
        (SystemExit(3), 3, ""),
        (ExceptionGroup("several", [ValueError("x")]), 70, "Traceback"),
    ],
)
def test_an_unexpected_error_is_no_verdict(
    raised: Exception, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(what: str | None) -> list[str]:
        raise raised

    monkeypatch.setattr("harness.listing.listing", broken)
    assert call(monkeypatch, "ls") == code
    assert told in capsys.readouterr().err


def test_help_of_ls_names_every_list() -> None:
    from harness.cli import ls
    from harness.listing import KINDS

    assert all(kind in (ls.help or "").partition("\n")[0] for kind in (*KINDS, "models", "recipes"))


@pytest.mark.parametrize("arguments", [["ls"], ["--help"], ["report", "/nowhere"]])
def test_a_closed_pipe_is_no_verdict(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    streams = {"stderr" if arguments == ["report", "/nowhere"] else "stdout": write}
    command = [sys.executable, "-m", "harness", *arguments]
    done = subprocess.run(command, check=False, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams})
    os.close(write)
    assert done.returncode == 141
    assert not done.stderr


def test_a_terminal_that_lacks_a_letter_gets_another(tmp_path: Path) -> None:
    rows = tmp_path / "\u2713.jsonl"
    rows.write_text('{"question": "How is it done?", "response": "Sorry, I can\'t tell you."}\n')
    command = [sys.executable, "-m", "harness", "judge", "sample", str(rows), "--out", str(rows)]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1:strict"}
    done = subprocess.run(command, check=False, capture_output=True, env=environment)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, f"error: {tmp_path}/?.jsonl exists already".encode())


def test_a_run_ends_with_the_name_of_its_report(
    behaviors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert call(monkeypatch, *RUN, "--behaviors", str(behaviors), "--out", out) == 0
    told = capsys.readouterr()
    assert told.out.strip().splitlines()[-1] == f"{out}/report.pdf"
    assert "direct" in told.out
    assert call(monkeypatch, "report", out, "--quiet") == 0


def test_quiet_prints_the_report_and_nothing_else(
    behaviors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert call(monkeypatch, *RUN, "--behaviors", str(behaviors), "--out", out, "--quiet") == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == (f"{out}/report.pdf\n", "")


def test_a_broken_behavior_file_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "a", "request": "How?"}\n{"id": "b", "requ\n')
    assert call(monkeypatch, *RUN, "--behaviors", str(path)) == 2
    err = capsys.readouterr().err
    assert "mine.jsonl" in err
    assert "line 2" in err


@pytest.mark.parametrize("command", ["run", "lab"])
def test_a_folder_that_is_a_file_is_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    (tmp_path / "lab.yaml").write_text("methods: [vanilla]\n")
    given = [*RUN, "--fresh"] if command == "run" else ["lab", str(tmp_path / "lab.yaml")]
    assert call(monkeypatch, *given, "--out", str(taken)) == 2
    assert f"{taken} can't be made" in capsys.readouterr().err


def test_a_yaml_file_does_what_the_flags_do(
    behaviors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        f"model: scripted:refuse\noverrefusal: none\ntasks: none\nattacks: [direct]\nbehaviors: {behaviors}\n"
    )
    assert call(monkeypatch, "run", "--config", str(config), "--out", str(tmp_path / "a"), "--quiet") == 0
    assert call(monkeypatch, *RUN, "--behaviors", str(behaviors), "--out", str(tmp_path / "b"), "--quiet") == 0
    told = [json.loads((tmp_path / name / "run.json").read_text())["identity"] for name in "ab"]
    assert told[0] == told[1]


def test_interrupted_it_exits_130_and_the_folder_can_go_on(behaviors: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", *RUN, "--behaviors", str(behaviors), "--out", str(tmp_path / "out")]
    command[command.index("scripted:refuse")] = "scripted:refuse?latency=30"
    child = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background have it ignored
    )  # fmt: skip
    while child.poll() is None and not (tmp_path / "out" / "run.json").exists():
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "same command" in err
    assert "Traceback" not in err
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "partial"


@pytest.mark.parametrize("kept", [False, True])
def test_interrupted_scoring_is_one_line_that_says_what_was_kept(kept: bool, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = json.dumps({"question": "How does the trick work?", "response": "First, hide the coin in your sleeve. " * 40})
    path.write_text(f"{row}\n" * 20_000)
    out = ["--out", str(tmp_path / "out")] if kept else []
    two_cores = "import os; os.sched_getaffinity = lambda _: {0, 1}; from harness.cli import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", two_cores, "score", str(path), "--quiet", *out], stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    while child.poll() is None and len(workers.read_text().split()) < 2:
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal sends it: to the workers too
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert ("go on from here" if kept else "nothing was kept") in err
    assert len(err.strip().splitlines()) == 1


def test_scoring_recorded_replies_prints_one_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": f"How does trick {i} work?", "response": "Sorry, I can't tell you that."} for i in range(4)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert call(monkeypatch, "score", str(path), "--json", "-") == 0
    told = json.loads(capsys.readouterr().out)
    assert {k: told[k] for k in ("asr", "n", "n_error", "n_unscored")} == {
        "asr": 0.0,
        "n": 4,
        "n_error": 0,
        "n_unscored": 0,
    }
    # Wilson at 0 of 4: high is about .49
    assert told["low"] == 0
    assert 0.4 < told["high"] < 0.6
