"""Training data: triples (request, safe reply, violating reply), helpful pairs, and rows of the official files.

A set is a folder with `triples.jsonl` and `helpful.jsonl`, or one official file of `prefix`, `text`, `safe` rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from harness.data import rows
from harness.data.fetch import replacing
from harness.errors import DataError, UsageError
from harness.store import read_json
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
    """The set in a folder, an official file, or a bundled set by name. Raises DataError naming the broken line, or
    where a folder's manifest is of other rows."""
    known = sorted(p.name for p in HOME.iterdir() if p.is_dir())
    path = HOME / where if where in known else Path(where)  # names alone: HOME / "." is a folder too
    if path.is_dir():
        triples = tuple(parse(path / "triples.jsonl", Triple))
        helpful = tuple(parse(path / "helpful.jsonl", Helpful))
        found = TrainSet(triples=triples, helpful=helpful)
        check_manifest(path / "manifest.json", found)
    elif path.is_file():
        found = TrainSet(instances=tuple(official(path)))
    else:
        raise DataError(
            f"no training data at {path}", hint=f"--data: a folder, an official file, or one of: {', '.join(known)}"
        )
    if not (found.triples or found.instances):
        raise DataError(f"{path} holds no triple and no row: nothing to learn from")
    return found


def check_manifest(path: Path, data: TrainSet) -> None:
    """Raises DataError where a set's manifest is of other rows; a set may have none."""
    told = read_json(path) if path.exists() else {}
    if isinstance(told, dict) and told.get("data_sha", data.digest) != data.digest:
        hint = "build it again; or, if the rows were changed on purpose, remove manifest.json"
        raise DataError(
            f"{path} is of other rows than lie beside it: the set was written in part, or changed", hint=hint
        )


def save(folder: Path, data: TrainSet, manifest: Mapping[str, Any]) -> None:
    """Writes a set as `load` reads it, with a manifest of how it came about. Raises UsageError when it can't.

    The replies may be harmful: the files are their owner's alone. All are written before the first takes its place,
    and that is the manifest, so that `load` tells a set that was replaced in part.
    """
    told = json.dumps({**manifest, "data_sha": data.digest}, indent=2, ensure_ascii=False) + "\n"
    texts = {"helpful.jsonl": jsonl(data.helpful), "triples.jsonl": jsonl(data.triples), "manifest.json": told}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:  # what was opened last takes its place first
            for name, text in texts.items():
                stack.enter_context(replacing(folder / name)).write(text.encode())
    except OSError as err:
        raise UsageError(f"{folder} can't be written: {err.strerror}", hint="name another folder with --out") from err


def jsonl(found: Sequence[Triple | Helpful]) -> str:
    """Rows as text, one a line."""
    return "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in found)


def parse(path: Path, kind: type[R]) -> Iterator[R]:
    """The rows of one JSONL file; every text must be there and not empty."""
    known = get_type_hints(kind)
    seen: dict[str, int] = {}
    for number, line in rows.objects(path):
        row = filled(line)
        unknown = sorted(set(row) - set(known))
        what = f"has unknown keys {', '.join(unknown)}" if unknown else flaw(row, known, REQUIRED[kind])
        if what:
            raise DataError(f"{path}, line {number}: {what}", hint=f"a row holds: {', '.join(sorted(known))}")
        if (before := seen.setdefault(row["id"], number)) != number:
            raise DataError(f"{path}, line {number}: has the id of line {before}", hint="give every row its own")
        yield kind(**row)


REQUIRED: dict[type, Sequence[str]] = {
    Triple: ("id", "request", "safe", "violating"),
    Helpful: ("id", "request", "reply"),
}
KINDS: dict[type, str] = {str: "a text", bool: "true or false", int: "a whole number"}


def filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what is null or a text of blanks: that is as good as not there."""
    return {
        key: value
        for key, value in row.items()
        if value is not None and not (isinstance(value, str) and not value.strip())
    }


def torn(values: Iterable[Any]) -> bool:
    """Whether a text among them holds half of a surrogate pair, which JSON may: no tokenizer takes it, and no file."""
    return any(isinstance(value, str) and SURROGATE.search(value) for value in values)


TORN = "a text holds half of a surrogate pair"
SURROGATE = re.compile(r"[\ud800-\udfff]")


def flaw(row: Mapping[str, Any], known: Mapping[str, type], required: Sequence[str]) -> str:
    """What is wrong with a row: a value of another kind, one that is missing, a torn text; empty where nothing is."""
    for key, kind in known.items():
        if key in row and type(row[key]) is not kind:
            return f"`{key}` must be {KINDS[kind]}"
    missing = [key for key in required if key not in row]
    return f"lacks {', '.join(missing)}" if missing else TORN if torn(row.values()) else ""


def official(path: Path) -> Iterator[Instance]:
    """Rows of `prefix`, `text`, `safe`, as JSONL or as one JSON list."""
    for number, row in rows.objects(path):
        if not all(isinstance(row.get(key), str) for key in ("prefix", "text")) or not row["text"].strip():
            raise DataError(f"{path}, line {number}: a row needs `prefix`, `text` and `safe`")
        if torn(row.values()):
            raise DataError(f"{path}, line {number}: {TORN}")
        flag = str(row.get("safe", "")).lower()
        if flag not in {"true", "false"}:
            raise DataError(f'{path}, line {number}: `safe` must be "true" (RTO) or "false" (MLE), not {flag!r}')
        yield Instance(id=f"row-{number}", prefix=row["prefix"], text=row["text"], rto=flag == "true")
