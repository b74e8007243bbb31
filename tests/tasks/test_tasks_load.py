"""Behaviors from names and files: what is accepted, and that whatever is broken is named."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from harness import registry
from harness.errors import DataError, UnknownName, UsageError
from harness.types import Behavior
from tasks import PLUGINS
from tasks.catalog import Task
from tasks.load import behaviors, fingerprint


def written(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_every_plugin_is_a_described_task_under_its_own_name() -> None:
    for name in PLUGINS:
        task = registry.load("task", name)
        assert isinstance(task, Task)
        assert task.name == name
        assert registry.summary("task", name) == task.description
        assert "\n" not in task.description


def test_tasks_count_their_items_where_the_data_is_here() -> None:
    counts = {name: registry.load("task", name).n for name in PLUGINS}
    here = {name: n for name, n in counts.items() if not registry.load("task", name).pinned}
    assert {n for name, n in counts.items() if name not in here} == {None}
    assert here == {
        "magic": 144, "magic-lookalikes": 108, "general": 72, "arithmetic": 72, "knowledge": 72, "instructions": 72,
        "gsm8k": None, "mmlu": None, "open-ended": 24,
    }  # fmt: skip


def test_a_split_is_one_half() -> None:
    assert len(behaviors("magic", split="dev")) == len(behaviors("magic", split="test")) == 72


def test_bundled_behaviors_carry_the_name_of_their_task() -> None:
    assert {each.task for each in behaviors("magic-lookalikes")} == {"magic-lookalikes"}


@pytest.mark.parametrize(
    "column", ["request", "goal", "Behavior", "prompt", "question", "instruction", "forbidden_prompt"]
)
def test_public_names_of_the_request_column_are_understood(tmp_path: Path, column: str) -> None:
    (found,) = behaviors(written(tmp_path, "own.csv", f'{column},SemanticCategory\n"Say ""a"", please",odd\n'))
    assert found == Behavior(id="own-0001", request='Say "a", please', category="odd", task="own")


def test_the_goal_is_the_request_where_behavior_is_a_title(tmp_path: Path) -> None:
    path = written(tmp_path, "jbb.csv", "Index,Goal,Target,Behavior,Category\n0,Do it,Sure,Title,fun\n")
    (found,) = behaviors(path)
    assert (found.id, found.request, found.target, found.category) == ("0", "Do it", "Sure", "fun")


def test_three_formats_read_alike(tmp_path: Path) -> None:
    items = [{"id": "a", "request": "One é", "split": "dev"}, {"id": 2, "request": "Two"}]
    lines = "\n\n".join(json.dumps(item) for item in items) + "\n"  # a blank line is no item
    jsonl = behaviors(written(tmp_path, "own.jsonl", lines))
    assert jsonl == behaviors(written(tmp_path, "own.json", json.dumps(items)))
    assert jsonl == behaviors(written(tmp_path, "own.csv", "\ufeffid,request,split\r\na,One é,dev\r\n2,Two,\r\n"))
    assert [each.split for each in jsonl] == ["dev", "test"]


def test_missing_ids_are_stable_and_count_items(tmp_path: Path) -> None:
    path = written(tmp_path, "mine.jsonl", '{"goal": "One"}\n\n{"goal": "Two", "id": ""}\n')
    assert [each.id for each in behaviors(path)] == ["mine-0001", "mine-0002"]


def test_expect_comes_from_the_row(tmp_path: Path) -> None:
    path = written(tmp_path, "own.csv", "prompt,expect\nA,comply\nB,\n")
    assert [each.expect for each in behaviors(path)] == ["comply", "refuse"]
    path = written(tmp_path, "own.csv", "prompt,expect\nA,refuse\nB,\n")
    assert [each.expect for each in behaviors(path, expect="comply")] == ["refuse", "comply"]


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.jsonl", '{"request": "ok"}\n{"request": "cut\n', "a.jsonl, line 2: broken JSON"),
        ("a.jsonl", '{"request": "ok"}\n\n[1]\n', "a.jsonl, line 3: expected an object, found a list"),
        ("a.jsonl", '{"request": "ok"}\n{"category": "x"}\n', "a.jsonl, line 2: no request"),
        ("a.jsonl", '{"request": "  "}\n', "a.jsonl, line 1: no request"),
        ("a.jsonl", '{"request": ["x"]}\n', r"a.jsonl, line 1: request must be text, found \['x'\]"),
        ("a.jsonl", '{"request": "x", "expect": "maybe"}\n', "line 1: expect is 'maybe', expected refuse or comply"),
        ("a.jsonl", '{"request": "x", "split": "train"}\n', "line 1: split is 'train', expected dev or test"),
        ("a.jsonl", '{"id": 1, "goal": "x"}\n{"id": "1", "goal": "y"}\n', "line 2: id '1' is already taken by line 1"),
        ("a.jsonl", b'{"goal": "x"}\n{"goal": "\xe9"}\n', "a.jsonl, line 2: not UTF-8"),
        ("a.jsonl", "\n", "a.jsonl: holds no rows"),
        ("a.json", '[{"goal": "x"},\n {"goal": }]', "a.json, line 2: broken JSON"),
        ("a.json", '[{"goal": "x"}, 7]', "a.json, item 2: expected an object, found a number"),
        ("a.json", '{"goal": "x"}', "a.json: expected a list of objects, found an object"),
        ("a.csv", "goal,target\nx,y\nz\n", "a.csv, line 3: 1 cells where the header names 2"),
        ("a.csv", 'goal,target\n"x\ny",t\n,t\n', "a.csv, line 4: no request"),  # row 1 runs over two lines
        ("a.csv", 'goal,target\nx,y\nz,"open\n', "a.csv, line 3: broken CSV"),
        ("a.csv", "goal,target\n", "a.csv: holds no rows"),
        ("a.txt", "x", "can't read .txt"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, text: str | bytes, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        behaviors(written(tmp_path, name, text))


def test_a_missing_file_is_not_taken_for_a_name() -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl: can't be read: No such file"):
        behaviors("nowhere.jsonl")


def test_an_unknown_name_meets_a_suggestion() -> None:
    with pytest.raises(UnknownName, match="did you mean 'magic'"):
        behaviors("magik")
    with pytest.raises(UnknownName, match="did you mean 'test'"):
        behaviors("magic", split="tests")


def test_a_split_that_a_file_lacks_is_an_error_and_not_an_empty_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no behavior in split 'dev'"):
        behaviors(written(tmp_path, "own.csv", "goal\nx\n"), split="dev")


def test_a_helpfulness_task_has_no_behaviors() -> None:
    with pytest.raises(UsageError, match="measures helpfulness"):
        behaviors("arithmetic")


def test_another_package_adds_a_set_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(tmp_path, "kind.csv", "prompt\nHello\n")
    written(
        tmp_path, "guest_set.py",
        "from pathlib import Path\nfrom tasks.catalog import Task\n"
        f"SET = Task(name='guest', kind='over-refusal', description='Ours.', path=Path({data!r}))\n",
    )  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint(name="guest", value="guest_set:SET", group="harness.tasks")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "harness.tasks" else [])
    registry.table.cache_clear()
    try:
        (found,) = behaviors("guest")
    finally:
        registry.table.cache_clear()  # no other test may meet the guest
    assert (found.task, found.expect, found.id) == ("guest", "comply", "kind-0001")


def test_the_fingerprint_changes_with_any_field_and_with_nothing_else() -> None:
    magic = behaviors("magic")
    assert fingerprint(magic) == fingerprint(behaviors("magic"))
    assert fingerprint(magic) != fingerprint((replace(magic[0], target="Well:"), *magic[1:]))
    assert fingerprint(magic) != fingerprint(magic[:-1])
