"""The view model: what a report says, already worded and formatted. Every renderer shows this and nothing else.

All strings are plain text on one line, cleaned of control characters; renderers escape them for their format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["dots", "lines", "steps", "bars", "scatter", "budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One mark of a figure. `part`: the share of `value` in full colour in stacked bars; None: unknown, an outline."""

    value: float
    low: float | None = None
    high: float | None = None
    x: float = 0.0
    x_low: float | None = None
    x_high: float | None = None
    label: str = ""
    part: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The points of one model. `slot` is its colour and marker, the same in every figure of a report."""

    name: str
    slot: int
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Data and words of one figure; `key` names it, `alt` says in words what it shows."""

    key: str
    kind: Kind
    caption: str
    alt: str
    series: tuple[Series, ...]
    x_label: str
    y_label: str = ""
    log: bool = False
    wide: bool = True  # takes the whole text width; others stand side by side
    whole: bool = True  # the percent scale upwards ends at 100, however far below it everything stays


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a table; `sub` is said more quietly, behind or below `text`."""

    text: str
    sub: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a table; `opens` starts a new group of rows, `strong` marks a sum."""

    cells: tuple[Cell, ...]
    opens: bool = False
    strong: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; its first `left` columns hold words, the others numbers. `stacked` puts each `sub` below its text."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    left: int = 1
    note: str = ""
    stacked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A named fact; `code` asks for a fixed-width face."""

    name: str
    value: str
    code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One headline: the claim, then the numbers it rests on."""

    claim: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One large number of the first page."""

    label: str
    value: str
    sub: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report: what its numbers mean in one sentence, then figures, tables and facts."""

    key: str
    title: str
    lead: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The whole report. `stamp` is the time the run finished, in seconds since 1970 (0: unknown)."""

    title: str
    subtitle: str
    status: Literal["complete", "partial"]
    stamp: int
    facts: tuple[Fact, ...]
    findings: tuple[Finding, ...]
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
