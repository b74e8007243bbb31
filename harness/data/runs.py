"""Our own run folders, read back to be judged again: nothing is asked of a model twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness import registry
from harness.config import RunSpec
from harness.data.item import Recorded
from harness.errors import DataError, HarnessError
from harness.metrics import is_graded
from harness.store import build, load, read_as, read_prompt
from harness.types import Attempt, Behavior, Completion, Record, Run

PLAIN = ("direct", "contrast")  # attacks that send the request as it is


def read(path: Path, questions: Path | None, *, prompts_only: bool = False) -> Iterator[Recorded]:
    """Every reply of a run that a judge can read: all but those of tasks with marks.

    `questions` is a file with the behaviors of a run that did not keep them. Raises DataError where the bare request
    of a reply is not at hand, unless `prompts_only`.
    """
    run = load(path)
    behaviors = _behaviors(run)
    given = {b.id: b for b in registry.behaviors(str(questions))} if questions else {}
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
            known = behaviors.get((record.task, record.behavior)) or given.get(record.behavior)
            if known is None and line and "request" not in line and record.attack not in PLAIN and not prompts_only:
                hint = "harness score RUN --questions FILE --out FOLDER, with the behaviors that the run was made on"
                where = f"{path}: the request behind {record.key} is not at hand"
                raise DataError(f"{where}: its file is gone or has changed", hint=hint)
            yield _recorded(record, line, known)


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


def _recorded(record: Record, line: Mapping[str, Any], known: Behavior | None) -> Recorded:
    """A record with its transcript, judgements dropped; `known` is its behavior unless it was asked something else."""
    prompt = read_prompt(line.get("prompt", {}))
    request = str(line.get("request", known.request if known else prompt.last)) if line else ""
    behavior = known
    if behavior is None or (line and behavior.request != request):
        behavior = Behavior(
            id=record.behavior, request=request, expect=record.expect, category=record.category, task=record.task
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


def _behaviors(run: Run) -> dict[tuple[str, str], Behavior]:
    """The behaviors of a run by task and id: as it kept them, else from the sets that its settings name."""
    kept = {
        (b.task, b.id): b
        for key, value in read_as(run.folder / "memo.jsonl", lambda line: (line["key"], line["value"]))
        if key.startswith("behavior/")
        for b in [build(Behavior, json.loads(value))]
    }
    if all((r.task, r.behavior) in kept for r in run.records if not is_graded(r)):
        return kept
    spec = run.info.get("spec", {})
    names = [name for name in (spec.get("behaviors"), *spec.get("overrefusal", ())) if name]
    return {(b.task, b.id): b for name in names for b in _of_set(name, run.info)} | kept


def _of_set(name: str, info: Mapping[str, Any]) -> tuple[Behavior, ...]:
    """The behaviors of a set of a run; none where it is gone, or a file of the user's that has changed since."""
    try:
        if name in registry.table("task"):
            return registry.behaviors(name)
        from harness.manifest import describe_set
        from harness.plan import behaviors

        found = behaviors(name, build(RunSpec, info["spec"]))
        before = info.get("tasks", {}).get(name, {}).get("sha")
        return found if describe_set(found, "")["sha"] == before else ()
    except HarnessError:
        return ()


def _read_back(attempt: Attempt, text: str) -> str:
    """The reply as its attack reads it; as it is where the attack is not installed."""
    try:
        return str(registry.make("attack", attempt.attack).read(attempt, text))
    except HarnessError:
        return text
