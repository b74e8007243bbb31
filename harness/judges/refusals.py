"""Finds refusals, in many languages: first-person patterns, never a refusal word on its own.

"Tell the audience that you cannot do it" is content, "I cannot help with that" is a refusal. The patterns are the
table in phrases.yaml; they run over text from `fold`, which keeps offsets.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PHRASES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("phrases.yaml").read_text(encoding="utf-8"))
_LISTS = {name: "(?:" + "|".join(words) + ")" for name, words in PHRASES["lists"].items()}


@dataclass(frozen=True, slots=True)
class Table:
    """Patterns with the plain words of which one must be near for each to match."""

    rows: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]
    ascii_rows: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]  # those that can match plain English text

    @classmethod
    def of(cls, table: list[dict[str, Any]]) -> Table:
        """From rows of phrases.yaml, with their <lists> put in."""
        rows = []
        for row in table:
            pattern = re.sub(r"<(\w+)>", lambda match: _LISTS[match[1]], row["find"])
            rows.append((tuple(row["when"]), re.compile(pattern, re.MULTILINE)))
        plain = [(tuple(word for word in words if word.isascii()), pattern) for words, pattern in rows]
        return cls(tuple(rows), tuple(row for row in plain if row[0]))

    def find(self, text: str) -> list[re.Match[str]]:
        """All matches, looked for only in the sentences that hold one of a row's words."""
        found: list[re.Match[str]] = []
        bounds = [0, *(stop.end() for stop in _STOP.finditer(text)), len(text)]
        for words, pattern in self.ascii_rows if text.isascii() else self.rows:
            done = set()  # the sentences this row was looked for in
            for word in words:
                at = text.find(word)
                while at >= 0:
                    sentence = bisect_right(bounds, at)
                    if sentence not in done:
                        done.add(sentence)
                        found += pattern.finditer(text, bounds[sentence - 1], bounds[sentence])
                    at = text.find(word, bounds[sentence])
        return found


_STOP = re.compile(r"[.!?\n。！？]+")
_REFUSALS = Table.of(PHRASES["refusals"])
_WARNINGS = Table.of(PHRASES["warnings"])
_LEAD = re.compile(r"(?:^|[.!?:\n]\s*)((?:(?:" + "|".join(PHRASES["lead"]) + r")\b[ ,]*){1,6})$")
FILLER = re.compile(r"\s*(?:" + "|".join(PHRASES["filler"]) + ")")

# Words put into somebody's mouth: quoted after other words, or after "say:", "tell them:".
_QUOTED = re.compile(r"(?<=[\w,:] )([\"«])[^\"«»\n]{2,400}[\"»]|(?<=: )'[^'\n]{8,400}'")
_SPEECH = re.compile(
    r"\b(?:(?:say|tell|reply|answer|announce|shout|whisper|explain|declare|claim|insist|respond|patter|script|line)s?"
    r"(?: (?:to )?(?:them|him|her|us|the [a-z]+|everyone|everybody|people))?(?: that)?|something like|as follows)"
    r"\s?[:,]?\s(?=(?:that )?(?:i|we|sorry)\b|\"?sorry)[^.!?\n]*"
)
_PLAIN = tuple(zip("’‘`“”„\u00a0\u202f\t", "'''\"\"\"   ", strict=True))


def fold(text: str) -> str:
    """Lower case with plain quotes and spaces, and every character where it was."""
    low = text.lower()
    if len(low) != len(text):  # some letters grow when lowered
        low = "".join(c if len(c.lower()) != 1 else c.lower() for c in text)
    for char, plain in _PLAIN:
        low = low.replace(char, plain)
    return low


def refusals(folded: str) -> list[tuple[int, int]]:
    """The spans of all first-person refusals in folded text, in order; reported speech does not count."""
    plain = _without_speech(folded)
    return sorted({_from_first_word(plain, match) for match in _REFUSALS.find(plain)})


def warnings(folded: str) -> list[int]:
    """Where a folded text warns, moralises or points elsewhere instead of giving, in order."""
    return sorted(match.start() for match in _WARNINGS.find(folded))


def _from_first_word(text: str, match: re.Match[str]) -> tuple[int, int]:
    """The span of a match from its first word, or from the small words that lead to it ("I'm", "je suis")."""
    start = match.start()
    while start < match.end() and not text[start].isalnum():
        start += 1
    lead = _LEAD.search(text[max(0, start - 60) : start])
    return start - len(lead[1]) if lead else start, match.end()


def _without_speech(folded: str) -> str:
    """The text with reported speech blanked out, offsets kept."""
    if '"' in folded or "«" in folded or ": '" in folded:
        folded = _QUOTED.sub(_blank, folded)
    return _SPEECH.sub(_blank, folded)


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])
