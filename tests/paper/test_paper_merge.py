"""Shards and their union: disjoint, whole, and the same as the run in one piece."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.config import make_spec
from harness.engine import run
from harness.errors import UsageError
from harness.labels import Carried, People, carry, keep, people
from harness.merge import merge
from harness.plan import chosen, share
from harness.stats.correction import Labels
from harness.store import load
from harness.types import Behavior, Record, Run

CARRIED = Carried(
    source="x.csv", sha256="0", judge="rules", labels=Labels(hits=9, positives=10, correct_rejections=8, negatives=10)
)


def rows(folder: Path, n: int = 11) -> Path:
    path = folder / "tricks.jsonl"
    path.write_text("".join(json.dumps({"id": f"t{i}", "request": f"How is trick {i} done?"}) + "\n" for i in range(n)))
    return path


def do(folder: Path, name: str, **settings: Any) -> Run:
    given = {
        "model": "scripted:comply?rate=0.5", "attacks": "direct,cipher", "subset": "cipher=5", "overrefusal": "none",
        "tasks": "open-ended", "task_limit": 7, "behaviors": str(rows(folder)), **settings,
    }  # fmt: skip
    return run(make_spec(given), folder / name)


def verdicts(run: Run) -> dict[str, Any]:
    return {record.key: record.judgements for record in run.records}


@pytest.mark.parametrize("parts", [1, 2, 3, 16])
def test_parts_are_disjoint_make_up_the_whole_and_are_of_one_size(parts: int) -> None:
    items = list(range(11))
    found = [share(items, (index, parts)) for index in range(parts)]
    assert sorted(item for part in found for item in part) == items
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_the_draw_of_a_subset_follows_the_seed_alone_and_a_larger_one_holds_the_smaller() -> None:
    found = [Behavior(id=str(i), request="r", task="t") for i in range(40)]
    five, ten = chosen(found, 5, 0), chosen(found, 10, 0)
    assert set(five) < set(ten)
    assert [found.index(b) for b in ten] == sorted(found.index(b) for b in ten)
    assert set(chosen(list(reversed(found)), 5, 0)) == set(five)
    assert set(chosen(found, 5, 1)) != set(five)
    assert chosen(found, 100, 0) == tuple(found)


def test_merged_shards_are_the_run_in_one_piece(tmp_path: Path) -> None:
    one = do(tmp_path, "one")
    parts = [do(tmp_path, f"part{i}", shard=f"{i}/3") for i in (1, 2, 3)]
    keys = [record.key for part in parts for record in part.records]
    assert len(keys) == len(set(keys)) == len(one.records) == 11 + 5 + 7
    whole = merge([part.folder for part in parts], tmp_path / "whole")
    assert verdicts(whole) == verdicts(one)
    assert whole.metrics == one.metrics
    assert (whole.info["status"], whole.info["identity"]) == ("complete", one.info["identity"])
    assert whole.info["subsets"] == one.info["subsets"]
    assert len(set(one.info["subsets"]["cipher"])) == 5
    assert whole.info["tasks"] == one.info["tasks"]
    assert (tmp_path / "whole" / "transcripts.jsonl").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "whole" / "report.pdf").exists()


def test_the_run_in_one_piece_goes_on_from_a_merged_folder_without_asking_again(tmp_path: Path) -> None:
    parts = [do(tmp_path, f"part{i}", shard=f"{i}/2") for i in (1, 2)]
    merge([part.folder for part in parts], tmp_path / "whole")
    before = load(tmp_path / "whole").info["budget"]["requests"]
    assert do(tmp_path, "whole").info["budget"]["requests"] == before


def test_a_missing_part_leaves_the_whole_unfinished(tmp_path: Path) -> None:
    parts = [do(tmp_path, f"part{i}", shard=f"{i}/3") for i in (1, 3)]
    whole = merge([part.folder for part in parts], tmp_path / "whole")
    assert whole.info["status"] == "partial"
    assert "part 2/3 of scripted:comply?rate=0.5 is missing" in whole.info["notes"]


@pytest.mark.parametrize(("kept", "code"), [((1, 2), 0), ((1,), 4)])
def test_the_command_says_whether_the_whole_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: tuple[int, ...], code: int
) -> None:
    folders = [str(do(tmp_path, f"part{i}", shard=f"{i}/3").folder) for i in (*kept, 3)]
    monkeypatch.setattr(sys, "argv", ["harness", "paper", "--merge", *folders, "--out", str(tmp_path / "w"), "--quiet"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == code


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    one, two = do(tmp_path, "part1", shard="1/2"), do(tmp_path, "part2", shard="2/2")
    other, thirds = do(tmp_path, "seed", shard="2/2", seed=5), do(tmp_path, "third", shard="1/3")
    for folders, told in (
        ([one, other], "other settings.*seed"),
        ([one, thirds], "third is one of 3 parts, .*part1 is one of 2 parts"),
        ([one, do(tmp_path, "uncut")], "uncut is a whole run, .*part1 is one of 2 parts"),
        ([one, one], "the same part"),
        ([one], "two run folders or more"),
    ):
        with pytest.raises(UsageError, match=told):
            merge([run.folder for run in folders], tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
    with pytest.raises(UsageError, match="already holds a run"):
        merge([one.folder, two.folder], one.folder)


def test_a_record_in_two_runs_is_found_before_anything_is_written(tmp_path: Path) -> None:
    one, two = do(tmp_path, "part1", shard="1/2"), do(tmp_path, "part2", shard="2/2")
    first = (one.folder / "records.jsonl").read_text().splitlines(keepends=True)[0]
    with (two.folder / "records.jsonl").open("a") as file:
        file.write(first)
    with pytest.raises(UsageError, match="both hold"):
        merge([one.folder, two.folder], tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_what_people_said_of_the_parts_goes_with_them(tmp_path: Path) -> None:
    parts = [do(tmp_path, f"part{i}", shard=f"{i}/2") for i in (1, 2)]
    said = {record.key: i % 2 == 0 for part in parts for i, record in enumerate(part.records) if record.attack}
    for part in parts:
        keep(part.folder, {record.key: said[record.key] for record in part.records if record.key in said})
        carry(part.folder, CARRIED)
    whole = merge([part.folder for part in parts], tmp_path / "whole")
    assert people(whole.folder) == People(human=said, carried=CARRIED)
    assert [m.name for m in whole.metrics if m.name == "asr_corrected"]


def test_labels_that_not_all_parts_share_are_told_of(tmp_path: Path) -> None:
    parts = [do(tmp_path, f"part{i}", shard=f"{i}/2") for i in (1, 2)]
    keep(parts[0].folder, {parts[0].records[0].key: True})
    carry(parts[0].folder, CARRIED)
    whole = merge([part.folder for part in parts], tmp_path / "whole")
    assert people(whole.folder).carried is None
    notes = "; ".join(whole.info["notes"])
    assert "people labelled nothing of part2; the parts differ in carried.json: none was kept" in notes


def test_runs_of_several_models_stand_side_by_side(tmp_path: Path) -> None:
    runs = [do(tmp_path, name, model=f"scripted:{name}") for name in ("refuse", "comply")]
    both = merge([run.folder for run in runs], tmp_path / "both")
    assert {record.model for record in both.records} == {"scripted:refuse", "scripted:comply"}
    assert set(both.info["models"]) == {"scripted:refuse", "scripted:comply"}
    assert both.info["status"] == "complete"
    assert "Models side by side" in (both.folder / "summary.md").read_text()


def test_more_parts_than_questions_leave_some_with_nothing_to_do(tmp_path: Path) -> None:
    done = do(tmp_path, "late", shard="20/20", tasks="none", subset="none")
    assert done.info["status"] == "complete"
    # 22 cases of two attacks: part 20 has the 20th alone
    records: tuple[Record, ...] = done.records
    assert len(records) == 1


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "1/2/3"])
def test_a_malformed_part_is_refused(shard: str) -> None:
    with pytest.raises(UsageError, match="is not of the form i/n"):
        make_spec({"model": "scripted:refuse", "shard": shard})


@pytest.mark.parametrize("subset", ["pair", "pair=", "pair=0", "=5", "pair=x"])
def test_a_malformed_subset_is_refused(subset: str) -> None:
    with pytest.raises(UsageError, match="is not of the form attack=number"):
        make_spec({"model": "scripted:refuse", "subset": subset})


def test_a_subset_of_what_is_no_attack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'pair'"):
        do(tmp_path, "x", subset="piar=3")
