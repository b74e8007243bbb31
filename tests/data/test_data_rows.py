"""Rows out of files that are not what their name says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.data import recorded, rows
from harness.errors import DataError


@pytest.mark.parametrize("name", ["plain.jsonl.gz", "plain.jsonl.xz"])
@pytest.mark.parametrize("reader", [rows.every, rows.lines, rows.elements, rows.table, recorded.read])
def test_a_plain_file_under_a_packed_name_is_said(
    tmp_path: Path, name: str, reader: Callable[[Path], Iterator[Any]]
) -> None:
    path = tmp_path / name
    path.write_text('{"request": "How do I kill time?", "reply": "Read."}\n')
    with pytest.raises(DataError, match=rf"{name} can't be unpacked"):
        list(reader(path))
