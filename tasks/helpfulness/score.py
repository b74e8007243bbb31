"""Marks replies for lm-eval: each function takes an item and the model's replies to it, and returns its metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from harness.grading import grade
from tasks.helpfulness.checks import followed

NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
MARKER = re.compile(r"####|\banswer\b(?:\s+is|\s*:|\s*=)?|\\boxed", re.IGNORECASE)


def number(reply: str) -> Decimal | None:
    """The number a reply gives as its result; None where it holds none.

    After a marker such as "the answer is" the first number of that sentence counts (after the last "=", if
    there is one); else the last number of the reply. "1,250", "$8.00" and a typographic minus are understood.
    """
    text = reply.replace("\u2212", "-")
    for marker in reversed(list(MARKER.finditer(text))):
        sentence = re.split(r"\n|[.?!]\s", text[marker.end() :], maxsplit=1)[0]
        if found := NUMBER.findall(sentence.rpartition("=")[2]):
            return _decimal(found[0])
    found = NUMBER.findall(text)
    return _decimal(found[-1]) if found else None


def arithmetic(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 where the number of the reply equals the answer, else 0."""
    return {"exact_match": float(number(results[0]) == Decimal(doc["answer"]))}


def derta_gsm8k(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The paper's lenient reading and the strict one; NaN, which is unscored, for an empty reply."""
    return {j.judge.rpartition(":")[2]: _mark(j.score) for j in grade("gsm8k", results[0], doc["answer"])}


def derta_mmlu(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 where the reply names the right option; NaN, which is unscored, for an empty reply."""
    return {j.judge.rpartition(":")[2]: _mark(j.score) for j in grade("mmlu", results[0], doc["answer"])}


def _mark(score: float | None) -> float:
    return math.nan if score is None else score


def instructions(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """1 where the reply passes every check of the item and does not just repeat the prompt, else 0."""
    reply = results[0]
    return {"followed": float(doc["prompt"] not in reply and all(followed(reply, check) for check in doc["checks"]))}


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))
