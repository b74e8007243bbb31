"""Finds refusals, in many languages: first-person patterns, never a refusal word on its own.

"Tell the audience that you cannot do it" is content, "I cannot help with that" is a refusal. The patterns are the
table in phrases.yaml; they run over text from `fold`, which keeps offsets.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

PHRASES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("phrases.yaml").read_text(encoding="utf-8"))
_LISTS = {name: "(?:" + "|".join(words) + ")" for name, words in PHRASES["lists"].items()}


def _expand(pattern: str) -> re.Pattern[str]:
    """A pattern of the table with its <lists> put in."""
    return re.compile(re.sub(r"<(\w+)>", lambda match: _LISTS[match[1]], pattern), re.MULTILINE)


_REFUSALS = tuple((tuple(row["when"]), _expand(row["find"])) for row in PHRASES["refusals"])
_LEAD = re.compile(r"(?:^|[.!?:\n]\s*)((?:(?:" + "|".join(PHRASES["lead"]) + r")\b[ ,]*){1,6})$")
FILLER = re.compile(r"\s*(?:" + "|".join(PHRASES["filler"]) + ")")
WARNS = re.compile(r"\b(?:" + "|".join(PHRASES["warns"]) + r")\b")

# Words put into somebody's mouth: quoted after other words, or after "say:", "tell them:".
_QUOTED = re.compile(r"(?<=[\w,:] )([\"«])[^\"«»\n]{2,400}[\"»]|(?<=: )'[^'\n]{8,400}'")
_SPEECH = re.compile(
    r"\b(?:(?:say|tell|reply|answer|announce|shout|whisper|explain|declare|claim|insist|respond|patter|script|line)s?"
    r"(?: (?:to )?(?:them|him|her|us|the [a-z]+|everyone|everybody|people))?(?: that)?|something like|as follows)"
    r"\s?[:,]?\s(?=(?:that )?(?:i|we|sorry)\b|\"?sorry)[^.!?\n]*"
)
_FOLD = str.maketrans("’‘`“”„\u00a0\u202f\t", "'''\"\"\"   ")


def fold(text: str) -> str:
    """Lower case with plain quotes and spaces, and every character where it was."""
    low = text.lower()
    if len(low) != len(text):  # some letters grow when lowered
        low = "".join(c if len(c.lower()) != 1 else c.lower() for c in text)
    return low.translate(_FOLD)


def refusals(folded: str) -> list[tuple[int, int]]:
    """The spans of all first-person refusals in folded text, in order; reported speech does not count."""
    spans: list[tuple[int, int]] = []
    plain = _without_speech(folded)
    for words, pattern in _REFUSALS:
        if any(word in plain for word in words):
            spans += (_from_first_word(plain, match) for match in pattern.finditer(plain))
    return sorted(spans)


def _from_first_word(text: str, match: re.Match[str]) -> tuple[int, int]:
    """The span of a match from its first word, or from the small words that lead to it ("I'm", "je suis")."""
    start = match.start()
    while start < match.end() and not text[start].isalnum():
        start += 1
    lead = _LEAD.search(text[max(0, start - 60) : start])
    return start - len(lead[1]) if lead else start, match.end()


def _without_speech(folded: str) -> str:
    """The text with reported speech blanked out, offsets kept."""
    for pattern in (_QUOTED, _SPEECH):
        folded = pattern.sub(lambda match: " " * len(match[0]), folded)
    return folded
