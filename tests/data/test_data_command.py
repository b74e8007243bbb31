"""`harness data` as a user meets it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main
from harness.data import pinned


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["harness", "data", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_the_list_shows_licences_and_what_is_here(
    mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pinned.pull("coins", mirror)
    assert call(monkeypatch, "ls") == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[:3]}
    assert lines["coins"][1:4] == ["here", "behaviors", "MIT"]
    assert lines["ropes"][1] == "-"


def test_one_set_is_shown_with_commit_columns_and_files(
    sets: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "ls", "ropes") == 0
    out = capsys.readouterr().out
    assert "taken and kept on the first pull" in out
    assert "sha256 recorded on the first pull" in out
    assert "missing" in out


def test_a_pull_says_what_it_recorded_and_verify_agrees(
    mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "pull", "all", "--mirror", str(mirror), "--quiet") == 0
    told = capsys.readouterr()
    assert told.out.count(" ok, MIT: ") == 3
    assert "tricks/two.csv: no hash was known" in told.err
    assert call(monkeypatch, "verify") == 0
    assert capsys.readouterr().out.split().count("ok") == 4  # one file, one, and two


def test_verify_fails_on_a_changed_file_and_names_the_pull(
    mirror: Path, flip: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(pinned.pull("coins", mirror))
    assert call(monkeypatch, "verify") == 2
    told = capsys.readouterr()
    assert "changed  coins" in told.out
    assert "harness data pull coins" in told.err


def test_one_set_that_cannot_be_had_holds_up_no_other(
    mirror: Path, flip: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(next(mirror.rglob("one.csv")))
    assert call(monkeypatch, "pull", "all", "--mirror", str(mirror), "--quiet") == 2
    told = capsys.readouterr()
    assert "2 of 3 data sets could not be had" in told.err  # coins, and both
    assert told.out.startswith("ropes: 1 file ok")


def test_a_misspelt_name_is_said_before_anything_is_fetched(
    mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "pull", "coins", "rops", "--mirror", str(mirror)) == 2
    assert "did you mean 'ropes'" in capsys.readouterr().err
    assert not pinned.home().exists()


@pytest.mark.parametrize("flag", ["--behaviors", "--overrefusal"])
def test_a_run_on_a_set_that_was_not_pulled_says_what_to_type(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["harness", "run", "--model", "scripted:refuse", "--tasks", "none",
                                      flag, "xstest", "--out", str(tmp_path / "run")])  # fmt: skip
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "harness data pull xstest" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
