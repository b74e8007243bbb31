"""Where a training set's rows come from: a folder of ours, a public set, or a file of the user's.

A row of requests has `id`, `request`, and where they are known `reply` (violating) and `safe`; a helpful row has `id`,
`request`, `reply`, `kind`, `raw`. Readers count what they drop.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from harness.data import pinned
from harness.data.rows import objects
from harness.errors import DataError
from harness.models.embedded import file_sha256
from harness.train.data import filled, flaw

Row: TypeAlias = dict[str, Any]
Dropped: TypeAlias = Counter[str]

REFUSAL = re.compile(
    r"\bsorry\b|\bI(?:'m| am) (?:unable|not able)\b|\bI (?:can(?:'|no)t|won't|will not|must decline)\b", re.I
)
SHORT = 12  # words; a violating reply of fewer teaches nothing
REQUEST = ("request", "prompt", "question", "instruction", "goal", "forbidden_prompt")
REPLY = ("reply", "response", "output", "answer", "completion")
FIELDS: dict[str, type] = {"id": str, "request": str, "reply": str, "safe": str, "kind": str, "raw": bool, "words": int}
"""What a row of tricks.jsonl or questions.jsonl may hold; it must hold the first two."""


def locate(given: str | Path) -> Path:
    """A path, or a public set that was pulled, by name. Raises DataError for neither, UsageError when not pulled."""
    path = Path(given).expanduser()
    if path.exists():
        return path
    if str(given) in pinned.table():
        return pinned.path(str(given))
    raise DataError(f"there is no {given}", hint="a folder, a file, or a public set: harness data ls")


def requests(given: str | Path) -> tuple[list[Row], list[Row], Dropped]:
    """Requests to refuse, the questions that lie beside them, and what was dropped. Raises DataError."""
    path = locate(given)
    if not path.is_dir():
        found, dropped = triples(path)
        return found, [], dropped
    questions = path / "questions.jsonl"
    return ours(path / "tricks.jsonl"), ours(questions) if questions.exists() else [], Counter()


def origin(given: str | Path) -> dict[str, Any]:
    """What a manifest keeps of a source: how it was named, and the sha256 of each file that is read."""
    path = locate(given)
    files = [path / "tricks.jsonl", path / "questions.jsonl"] if path.is_dir() else [path]
    return {"name": str(given), "files": {file.name: file_sha256(file) for file in files if file.exists()}}


def ours(path: Path) -> list[Row]:
    """The rows of a file of our own form. Raises DataError with the line and the field that is missing or of no use."""
    found = []
    for number, line in objects(path):
        row = filled(line)
        if what := flaw(row, FIELDS, ("id", "request")):
            raise DataError(f"{path}, line {number}: {what}", hint=f"a row holds: {', '.join(FIELDS)}")
        found.append(row)
    return found


def triples(path: Path) -> tuple[list[Row], Dropped]:
    """Requests of a file: BeaverTails rows (told by `is_safe`), or one request a row."""
    _, first = next(objects(path))
    if "is_safe" in first:
        return beavertails(path)
    found = []
    for number, line in objects(path):
        row = filled(line)
        request = text(row, REQUEST)
        if not request:
            raise DataError(f"{path} row {number}: no request", hint=f"one of: {', '.join(REQUEST)}")
        reply, safe = text(row, ("violating", *REPLY)), text(row, ("safe",))
        found.append({"id": str(row.get("id") or f"{stem(path)}-{number}"), "request": request, "reply": reply,
                      "safe": safe})  # fmt: skip
    return found, Counter()


def beavertails(path: Path) -> tuple[list[Row], Dropped]:
    """One triple a prompt: the first reply that most of its annotators call unsafe, and a safe refusal if there is one.

    Rows of one prompt and reply are votes on it; a tie is no verdict.
    """
    votes: dict[str, dict[str, int]] = {}
    for number, row in objects(path):
        prompt, reply, safe = row.get("prompt"), row.get("response"), str(row.get("is_safe")).lower()
        if not (isinstance(prompt, str) and isinstance(reply, str)) or safe not in ("true", "false"):
            raise DataError(f"{path} row {number}: a row needs prompt, response and is_safe")
        replies = votes.setdefault(prompt.strip(), {})
        replies[reply.strip()] = replies.get(reply.strip(), 0) + (1 if safe == "true" else -1)
    found, dropped = [], Counter[str]()
    for number, (prompt, replies) in enumerate(votes.items(), 1):
        unsafe = [reply for reply, vote in replies.items() if vote < 0]
        whole = [reply for reply in unsafe if len(reply.split()) >= SHORT]
        violating = next((reply for reply in whole if not REFUSAL.search(reply)), "")
        if not prompt or not violating:
            dropped["violating: none" if not unsafe else "violating: refusal" if whole else "violating: short"] += 1
            continue
        safe = next((reply for reply, vote in replies.items() if vote > 0 and REFUSAL.search(reply)), "")
        found.append({"id": f"beavertails-{number}", "request": prompt, "reply": violating, "safe": safe})
    return found, dropped


def pairs(given: str | Path) -> tuple[list[Row], Dropped]:
    """Helpful pairs of a file: request and reply under one of several names, or a conversation's first exchange.

    Dropped and counted: without request or reply, refusing.
    """
    path, found, dropped = locate(given), [], Counter[str]()
    for number, line in objects(path):
        row = filled(line)
        request, reply = exchange(row)
        why = "empty" if not (request and reply) else "refusal" if REFUSAL.search(reply) else ""
        if why:
            dropped[f"helpful: {why}"] += 1
            continue
        kind = {"kind": str(row["kind"])} if row.get("kind") else {}
        name = str(row.get("id") or f"{stem(path)}-{number}")
        raw = str(row.get("raw")).lower() in ("true", "1", "yes")
        found.append({"id": name, "request": request, "reply": reply, "raw": raw, **kind})
    return found, dropped


def exchange(row: Mapping[str, Any]) -> tuple[str, str]:
    """The request and the reply of a row."""
    turns = row.get("conversations", row.get("messages"))
    if not isinstance(turns, list):
        return text(row, REQUEST), text(row, REPLY)
    named = [turn for turn in turns if isinstance(turn, dict)]
    said = [(t.get("from") or t.get("role"), words(t.get("value") or t.get("content"))) for t in named]
    first = next((i for i, (who, _) in enumerate(said) if who in ("human", "user")), None)
    if first is None or first + 1 >= len(said) or said[first + 1][0] not in ("gpt", "assistant"):
        return "", ""
    return said[first][1], said[first + 1][1]


def words(content: Any) -> str:
    """What a turn says: a text, or the parts of it that are; empty where something else than text is among the parts.

    A request whose image is left out is another one.
    """
    parts = content if isinstance(content, list) else [content]
    told = [part.get("text") if isinstance(part, dict) else part for part in parts]
    texts = [each for each in told if isinstance(each, str)]
    return "".join(texts).strip() if len(texts) == len(told) else ""


def text(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of these columns that holds a text; empty where none does."""
    return next((str(row[name]).strip() for name in names if isinstance(row.get(name), str) and row[name].strip()), "")


def stem(path: Path) -> str:
    """A file's name without any ending."""
    return path.name.split(".")[0]


def drawn(found: list[Row], n: int, rng: random.Random) -> list[Row]:
    """`n` of the rows in their order, at random; all of them where `n` is 0 or there are no more."""
    if not 0 < n < len(found):
        return found
    return [found[i] for i in sorted(rng.sample(range(len(found)), n))]
