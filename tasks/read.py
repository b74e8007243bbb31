"""Rows out of JSONL, JSON and CSV files. Whatever is broken is named with its file and its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One item of a file: `number` counts items from 1, `where` is the file and line to blame."""

    number: int
    where: str
    fields: Mapping[str, object]


def rows(path: Path) -> tuple[Row, ...]:
    """Every item of a file. Raises DataError when the file is missing, broken, empty or of another format."""
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv}
    if path.suffix.lower() not in readers:
        what = path.suffix or "a file without suffix"
        raise DataError(f"{path}: can't read {what}", hint=f"use one of {', '.join(readers)}")
    found = [
        Row(number=number, where=where, fields=fields)
        for number, (where, fields) in enumerate(readers[path.suffix.lower()](path, _text(path)), start=1)
    ]
    if not found:
        raise DataError(f"{path}: holds no rows")
    return tuple(found)


def _text(path: Path) -> str:
    """The file as text, without the byte-order mark that spreadsheets put in front."""
    try:
        data = path.read_bytes()
    except OSError as err:
        raise DataError(f"{path}: can't be read: {err.strerror}") from err
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8", hint="save the file as UTF-8") from err


def _jsonl(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    # split("\n") and not splitlines(): JSON strings may hold U+2028, which is no line end here.
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            where = f"{path}, line {line}"
            yield where, _object(where, _parse(where, content))


def _json(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    if _is_jsonl(text):  # public files are often JSONL by another name
        yield from _jsonl(path, text)
        return
    values = _parse(str(path), text)
    if not isinstance(values, list):
        raise DataError(f"{path}: expected a list of objects, found {_kind(values)}")
    for number, value in enumerate(values, start=1):
        where = f"{path}, item {number}"
        yield where, _object(where, value)


def _is_jsonl(text: str) -> bool:
    """Whether a text is several JSON objects, one on a line."""
    first, _, rest = text.strip().partition("\n")
    try:
        return bool(rest) and isinstance(json.loads(first), dict)
    except json.JSONDecodeError:
        return False


def _csv(path: Path, text: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            where = f"{path}, line {start}"  # a quoted cell may run over several lines: name the first
            start = reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = cells
            elif len(cells) != len(header):
                raise DataError(f"{where}: {len(cells)} cells where the header names {len(header)}")
            else:
                yield where, dict(zip(header, cells, strict=True))
    except csv.Error as err:
        raise DataError(f"{path}, line {start}: broken CSV: {err}") from err


def _parse(where: str, text: str) -> object:
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as err:
        inside = f", line {err.lineno}" if "\n" in text else ""
        raise DataError(f"{where}{inside}: broken JSON: {err.msg} (column {err.colno})") from err
    return value


def _object(where: str, value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, found {_kind(value)}")
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
