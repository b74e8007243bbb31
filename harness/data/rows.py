"""Rows out of JSONL, JSON and CSV files, one at a time: a file of any size takes no more memory than one row.

Whatever is broken is a DataError that names the file and the row.
"""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from harness.errors import DataError

CHUNK = 1 << 16


@contextmanager
def opened(path: Path, *, strict: bool = False) -> Iterator[TextIO]:
    """The file as text, unpacked (.gz, .xz); a byte-order mark is skipped, bytes that are no UTF-8 are replaced.

    Raises DataError where it can't be read, also later: a packed one that is broken, ends too early or is none, and
    where `strict`, one that is not UTF-8.
    """
    unpack: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
    try:
        with unpack.get(path.suffix.lower(), open)(
            path, "rt", encoding="utf-8-sig", errors="strict" if strict else "replace", newline=""
        ) as file:
            yield file
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as err:
        raise DataError(f"{path} can't be unpacked: is it cut short, or packed in another way?") from err
    except UnicodeDecodeError as err:
        raise DataError(f"{path} is not UTF-8", hint="save the file as UTF-8") from err
    except OSError as err:
        raise DataError(f"{path} can't be read: {err.strerror}") from err


def lines(path: Path, *, strict: bool = False) -> Iterator[tuple[int, Any]]:
    """Row number and value of every line of a JSONL file."""
    with opened(path, strict=strict) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as err:
                    raise DataError(f"{path} line {number} is not JSON (is the file cut short?): {err}") from err


def table(path: Path, *, strict: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """Row number (the header is row 1) and fields of every row of a CSV or TSV file."""
    csv.field_size_limit(1 << 30)
    with opened(path, strict=strict) as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        try:
            if not reader.fieldnames:
                raise DataError(f"{path} is empty")
            for number, row in enumerate(reader, 2):
                if None in row or None in row.values():
                    columns = len(reader.fieldnames)
                    raise DataError(f"{path} row {number} (line {reader.line_num}) does not have {columns} columns")
                yield number, row
        except csv.Error as err:
            raise DataError(f"{path} line {reader.line_num} is not CSV: {err}") from err


def elements(path: Path, *, strict: bool = False) -> Iterator[tuple[int, Any]]:
    """Number and value of every element of a JSON array; of an object, its `(key, value)` pairs."""
    with opened(path, strict=strict) as file:
        text = _Text(path, file)
        kind = text.skip()
        if kind not in ("[", "{"):
            raise DataError(f"{path} is no JSON array or object")
        text.take()
        number, end = 0, "]" if kind == "[" else "}"
        while (char := text.skip()) != end:
            if number and char != ",":
                raise DataError(f"{path} element {number}: a comma is missing, or the file ends too early")
            if number:
                text.take()
            number += 1
            if kind == "[":
                yield number, text.value(number)
                continue
            key = text.value(number)
            if not isinstance(key, str) or text.skip() != ":":
                raise DataError(f"{path} element {number}: a key without a value")
            text.take()
            yield number, (key, text.value(number))
        text.take()
        if text.skip():
            raise DataError(f"{path}: something follows the {end} that ends it")


def every(path: Path, *, strict: bool = False) -> Iterator[tuple[int, Any]]:
    """Number and value of every row of a CSV, TSV, JSON array or JSONL file, told by its suffix and first character."""
    if path.suffix.lower() in (".csv", ".tsv"):
        return iter(table(path, strict=strict))
    with opened(path, strict=strict) as file:
        array = file.read(4096).lstrip().startswith("[")
    return elements(path, strict=strict) if array else lines(path, strict=strict)


def objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file to train on. Raises DataError for one that is no object, no UTF-8, or when there is none."""
    number = 0
    for number, row in every(path, strict=True):
        if not isinstance(row, dict):
            raise DataError(f"{path} row {number} is no object")
        yield number, row
    if not number:
        raise DataError(f"{path} is empty")


class _Text:
    """A file's text, of which only the part being read is held."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self.path, self.file = path, file
        self.buffer, self.at = "", 0

    def _more(self, size: int) -> bool:
        chunk = self.file.read(size)
        self.buffer, self.at = self.buffer[self.at :] + chunk, 0
        return bool(chunk)

    def skip(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self.at < len(self.buffer):
                if not self.buffer[self.at].isspace():
                    return self.buffer[self.at]
                self.at += 1
            if not self._more(CHUNK):
                return ""

    def take(self) -> None:
        """Steps over one character."""
        self.at += 1

    def value(self, number: int) -> Any:
        """The JSON value that begins here. Raises DataError with the number of a broken element."""
        self.skip()
        size = CHUNK
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self.buffer, self.at)
            except (ValueError, RecursionError) as err:
                if isinstance(err, RecursionError) or not self._more(size):
                    raise DataError(f"{self.path} element {number} is not JSON: {err}") from err
                size *= 2
                continue
            if end == len(self.buffer) and self._more(size):  # a number may go on in the next chunk
                continue
            self.at = end
            return value
