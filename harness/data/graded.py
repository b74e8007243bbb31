"""Recorded replies to questions with one right answer: DeRTa's GSM8K and MMLU result files, graded as they are read.

JSON or JSONL rows of `question`, `response` and `answer`. Which of the two a file holds is told by its answers: a
letter, or a worked solution that ends in a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.data import rows
from harness.data.item import Recorded, make
from harness.errors import DataError
from harness.grading import Kind, grade

COLUMNS = ("question", "response", "answer")
_MODEL = re.compile(r"(?i)_(?:eval_)?(?:gsm8k|mmlu).*$|\.jsonl?$")


def kind_of(row: Any) -> Kind | None:
    """What a row holds, told by its answer; None where it is not of this shape."""
    if not isinstance(row, Mapping) or not all(isinstance(row.get(name), str) for name in COLUMNS):
        return None
    if re.fullmatch(r"\W*[A-D]\W*", row["answer"]):
        return "mmlu"
    return "gsm8k" if re.search(r"####\s*\S*\d", row["answer"]) else None


def read_gsm8k(path: Path, questions: Path | None) -> Iterator[Recorded]:
    """The graded replies of a GSM8K result file."""
    yield from _read(path, "gsm8k")


def read_mmlu(path: Path, questions: Path | None) -> Iterator[Recorded]:
    """The graded replies of an MMLU result file."""
    yield from _read(path, "mmlu")


def _read(path: Path, kind: Kind) -> Iterator[Recorded]:
    model, task = _MODEL.sub("", path.name), f"derta-{kind}"
    for number, row in rows.every(path):
        where = f"{path} row {number}"
        if not isinstance(row, Mapping) or not isinstance(row.get("question"), str):
            raise DataError(f"{where} has no question")
        if not isinstance(row.get("answer"), str | int | float):
            raise DataError(f"{where} has no answer to grade against")
        reply = row.get("response")
        item = make(request=row["question"], reply=reply, row=number, model=model, task=task)
        asked = replace(item.record, expect="comply", attack="", category=task)  # a task, under no attack
        try:
            judged = grade(kind, reply, str(row["answer"])) if isinstance(reply, str) else ()
        except ValueError as err:
            raise DataError(f"{where}: {err}", hint="--format derta-gsm8k or derta-mmlu, as the answers are") from err
        yield replace(item, record=asked, graded=judged)
