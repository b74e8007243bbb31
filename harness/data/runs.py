"""Our own run folders, read back to be judged again: nothing is asked of a model twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness import registry
from harness.data.item import Recorded
from harness.errors import DataError, HarnessError
from harness.metrics import is_graded
from harness.store import build, load
from harness.types import Attempt, Behavior, Completion, Message, Prompt, Record


def read(path: Path, questions: Path | None) -> Iterator[Recorded]:
    """Every reply of a run that a judge can read: all but those of tasks with marks."""
    run = load(path)
    places = _places(path / "transcripts.jsonl")
    with (path / "transcripts.jsonl").open("rb") as file:
        for record in run.records:
            if is_graded(record):
                continue
            line: dict[str, Any] = {}
            if record.error is None:
                place = places.get(record.key, places.get(record.prompt_sha))
                if place is None:
                    raise DataError(f"{path}: the transcript of {record.key} is missing")
                file.seek(place)
                line = json.loads(file.readline())
            yield _recorded(record, line)


def _places(path: Path) -> dict[str, int]:
    """Where each transcript begins, so that replies are read one at a time."""
    if not path.exists():
        raise DataError(f"{path} is missing: there is nothing to judge again")
    places, at = {}, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                places[str(json.loads(line)["sha"])] = at
            except (ValueError, KeyError, TypeError) as err:
                if line.endswith(b"\n"):  # one without its end was torn by a kill
                    raise DataError(f"{path} line {number} is broken: {err}") from err
            at += len(line)
    return places


def _recorded(record: Record, line: Mapping[str, Any]) -> Recorded:
    """A record with its transcript, judgements dropped."""
    prompt = _prompt(line.get("prompt", {}))
    behavior = _behaviors(record.task).get(record.behavior) or Behavior(
        id=record.behavior,
        request=str(line.get("request", prompt.last)) if line else "",
        expect=record.expect,
        category=record.category,
        task=record.task,
    )
    attempt = Attempt(
        behavior=behavior,
        attack=record.attack,
        prompt=prompt,
        variant=record.variant,
        seed=record.seed,
        depth=record.depth,
        queries=record.queries,
    )
    completion = build(Completion, line["completion"]) if line else None
    said = str(line["said"]) if "said" in line else _read_back(attempt, completion.text) if completion else ""
    blank = Record(**{name: getattr(record, name) for name in Record.__dataclass_fields__ if name != "judgements"})
    return Recorded(attempt=attempt, completion=completion, said=said, record=blank)


def _prompt(told: Mapping[str, Any]) -> Prompt:
    turns = tuple(Message(**turn) for turn in told.get("messages", ()))
    return Prompt(messages=turns, text=told.get("text"), prefill=told.get("prefill", ""))


@cache
def _behaviors(task: str) -> dict[str, Behavior]:
    """The behaviors of a set by id; none where the set is not at hand any more."""
    try:
        return {behavior.id: behavior for behavior in registry.behaviors(task)}
    except HarnessError:
        return {}


def _read_back(attempt: Attempt, text: str) -> str:
    """The reply as its attack reads it; as it is where the attack is not installed."""
    try:
        return str(registry.make("attack", attempt.attack).read(attempt, text))
    except HarnessError:
        return text
