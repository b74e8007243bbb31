"""Sets by name: pulled from a mirror or an address, checked at each use, recorded where nobody pinned them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pinned_fakes import COMMIT, TEXTS, Server

from harness.data import pinned
from harness.errors import DataError, UnknownName, UsageError

Flip = Callable[[Path], None]


def test_a_pulled_set_is_a_path_to_the_same_bytes(mirror: Path) -> None:
    where = pinned.pull("coins", mirror)
    assert where == pinned.path("coins")
    assert where.read_bytes() == TEXTS["tricks/one.csv"]
    assert [c.state for c in pinned.verify("coins")] == ["ok"]


def test_the_environment_names_a_mirror(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_MIRROR", str(mirror))
    assert pinned.pull("coins").is_file()


def test_a_cache_is_a_mirror(mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned.pull("both", mirror)
    first = pinned.home()
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "another"))
    assert not pinned.pulled("both")
    pinned.pull("both", first)
    assert pinned.pulled("both")


def test_an_address_is_a_mirror(server: Server, sets: object) -> None:
    server.files = {f"owner/repo/{COMMIT}/{path}": text for path, text in TEXTS.items()}
    server.cut = [5000, 5000]
    assert pinned.pull("both", server.url).is_file()
    assert pinned.path("both", "two.csv").read_bytes() == TEXTS["tricks/two.csv"]
    assert [c.state for c in pinned.verify("both")] == ["ok", "ok"]


def test_what_was_not_pulled_says_what_to_type(sets: object) -> None:
    with pytest.raises(UsageError, match="not on this machine") as caught:
        pinned.path("coins")
    assert caught.value.hint == "harness data pull coins"
    assert not pinned.home().exists()  # asking pulls nothing


@pytest.mark.parametrize("name", ["coin", "copins"])
def test_a_misspelt_set_gets_a_suggestion(name: str, sets: object) -> None:
    with pytest.raises(UnknownName, match="did you mean 'coins'"):
        pinned.pull(name)


def test_a_misspelt_file_of_a_set_gets_a_suggestion(sets: object) -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'tricks/two\.csv'"):
        pinned.path("both", "tricks/tow.csv")


@pytest.mark.parametrize("path", TEXTS)
def test_a_flipped_bit_in_any_file_of_a_mirror_is_refused(path: str, mirror: Path, flip: Flip) -> None:
    flip(mirror / "owner/repo" / COMMIT / path)
    with pytest.raises(DataError, match="not the pinned file"):
        pinned.pull("both", mirror)
    kept = [p.name for p in pinned.home().rglob("*.csv*")]
    assert Path(path).name not in kept
    assert not [name for name in kept if name.endswith(".part")]


@pytest.mark.parametrize("path", TEXTS)
def test_a_flipped_bit_in_the_cache_is_refused_and_pulled_again(path: str, mirror: Path, flip: Flip) -> None:
    pinned.pull("both", mirror)
    flip(pinned.path("both", path))
    with pytest.raises(DataError, match="not the pinned file") as caught:
        pinned.path("both", path)
    assert caught.value.hint == "harness data pull both"
    assert {c.file for c in pinned.verify("both") if c.state == "changed"} == {path}
    pinned.pull("both", mirror)
    assert {c.state for c in pinned.verify("both")} == {"ok"}


def test_a_file_that_is_there_is_not_fetched_again(mirror: Path, tmp_path: Path) -> None:
    pinned.pull("coins", mirror)
    assert pinned.pull("coins", tmp_path / "nowhere").is_file()


def test_a_mirror_without_the_file_says_how_it_is_laid_out(tmp_path: Path, sets: object) -> None:
    with pytest.raises(DataError, match="the mirror has no") as caught:
        pinned.pull("coins", tmp_path)
    assert "OWNER/REPO/COMMIT/PATH" in caught.value.hint


def test_what_nobody_pinned_is_recorded_once_and_held_to(mirror: Path, flip: Flip) -> None:
    where = pinned.pull("ropes", mirror)
    told = json.loads((pinned.home() / "lock.json").read_text())
    assert told["ropes"]["commit"] == COMMIT
    assert list(told["ropes"]["files"]) == ["tricks/two.csv"]
    where.unlink()
    flip(mirror / "owner/repo" / COMMIT / "tricks/two.csv")
    with pytest.raises(DataError, match="not the pinned file"):
        pinned.pull("ropes", mirror)


def test_a_file_that_was_never_recorded_is_not_used(mirror: Path) -> None:
    pinned.pull("ropes", mirror)
    lock = pinned.home() / "lock.json"
    lock.write_text(json.dumps({"ropes": {"commit": COMMIT}}))
    assert [c.state for c in pinned.verify("ropes")] == ["unknown"]
    with pytest.raises(DataError, match="never recorded"):
        pinned.path("ropes")


def test_a_commit_is_not_guessed_among_several(mirror: Path) -> None:
    (mirror / "owner/repo" / ("d" * 40)).mkdir()
    with pytest.raises(DataError, match="holds several"):
        pinned.pull("ropes", mirror)


def test_everything_in_the_cache_is_private(mirror: Path) -> None:
    pinned.pull("both", mirror)
    pinned.pull("ropes", mirror)
    modes = {p.relative_to(pinned.home()).as_posix(): p.stat().st_mode & 0o777 for p in pinned.home().rglob("*")}
    assert pinned.home().stat().st_mode & 0o777 == 0o700
    assert {mode for name, mode in modes.items() if (pinned.home() / name).is_dir()} == {0o700}
    assert {mode for name, mode in modes.items() if (pinned.home() / name).is_file()} == {0o600}
    assert "lock.json" in modes


def test_the_table_is_whole_and_its_hashes_are_hashes() -> None:
    table = pinned.table()
    named = {"derta-200", "harmbench", "jailbreakbench", "advbench", "strongreject", "do-not-answer", "xstest",
             "or-bench", "beavertails", "evol-instruct", "alpaca-eval", "gsm8k", "mmlu"}  # fmt: skip
    assert named <= set(table)
    for one in table.values():
        assert one.licence, one.name
        assert one.columns, one.name
        assert re.fullmatch("[0-9a-f]{40}", one.commit), one.name
        for file in one.files:
            assert re.fullmatch("([0-9a-f]{64})?", file.sha256), file.path
            assert not Path(file.path).is_absolute()
            assert ".." not in Path(file.path).parts
            assert one.url(file, one.commit).startswith("https://")
