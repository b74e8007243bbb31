"""The report as Markdown, for a pull request or a CI summary: the same words and tables, no figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.types import Run
from reports import save
from reports.build import view
from reports.view import Cell, Fact, Table, View

# What could open a tag, span, cell, link, emphasis, heading or mention; "www." is a link of its own on GitHub. Left as
# they are, so that the source reads well: intervals, an underscore or colon inside a word or sentence.
_ACTIVE = re.compile(
    r"(?P<interval>\[[\d., ]+\](?![(\[:]))|(?<!\w)_|_(?!\w)|:(?=//)|(?<=[wW]{3})\.|[\\`*{}\[\]<>|#~$&@]"
)


def write(run: Run, folder: Path) -> Path:
    """Writes `summary.md` into `folder` and returns its path."""
    return save(folder / "summary.md", text(view(run)).encode())


def text(shown: View) -> str:
    """The whole document."""
    state = " · **not finished**" if shown.status == "partial" else ""
    lines = [f"# {escape(shown.title)}: safety evaluation", "", f"{escape(shown.subtitle)}{state}", ""]
    lines += [f"- **{escape(f.claim)}** {escape(f.detail)}".rstrip() for f in shown.findings]
    lines += ["", *_facts(shown.facts)]
    for section in shown.sections:
        lines += [f"## {section.title}", "", escape(section.lead), ""]
        for table in section.tables:
            lines += _table(table)
        lines += _facts(section.facts)
    return "\n".join(lines).rstrip() + "\n"


def escape(value: str) -> str:
    """A string that Markdown shows as it is."""

    def entity(match: re.Match[str]) -> str:
        found = match[0]
        joiner = "\N{WORD JOINER}" if found == "@" else ""  # keeps a mention from being one
        return found if match["interval"] else f"&#{ord(found)};{joiner}"

    return _ACTIVE.sub(entity, value)


def _table(table: Table) -> list[str]:
    marks = [":--" if i < table.left else "--:" for i in range(len(table.columns))]
    rows = [_row([_cell(cell) for cell in row.cells]) for row in table.rows]
    note = [escape(table.note), ""] if table.note else []
    title = f"### {escape(table.title)}"
    return [title, "", _row([escape(c) for c in table.columns]), _row(marks), *rows, "", *note]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return f"{escape(cell.text)} {escape(cell.sub)}".strip()


def _facts(facts: Sequence[Fact]) -> list[str]:
    return [*(f"- {escape(fact.name)}: {escape(fact.value)}" for fact in facts), ""] if facts else []
