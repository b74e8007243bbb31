"""Behaviors by name or from a user's own file, and the fingerprint that a run keeps of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal, cast, get_args

from harness import registry
from harness.errors import DataError, UnknownName, UsageError
from harness.types import Behavior, Expect, sha
from tasks.catalog import Task
from tasks.public import public
from tasks.read import Row, rows

Split = Literal["dev", "test"]

ALIASES: Mapping[str, tuple[str, ...]] = {
    # The names that public sets use, without regard to case. Where a file has several, the first counts:
    # JailbreakBench's `Behavior` is a short title, and its `Goal` is the request.
    "id": ("id", "behaviorid", "index"),
    "request": ("request", "goal", "prompt", "question", "instruction", "forbidden_prompt", "behavior"),
    "expect": ("expect",),
    "category": ("category", "semanticcategory"),
    "opening": ("opening",),
    "target": ("target",),
    "reference": ("reference",),
    "split": ("split",),
}


def behaviors(name_or_path: str, *, split: str | None = None, expect: Expect = "refuse") -> tuple[Behavior, ...]:
    """The behaviors of a bundled or installed set, or of a JSONL, JSON or CSV file; of one split where one is named.

    A row without an id gets one from the file's stem and its number, a row of a user's own file without `expect` is as
    the argument says, a row without a split belongs to "test". Raises UnknownName for a name that is neither a set nor
    a file, and DataError, with file and line, for a row that is broken or an id that comes twice.
    """
    if split is not None and split not in get_args(Split):
        raise UnknownName("split", split, get_args(Split))
    source = _source(name_or_path, expect)
    if isinstance(source, Task):
        found, path = public(source.name), Path(source.name)
    else:
        name, path, default = source
        found = _unique([(row, _behavior(row, name, path.stem, default)) for row in rows(path)])
    chosen = tuple(each for each in found if split is None or each.split == split)
    if not chosen:
        raise DataError(f"{path}: no behavior in split {split!r}", hint="give the rows a `split` of dev or test")
    return chosen


def fingerprint(items: Iterable[Behavior]) -> str:
    """A short sha256 over every field of every behavior, in order: what a run names its data by."""
    return sha([asdict(each) for each in items])


def _source(name_or_path: str, expect: Expect) -> tuple[str, Path, Expect] | Task:
    """The name, the file and the default expectation behind what the user typed, or the public set that it names.

    A path has a suffix or a folder; its expectation is `expect`.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix or len(path.parts) > 1:
        return path.stem, path, expect
    task: Task = registry.load("task", name_or_path)
    if task.kind == "helpfulness" or (task.path is None and not task.pinned):
        raise UsageError(
            f"task {name_or_path!r} measures helpfulness: it has no behaviors to attack or to refuse",
            hint="see: harness ls tasks",
        )
    if task.path is None:
        return task
    return task.name, task.path, "refuse" if task.kind == "behaviors" else "comply"


def _behavior(row: Row, task: str, stem: str, expect: Expect) -> Behavior:
    """One row as a behavior. Raises DataError for what is missing or not one of the words allowed."""
    value = _values(row)
    if not value["request"]:
        raise DataError(f"{row.where}: no request", hint=f"name the column one of: {', '.join(ALIASES['request'])}")
    return Behavior(
        id=value["id"] or f"{stem}-{row.number:04d}",
        request=value["request"],
        expect=cast("Expect", _word(row, "expect", value["expect"] or expect, get_args(Expect))),
        category=value["category"],
        task=task,
        opening=value["opening"],
        target=value["target"],
        reference=value["reference"],
        split=cast("Split", _word(row, "split", value["split"] or "test", get_args(Split))),
    )


def _values(row: Row) -> dict[str, str]:
    """The text of every known field, "" where the row lacks it."""
    cells = {key.strip().lower(): value for key, value in row.fields.items()}
    found = {}
    for field, aliases in ALIASES.items():
        value = next((cells[alias] for alias in aliases if cells.get(alias) not in (None, "")), "")
        if isinstance(value, int) and field == "id":
            value = str(value)
        if not isinstance(value, str):
            raise DataError(f"{row.where}: {field} must be text, found {value!r:.40}")
        found[field] = value.strip()
    return found


def _word(row: Row, field: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise DataError(f"{row.where}: {field} is {value!r}, expected {' or '.join(allowed)}")
    return value


def _unique(found: list[tuple[Row, Behavior]]) -> list[Behavior]:
    """The behaviors, unless two of them share an id."""
    first: dict[str, Row] = {}
    for row, each in found:
        if each.id in first:
            raise DataError(f"{row.where}: id {each.id!r} is already taken by {first[each.id].where.split(', ')[-1]}")
        first[each.id] = row
    return [each for _, each in found]
