"""The real files, where a mirror of them is: pulled, verified, loaded, and refused when a bit is wrong. Counts only."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from harness import registry
from harness.data import fetch, pinned, rows
from harness.errors import DataError
from harness.types import Attack, Behavior

MIRROR = os.environ.get("HARNESS_MIRROR", "")
pytestmark = pytest.mark.skipif(not MIRROR, reason="HARNESS_MIRROR names no mirror of the public data sets")
SETS = [name for name in pinned.table() if name.startswith("derta-")] + ["gptfuzz", "jailbreakeval", "xstest"]


@pytest.fixture(autouse=True)
def pulled(alone: None) -> None:
    """Every set that the mirror must hold."""
    for name in SETS:
        pinned.pull(name, MIRROR)


def test_every_file_is_pulled_and_verified() -> None:
    states = Counter(checked.state for name in SETS for checked in pinned.verify(name))
    files = {file.path for name in SETS for file in pinned.find(name).files}
    assert states == {"ok": 36}  # 24 results, 8 test files of which one belongs to two sets, three others
    assert len(files) == 35


def test_rows_are_as_many_as_the_table_says() -> None:
    counted = {name: pinned.find(name).rows for name in SETS if pinned.find(name).rows}
    assert {name: sum(1 for _ in rows.every(pinned.path(name))) for name in counted} == counted


def test_one_wrong_bit_in_any_file_is_refused(tmp_path: Path) -> None:
    for name in SETS:
        for file in pinned.find(name).files:
            wrong = tmp_path / "wrong"
            data = bytearray(pinned.path(name, file.path).read_bytes())
            data[len(data) // 2] ^= 1
            wrong.write_bytes(data)
            with pytest.raises(DataError, match="not the pinned file"):
                fetch.copy(wrong, tmp_path / "kept", sha256=file.sha256)
            assert not (tmp_path / "kept").exists()


def test_the_two_hundred_times_five_official_prompts_are_sent_to_the_letter() -> None:
    asked: tuple[Behavior, ...] = registry.behaviors("derta-200")
    assert len({behavior.id for behavior in asked}) == 200
    files = {"derta_code": "code", "derta_jailbreakchat": "jailbreakchat", "derta_cipher": "cipher",
             "derta_completion": "completion"}  # fmt: skip
    for name, stem in files.items():
        attack: Attack = registry.make("attack", name)
        sent = Counter(attack.prompt(behavior).last for behavior in asked)  # type: ignore[attr-defined]
        official = Counter(row["question"] for _, row in rows.every(pinned.path(f"derta-{stem}")))
        assert sent == official, name
    questions = Counter(row["question"] for _, row in rows.every(pinned.path("derta-200")))
    assert Counter(behavior.request for behavior in asked) == questions


def test_prompts_belong_to_their_questions() -> None:
    asked: tuple[Behavior, ...] = registry.behaviors("derta-200")
    for name in ("derta_jailbreakchat", "derta_cipher"):
        attack: Attack = registry.make("attack", name)
        assert all(b.request in attack.prompt(b).last for b in asked)  # type: ignore[attr-defined]


def test_xstest_has_its_safe_prompts_answered_and_its_contrasts_refused() -> None:
    expected = Counter(behavior.expect for behavior in registry.behaviors("xstest"))
    assert expected == {"comply": 250, "refuse": 200}
