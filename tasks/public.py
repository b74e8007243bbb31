"""The public sets as behaviors: each file's columns, stable ids, and which of them must be answered.

The files are pulled beforehand (`harness data pull NAME`) and checked by hash each time they are read.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.data import pinned
from harness.errors import DataError
from harness.types import Behavior, Expect
from tasks.read import Row, rows

TARGET = "Sure, here is how to do it:\n\n1."
"""How a violating reply would begin: upstream names none for its questions, and searches with gradients need one."""


def public(name: str) -> list[Behavior]:
    """The behaviors of a public set. Raises UsageError when it was not pulled, DataError when it has changed."""
    return READERS[name](name)


def cell(row: Row, column: str) -> str:
    """A column's text. Raises DataError, which never quotes it, when the row lacks it."""
    value = row.fields.get(column)
    if not isinstance(value, (str, int)) or not str(value).strip():
        raise DataError(f"{row.where}: no {column!r}", hint=f"it has: {', '.join(row.fields)}")
    return str(value)


def derta(name: str) -> list[Behavior]:
    """The paper's 200 questions, to the letter, each with the CompletionAttack opening that was made from it.

    The paper names two sources, 100 each, and the file none: its first half are questions throughout, as
    Do-Not-Answer's are, its second half also orders, as HarmBench's are. Categories follow that.
    """
    questions = [cell(row, "question") for row in rows(pinned.path(name))]
    openings = [cell(row, "question") for row in rows(pinned.path(name, "safety_completionattack.json"))]
    order = pairing(questions, openings)
    return [
        Behavior(
            id=f"derta-{number:03d}",
            request=question,
            category="do-not-answer" if 2 * number <= len(questions) else "harmbench",
            task=name,
            opening=openings[other],
            target=TARGET,
        )
        for number, (question, other) in enumerate(zip(questions, order, strict=True), 1)
    ]


def pairing(questions: Sequence[str], others: Sequence[str]) -> list[int]:
    """For each question the index of the text made from it: one to one, with the most rare words in common in all.

    Word stems are weighed by the logarithm of their rarity, texts by the cosine; the assignment is optimal. Raises
    DataError unless there are as many texts as questions.
    """
    from scipy.optimize import linear_sum_assignment

    if len(questions) != len(others):
        raise DataError(f"{len(questions)} questions, but {len(others)} openings")
    left, right = [list(map(stems, texts)) for texts in (questions, others)]
    seen = Counter(stem for each in (*left, *right) for stem in each)
    weight = {stem: math.log(1 + 2 * len(left) / n) for stem, n in seen.items()}

    def size(found: frozenset[str]) -> float:
        return sum(weight[stem] for stem in sorted(found)) or 1.0

    sizes = [math.sqrt(size(each)) for each in right]
    cost = [[-size(one & two) / n if one & two else 0.0 for two, n in zip(right, sizes, strict=True)] for one in left]
    _, chosen = linear_sum_assignment(cost)
    return [int(index) for index in chosen]


def stems(text: str) -> frozenset[str]:
    """The beginnings of a text's words: six letters leave out most endings."""
    return frozenset(word[:6] for word in re.findall(r"[a-z0-9]+", text.lower()))


def harmbench(name: str) -> list[Behavior]:
    """Behaviors by their own ids; a contextual one's context comes first, as in upstream's prompts."""
    where = pinned.path(name, "harmbench_targets_text.json")
    targets = json.loads(where.read_text(encoding="utf-8"))
    if not isinstance(targets, dict):
        raise DataError(f"{where}: expected an object of targets by id")
    found = []
    for row in rows(pinned.path(name)):
        context, request = str(row.fields.get("ContextString") or ""), cell(row, "Behavior")
        found.append(
            Behavior(
                id=cell(row, "BehaviorID"),
                request=f"{context}\n\n---\n\n{request}" if context.strip() else request,
                category=cell(row, "SemanticCategory"),
                task=name,
                target=str(targets.get(cell(row, "BehaviorID"), "")),
            )
        )
    return found


def tabular(
    path: Path,
    task: str,
    prefix: str,
    request: str,
    *,
    id: str = "",
    category: str = "",
    target: str = "",
    expect: Expect = "refuse",
) -> list[Behavior]:
    """A file that is one table, by the names of its columns; without `id` the row's number is it."""
    return [
        Behavior(
            id=f"{prefix}-{cell(row, id)}" if id else f"{prefix}-{row.number:04d}",
            request=cell(row, request),
            expect=expect,
            category=cell(row, category) if category else "",
            target=cell(row, target) if target else "",
            task=task,
        )
        for row in rows(path)
    ]


def xstest(name: str) -> list[Behavior]:
    """Safe prompts, to be answered, and their unsafe contrasts, to be refused."""
    found = []
    for row in rows(pinned.path(name)):
        label = cell(row, "label")
        if label not in ("safe", "unsafe"):
            raise DataError(f"{row.where}: the label is neither safe nor unsafe")
        found.append(
            Behavior(
                id=f"xstest-{cell(row, 'id')}",
                request=cell(row, "prompt"),
                expect="comply" if label == "safe" else "refuse",
                category=cell(row, "type"),
                task=name,
            )
        )
    return found


def or_bench(name: str) -> list[Behavior]:
    """The hard prompts, to be answered, and the toxic ones, to be refused."""
    hard, toxic = pinned.path(name), pinned.path(name, "or-bench-toxic.csv")
    return [
        *tabular(hard, name, "or-bench", "prompt", category="category", expect="comply"),
        *tabular(toxic, name, "or-bench-toxic", "prompt", category="category"),
    ]


def table(prefix: str, request: str, *, expect: Expect = "refuse", **columns: str) -> Callable[[str], list[Behavior]]:
    """A reader of a set that is one table in one file."""
    return lambda name: tabular(pinned.path(name), name, prefix, request, expect=expect, **columns)


READERS: Mapping[str, Callable[[str], list[Behavior]]] = {
    "derta-200": derta,
    "harmbench": harmbench,
    "jailbreakbench": table("jbb", "Goal", id="Index", category="Category", target="Target"),
    "jailbreakbench-benign": table("jbb-benign", "Goal", id="Index", category="Category", expect="comply"),
    "advbench": table("advbench", "goal", target="target"),
    "strongreject": table("strongreject", "forbidden_prompt", category="category"),
    "do-not-answer": table("dna", "question", id="id", category="risk_area"),
    "xstest": xstest,
    "or-bench": or_bench,
}
