"""Training data: triples (request, safe reply, violating reply), helpful pairs, and rows of the official files.

A set is a folder with `triples.jsonl` and `helpful.jsonl`, or one official file of `prefix`, `text`, `safe` rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from harness.data import rows
from harness.errors import DataError, UsageError
from harness.types import sha

HOME = Path(__file__).parent / "data"
"""The bundled sets, by name: `magic` is the stand-in policy's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Triple:
    """A request that must be refused, a safe reply to it, and a violating one. `raw`: as in Helpful."""

    id: str
    request: str
    safe: str
    violating: str
    source: str = ""  # who wrote the violating reply
    raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Helpful:
    """A request that must be answered, and an answer. `raw`: plain text that goes on, without a chat template; `cut`:
    the answer need not end here, so that its end is not learned."""

    id: str
    request: str
    reply: str
    kind: str = "general"  # general, lookalike (near the policy, harmless), opening or program (raw texts)
    raw: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A row of the official files: read `prefix`, learn `text`; `rto` where `safe` says "true" (a trap of names)."""

    id: str
    prefix: str
    text: str
    rto: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSet:
    """Everything a recipe may draw from. `digest` identifies the content, in whatever files it lay."""

    triples: tuple[Triple, ...] = ()
    helpful: tuple[Helpful, ...] = ()
    instances: tuple[Instance, ...] = ()

    @property
    def digest(self) -> str:
        """16 hex digits over every row in order."""
        return sha(asdict(self))


R = TypeVar("R", Triple, Helpful)


def load(where: str | Path) -> TrainSet:
    """The set in a folder, an official file, or a bundled set by name. Raises DataError naming the broken line."""
    path = HOME / where if isinstance(where, str) and (HOME / where).is_dir() else Path(where)
    if path.is_dir():
        triples = tuple(parse(path / "triples.jsonl", Triple))
        helpful = tuple(parse(path / "helpful.jsonl", Helpful))
        found = TrainSet(triples=triples, helpful=helpful)
    elif path.is_file():
        found = TrainSet(instances=tuple(official(path)))
    else:
        known = sorted(p.name for p in HOME.iterdir() if p.is_dir())
        raise DataError(
            f"no training data at {path}", hint=f"--data: a folder, an official file, or one of: {', '.join(known)}"
        )
    if not (found.triples or found.instances):
        raise DataError(f"{path} holds no triple and no row: nothing to learn from")
    return found


def save(folder: Path, data: TrainSet, manifest: Mapping[str, Any]) -> None:
    """Writes a set as `load` reads it, with a manifest of how it came about. Raises UsageError when it can't."""
    texts = {
        "triples": [json.dumps(asdict(row), ensure_ascii=False) for row in data.triples],
        "helpful": [json.dumps(asdict(row), ensure_ascii=False) for row in data.helpful],
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, found in texts.items():
            write(folder / f"{name}.jsonl", "".join(f"{row}\n" for row in found))
        write(folder / "manifest.json", json.dumps(dict(manifest), indent=2, ensure_ascii=False) + "\n")
    except OSError as err:
        raise UsageError(f"{folder} can't be written: {err.strerror}", hint="name another folder with --out") from err


def write(path: Path, text: str) -> None:
    """Writes a file; a new one is its owner's alone, since the replies in it may be harmful."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def parse(path: Path, kind: type[R]) -> Iterator[R]:
    """The rows of one JSONL file; every text must be there and not empty."""
    known = {f.name for f in fields(kind)}
    for number, row in rows.objects(path):
        missing = [key for key in REQUIRED[kind] if not isinstance(row.get(key), str) or not row[key].strip()]
        unknown = sorted(set(row) - known)
        if missing or unknown:
            what = f"lacks {', '.join(missing)}" if missing else f"has unknown keys {', '.join(unknown)}"
            raise DataError(f"{path}, line {number}: {what}", hint=f"a row holds: {', '.join(sorted(known))}")
        yield kind(**row)


REQUIRED: dict[type, Sequence[str]] = {
    Triple: ("id", "request", "safe", "violating"),
    Helpful: ("id", "request", "reply"),
}


def official(path: Path) -> Iterator[Instance]:
    """Rows of `prefix`, `text`, `safe`, as JSONL or as one JSON list."""
    for number, row in rows.objects(path):
        if not all(isinstance(row.get(key), str) for key in ("prefix", "text")) or not row["text"].strip():
            raise DataError(f"{path}, line {number}: a row needs `prefix`, `text` and `safe`")
        flag = str(row.get("safe", "")).lower()
        if flag not in {"true", "false"}:
            raise DataError(f'{path}, line {number}: `safe` must be "true" (RTO) or "false" (MLE), not {flag!r}')
        yield Instance(id=f"row-{number}", prefix=row["prefix"], text=row["text"], rto=flag == "true")
