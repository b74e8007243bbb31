"""Grades replies to questions with one right answer, the way that reproduces the numbers DeRTa recorded.

mmlu    the option it names: the first letter in brackets, (A) to (D), else the one after "the answer is", else the
        first bare letter
gsm8k   `lenient`, as DeRTa: any number of the last sentence that holds one; `strict`: the last number of the reply

A reply without an answer is wrong, with the reason `no-answer`: the paper counts it so, and a model must not gain by
keeping silent. A reply of white space holds nothing to grade and is unscored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Literal, TypeAlias

from harness.types import Judgement

Kind: TypeAlias = Literal["gsm8k", "mmlu"]
Reading: TypeAlias = Callable[[str, str], bool | None]
"""Whether a reply's answer is the right one, given the reply and the reference; None where it names none."""

_BRACKETS = re.compile(r"\(([A-D])\)")
_STATED = re.compile(r"\b[Aa]nswer(?:\s+is|\s*:)\W{0,6}([A-D])\b(?!['’])")
# "A" before a word in lower case is an article, and "A's" or "C's" are no options.
_BARE = re.compile(r"(?<![A-Za-z'’])(?:([B-D])|(A)(?!\s+[a-z]))(?![A-Za-z'’])")
_NUMBER = re.compile(r"(?<![^\W_])(?<!\.)-?\$?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)")
_SENTENCE_END = re.compile(r"\n|(?<=[.!?])\s")


def option(reply: str) -> str | None:
    """The option a reply names, "A" to "D"; None where it names none."""
    found = _BRACKETS.search(reply) or _STATED.search(reply) or _BARE.search(reply)
    return next(letter for letter in found.groups() if letter) if found else None


def numbers(text: str) -> list[Decimal]:
    """Every number of a text in order: `1,234.50`, `$8`, `-3`, `.5`; a sign counts where no number stands before it."""
    found = _NUMBER.findall(text.replace("\N{MINUS SIGN}", "-"))
    return [Decimal(number.replace("$", "").replace(",", "")) for number in found]


def last_numbers(reply: str) -> list[Decimal]:
    """The numbers of the last sentence that holds one; empty where none does."""
    for sentence in reversed(_SENTENCE_END.split(reply)):
        if found := numbers(sentence):
            return found
    return []


def reference_number(reference: str) -> Decimal:
    """The right answer of a GSM8K row: the number behind `####`, else its last one. Raises ValueError without one."""
    found = numbers(reference.rpartition("####")[2])
    if not found:
        raise ValueError("the reference answer holds no number")
    return found[-1]


def reference_option(reference: str) -> str:
    """The right option of an MMLU row, such as `C`, `-C` or `(C)`. Raises ValueError where it is none."""
    found = re.fullmatch(r"\W*([A-D])\W*", reference)
    if not found:
        raise ValueError("the reference answer is no option from A to D")
    return found[1]


def _option(reply: str, reference: str) -> bool | None:
    named = option(reply)
    return None if named is None else named == reference_option(reference)


def _lenient(reply: str, reference: str) -> bool | None:
    found = last_numbers(reply)
    return reference_number(reference) in found if found else None


def _strict(reply: str, reference: str) -> bool | None:
    found = numbers(reply)
    return reference_number(reference) == found[-1] if found else None


READINGS: Mapping[Kind, Mapping[str, Reading]] = {
    "gsm8k": {"lenient": _lenient, "strict": _strict},
    "mmlu": {"option": _option},
}
"""How a reply of each kind may be read; the first reading is the one that counts."""


def grade(kind: Kind, reply: str, reference: str) -> tuple[Judgement, ...]:
    """One judgement for each reading of a reply, the one that counts first. Raises ValueError for a bad reference."""
    return tuple(_judgement(name, read, reply, reference) for name, read in READINGS[kind].items())


def _judgement(name: str, read: Reading, reply: str, reference: str) -> Judgement:
    right = read(reply, reference)
    if right is None and not reply.strip():
        return Judgement(judge=f"grade:{name}", label="unscored", reason="empty")
    label: Literal["correct", "wrong"] = "correct" if right else "wrong"
    reason = "no-answer" if right is None else ""
    return Judgement(judge=f"grade:{name}", label=label, score=float(bool(right)), reason=reason)
