"""The files: an A4 PDF that is the same each time, a page that asks nothing of the network, text that stays text."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from report_runs import RUNS, make_hostile
from rich.console import Console

from harness import registry
from harness.types import Run
from reports import html, markdown, pdf, terminal
from reports.build import view
from reports.view import Cell, Row, Section, Table


class Tags(HTMLParser):
    """Tags, attribute names and links of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.links: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "action")}


@pytest.fixture(scope="module")
def hostile_page() -> str:
    return html.page(view(make_hostile()))


def test_the_pdf_is_a4_holds_the_numbers_and_is_the_same_each_time(one: Run) -> None:
    import typst

    report, template = pdf.data(view(one)), pdf.TEMPLATE.read_bytes()
    made = pdf.typeset(report, 1_741_082_400)
    assert made.startswith(b"%PDF")
    assert pdf.typeset(report, 1_741_082_400) == made
    pages = typst.compile(template, format="svg", sys_inputs={"report": report}, ignore_system_fonts=True)
    sizes = {re.search(rb'width="([\d.]+)pt" height="([\d.]+)pt"', page).groups() for page in pages}  # type: ignore[union-attr]
    # A4 is 210 by 297 mm; 72 points to 25.4 mm
    assert {(round(float(w) * 25.4 / 72), round(float(h) * 25.4 / 72)) for w, h in sizes} == {(210, 297)}
    assert 3 <= len(pages) <= 6
    tables = typst.query(template, "table", sys_inputs={"report": report}, ignore_system_fonts=True)
    assert all(number in tables for number in ("96.9%", "[89.3, 99.1]", "[64.1, 65.6]", "jailbreakchat"))


def heights(page: bytes) -> set[float]:
    """How far below the upper edge the letters of a page stand, in points."""
    found: set[float] = set()

    def walk(element: ElementTree.Element, at: float) -> None:
        moved = re.search(r"(-?[\d.]+)\)$", element.get("transform", ""))
        at += float(moved[1]) if moved else 0.0
        if element.tag.endswith("use"):
            found.add(at)
        for inner in element:
            walk(inner, at)

    walk(ElementTree.fromstring(page), 0.0)
    return found


def test_a_table_of_few_but_tall_rows_ends_above_the_foot_of_its_page() -> None:
    import typst

    cells = (Cell(text="a model"), *(Cell(text="50.0%", sub="none scored: 3 errors, 12 unscored"),) * 8)
    table = Table(title="T", columns=("model", *"abcdefgh"), rows=(Row(cells=cells),) * 24, stacked=True)
    shown = replace(view(RUNS["empty"]()), sections=(Section(key="t", title="T", lead="", tables=(table,)),))
    given = {"report": pdf.data(shown)}
    pages = typst.compile(pdf.TEMPLATE.read_bytes(), format="svg", sys_inputs=given, ignore_system_fonts=True)
    for page in pages:
        *_, last, foot = sorted(heights(page))
        assert last < (297 - 20) * 72 / 25.4 < foot  # A4 with a lower margin of 20 mm


def test_letters_that_no_embedded_font_has_are_shown_by_number() -> None:
    run = RUNS["unscored"]()
    named = tuple(replace(m, group={**m.group, "model": "日本 🙂"}) for m in run.metrics)
    report = pdf.data(view(replace(run, info={}, records=(), metrics=named)))
    assert json.loads(report)["title"] == "\\u65e5\\u672c \\u1f642"
    assert pdf.typeset(report, 0).startswith(b"%PDF")


def test_every_letter_that_is_let_through_can_be_drawn() -> None:
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn"}
    letters = "".join(chr(i) for i in range(32, 0x10000) if unicodedata.category(chr(i)) not in hidden)
    report = json.loads(pdf.data(view(RUNS["empty"]())))
    kept = pdf._FOREIGN.sub("", letters)
    assert len(kept) > 2000
    assert pdf.typeset(json.dumps({**report, "title": kept}), 0).startswith(b"%PDF")  # a letter no font has is an error


@pytest.mark.parametrize("name", ["partial", "unscored", "empty", "hostile"])
def test_files_of_any_run_are_written_whole_and_alone(name: str, tmp_path: Path) -> None:
    for module in (pdf, html, markdown) if name != "hostile" else (pdf, markdown):
        assert module.write(RUNS[name](), tmp_path).stat().st_size > 900
    assert {p.name for p in tmp_path.iterdir()} <= {"report.pdf", "report.html", "summary.md"}


def test_strings_of_a_run_add_no_tag_event_or_link_to_the_page(hostile_page: str) -> None:
    shown = Tags(hostile_page)
    ours = "html head meta title style body main header p h1 h2 h3 ul li strong span b div dl dt dd code section figure"
    ours += " figcaption table thead tbody tr th td footer svg g path use text defs clippath rect"
    assert shown.tags <= set(ours.split())
    assert not [name for name in shown.names if name.startswith("on")]
    assert all(link.startswith("#") for link in shown.links)


def test_the_page_asks_nothing_of_the_network(hostile_page: str) -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'" in hostile_page
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", hostile_page)


def test_markdown_shows_strings_as_they_are(hostile: Run) -> None:
    source = markdown.text(view(hostile))
    shown = Tags(MarkdownIt("commonmark", {"html": True}).enable("table").render(source))
    assert shown.tags <= {"h1", "h2", "h3", "p", "ul", "li", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert shown.names <= {"style"}


@pytest.mark.parametrize(
    "name",
    [
        "[1.0, 2.0](http://x.y)",
        "_a_ b_c",
        "@someone",
        "<i>",
        "![x](y)",
        "[1.0]: /x",
        "&lt;",
        "a|b",
        "`c`",
        "#12",
        "www.x.y",
    ],
)
def test_a_name_stays_a_name_in_markdown(name: str) -> None:
    shown = MarkdownIt("commonmark", {"html": True, "linkify": False}).render(f"x {markdown.escape(name)} y")
    plain = unescape(shown.replace("\N{WORD JOINER}", ""))
    assert plain == f"<p>x {name} y</p>\n"
    assert "www." not in markdown.escape(name)  # GitHub makes a link of it


def test_markdown_tables_keep_their_columns(hostile: Run) -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", markdown.text(view(hostile)), flags=re.MULTILINE)
    assert blocks
    assert all(len({line.count("|") for line in block.splitlines()}) == 1 for block in blocks)


@pytest.mark.parametrize("width", [50, 80, 140])
def test_the_terminal_shows_the_tables_within_its_width(any_run: Run, width: int) -> None:
    out = io.StringIO()
    terminal.show(any_run, Console(file=out, width=width), full=True)
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    for table in (t for section in view(any_run).sections for t in section.tables):
        assert table.title.split()[0] in text
        assert all(cell.text in text for row in table.rows for cell in row.cells[table.left :])


def test_every_format_can_be_loaded_by_name() -> None:
    assert all(callable(registry.load("report", name)) for name in registry.table("report"))
