"""Figures as SVG text, drawn with matplotlib: the same bytes for the same data, and text kept as text.

Colours are the Okabe-Ito set, which colour-blind readers can tell apart; each model also has its own marker.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import quoteattr

from reports.view import Figure, Point, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, GRID, BAND = "#1c2430", "#5b6673", "#dde2e8", "#f3f5f8"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#3f9fd6")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # one more than colours, so that pairs repeat late
_STEPS = {10: 2, 20: 5, 40: 10, 60: 20, 80: 20, 100: 20}  # where a percent scale ends: its ticks
FULL, HALF = 6.7, 3.25  # inches: the text width of an A4 page with wide margins, and half of it


def draw(figure: Figure, *, width: float | None = None, sans: bool = False) -> str:
    """One figure as an `<svg>` element, `width` inches wide, without ids that two figures of a page could share.

    Text is measured with a face like the one it will be shown in: a serif for print, a wide sans for screens.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width = width or (FULL if figure.wide else HALF)
    family = "DejaVu Sans" if sans else "STIXGeneral"
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"{figure.key}{width}",
        "text.parse_math": False,
        "font.family": family,
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 8.5,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.edgecolor": GRID,
    }
    out = io.BytesIO()
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # measured with a stand-in; the reader's font has it or not
        canvas = Canvas(figsize=(width, _height(figure, width)), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
        canvas.patch.set_visible(False)
        axes = canvas.add_subplot()
        axes.patch.set_visible(False)
        _DRAW[figure.kind](axes, figure)
        _key(axes, figure, width)
        canvas.savefig(out, format="svg", metadata={"Date": None})
    drawn = out.getvalue().decode().replace("'STIXGeneral'", "'Libertinus Serif'")
    return _slim(drawn, figure.alt)


def _slim(svg: str, alt: str) -> str:
    """The bare element: no prolog, metadata or page-wide style, no ids but those that are referred to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[\w.]*_\d+"', "", svg)
    svg = re.sub(r"\n\s*", " ", svg)
    label = f'<svg role="img" stroke-linejoin="round" aria-label={quoteattr(alt)}'
    return svg.replace("<svg", label, 1).strip()


def _height(figure: Figure, width: float) -> float:
    """Rows set the height of figures with one row a category; others have a fixed one."""
    key = 0.19 * -(-len(figure.series) // _key_columns(figure, width)) if len(figure.series) > 1 else 0.0
    if figure.kind not in ("dots", "bars"):
        return 1.75 + max(key, 0.19)
    rows, lanes = len(_categories(figure.series)), len(figure.series)
    lane = 0.11 if figure.kind == "dots" else 0.09
    return min(8.0, 0.45 + key + rows * (0.14 + lane * lanes))  # a page holds no more


def _categories(series: tuple[Series, ...]) -> list[str]:
    """Every label, in the order in which the series name them."""
    return list(dict.fromkeys(point.label for one in series for point in one.points))


def _rows(axes: Axes, figure: Figure) -> dict[str, int]:
    """A percent scale across and one row a category, the first on top."""
    rows = {label: place for place, label in enumerate(_categories(figure.series))}
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    for place in range(1, len(rows)):
        axes.axhline(place - 0.5, color=GRID, linewidth=0.5, zorder=0)
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(figure.x_label)
    _plain(axes, "x")
    return rows


def _plain(axes: Axes, grid: Literal["both", "x", "y"]) -> None:
    """No frame; a light grid on the given axes."""
    axes.spines[:].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5)


def _key(axes: Axes, figure: Figure, width: float) -> None:
    """Marker and name of each model in one line above the plot; nothing for one model."""
    from matplotlib.lines import Line2D

    if len(figure.series) < 2:
        return
    style = {"linestyle": "none"} if figure.kind in ("dots", "bars", "scatter") else {"linewidth": 1.4}
    marks = [Line2D([], [], color=_colour(s), marker=_mark(figure, s), markersize=5, **style) for s in figure.series]
    # A name that starts with an underscore would be left out by matplotlib; a space before it keeps it.
    names = [f" {s.name}" for s in figure.series]
    columns = _key_columns(figure, width)
    axes.legend(
        marks, names, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False, fontsize=8.5,
        handlelength=1.2 if figure.kind in ("steps", "lines") else 0.6, handletextpad=0.45, columnspacing=1.2,
        borderpad=0.1, borderaxespad=0.2,
    )  # fmt: skip


def _key_columns(figure: Figure, width: float) -> int:
    """How many names of the key fit side by side, at some thirteen letters an inch."""
    longest = max(len(series.name) for series in figure.series)
    return min(len(figure.series), max(1, int(width * 13 / (longest + 4))))


def _colour(series: Series) -> str:
    return PALETTE[series.slot % len(PALETTE)]


def _mark(figure: Figure, series: Series) -> str:
    return {"steps": "none", "bars": "s"}.get(figure.kind, MARKERS[series.slot % len(MARKERS)])


def _lane(place: int, index: int, lanes: int) -> float:
    """Where series `index` of `lanes` stands inside the row of a category."""
    return place + (index - (lanes - 1) / 2) * 0.72 / max(lanes, 2)


def _ends(point: Point) -> tuple[float, float]:
    """The interval in percent; the point itself where there is none."""
    low = point.value if point.low is None else point.low
    high = point.value if point.high is None else point.high
    return 100 * low, 100 * high


def _end(far: float) -> int:
    """Where a percent scale that starts at 0 may end, so that `far` still fits."""
    return next(end for end in _STEPS if end >= min(far, 100.0))


def _far(figure: Figure) -> int:
    """Where the percent scale of the values may end, so that every interval still fits."""
    return _end(max(_ends(p)[1] for s in figure.series for p in s.points))


def _dots(axes: Axes, figure: Figure) -> None:
    rows = _rows(axes, figure)
    for index, series in enumerate(figure.series):
        for point in series.points:
            y, colour = _lane(rows[point.label], index, len(figure.series)), _colour(series)
            axes.plot(_ends(point), (y, y), color=colour, linewidth=1.5, solid_capstyle="butt", clip_on=False)
            marker = _mark(figure, series)
            axes.plot([100 * point.value], [y], marker, color=colour, markersize=5, clip_on=False, zorder=5)


def _bars(axes: Axes, figure: Figure) -> None:
    rows, lanes = _rows(axes, figure), len(figure.series)
    end = _far(figure)
    axes.set_xlim(0, end)
    axes.set_xticks(range(0, end + 1, _STEPS[end]))
    thick = 0.36 if lanes == 1 else 0.5 / lanes
    for index, series in enumerate(figure.series):
        for point in series.points:
            y, colour = _lane(rows[point.label], index, lanes), _colour(series)
            if point.part is None:
                axes.barh(y, 100 * point.value, thick, facecolor="none", edgecolor=colour, linewidth=1.1)
            else:
                first = min(point.part, point.value)
                axes.barh(y, 100 * first, thick, color=colour)
                axes.barh(y, 100 * (point.value - first), thick, left=100 * first, color=colour, alpha=0.4)
            axes.plot(_ends(point), (y, y), color=INK, linewidth=1.1, solid_capstyle="butt", clip_on=False)


def _lines(axes: Axes, figure: Figure) -> None:
    """A log scale is of 1 + x, for depths: the first tokens matter most, and 0 has a place."""

    def place(x: float) -> float:
        return math.log1p(max(x, 0.0)) if figure.log else x

    places = sorted({point.x for series in figure.series for point in series.points})
    spread = [place(x) for x in places]
    for series in figure.series:
        xs = [place(p.x) for p in series.points]
        colour = _colour(series)
        if any(p.low is not None for p in series.points):
            low, high = zip(*map(_ends, series.points), strict=True)
            axes.fill_between(xs, low, high, color=colour, alpha=0.14, linewidth=0)
        ys = [100 * p.value for p in series.points]
        axes.plot(
            xs, ys, color=colour, linewidth=1.5, marker=_mark(figure, series), markersize=4.5, clip_on=False, zorder=5
        )
    gap, kept = 0.075 * (spread[-1] - spread[0]), [0]
    for i in range(1, len(spread)):
        if spread[i] - spread[kept[-1]] >= gap:
            kept.append(i)
    axes.set_xticks([spread[i] for i in kept], [f"{places[i]:g}" for i in kept])
    _upright(axes, figure)


def _steps(axes: Axes, figure: Figure) -> None:
    last = max([5.0, *(p.x for s in figure.series for p in s.points)]) * 1.15
    axes.axvspan(1, 5, color=BAND, linewidth=0, zorder=0)
    axes.text(1.06, 4, "first 5 tokens", fontsize=8, color=MUTED)
    for series in figure.series:
        xs = [1.0, *(p.x for p in series.points), last]
        ys = [0.0, *(100 * p.value for p in series.points), 100 * series.points[-1].value]
        axes.step(xs, ys, where="post", color=_colour(series), linewidth=1.6)
    axes.set_xscale("log")
    axes.set_xlim(1, last)
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if t <= last]
    axes.set_xticks(ticks, [f"{t:,}" for t in ticks])
    axes.set_xticks([], minor=True)
    _upright(axes, figure)


def _scatter(axes: Axes, figure: Figure) -> None:
    scale = 1.0 if figure.log else 100.0
    for series in figure.series:
        colour, marker = _colour(series), _mark(figure, series)
        for point in series.points:
            x, y = scale * point.x, 100 * point.value
            axes.plot((x, x), _ends(point), color=colour, linewidth=1.2, clip_on=False)
            if point.x_low is not None and point.x_high is not None:
                axes.plot((scale * point.x_low, scale * point.x_high), (y, y), color=colour, linewidth=1.2)
            axes.plot([x], [y], marker, color=colour, markersize=6, clip_on=False)
    if figure.log:
        axes.set_xscale("log")
        places = sorted({p.x for s in figure.series for p in s.points})
        axes.set_xlim(places[0] / 1.6, places[-1] * 1.6)
        ticks = places[:1]
        for x in places:
            if x > 1.35 * ticks[-1]:  # nearer ones would overlap
                ticks.append(x)
        axes.set_xticks(ticks, [f"{x:.3g}" for x in ticks])
        axes.set_xticks([], minor=True)
    else:
        far = max(100 * (p.x if p.x_high is None else p.x_high) for s in figure.series for p in s.points)
        end = _end(far)
        axes.set_xlim(0, end)
        axes.set_xticks(range(0, end + 1, _STEPS[end]))
    _upright(axes, figure)


def _budget(axes: Axes, figure: Figure) -> None:
    """Shares that rise with what is spent, on a log scale; each holds from its budget to the next."""
    places = sorted({p.x for s in figure.series for p in s.points})
    for series in figure.series:
        xs, ys = [p.x for p in series.points], [100 * p.value for p in series.points]
        mark, colour = _mark(figure, series), _colour(series)
        axes.step(xs, ys, where="post", color=colour, linewidth=1.5, marker=mark, markersize=4, clip_on=False)
    axes.set_xscale("log")
    axes.set_xlim(places[0], places[-1] * 1.1)
    every = -(-len(places) // 6)
    axes.set_xticks(places[::every], [_brief(x) for x in places[::every]])
    axes.set_xticks([], minor=True)
    _upright(axes, figure)


def _brief(x: float) -> str:
    """A round number in few letters: 2k, 5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if x >= size:
            return f"{x / size:g}{letter}"
    return f"{x:g}"


def _upright(axes: Axes, figure: Figure) -> None:
    """A percent scale upwards, with both labels."""
    _plain(axes, "both" if figure.kind == "scatter" else "y")
    end = 100 if figure.whole else _far(figure)
    axes.set_ylim(0, end)
    axes.set_yticks(range(0, end + 1, _STEPS[end]))
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)


_DRAW: dict[str, Any] = {
    "dots": _dots,
    "bars": _bars,
    "lines": _lines,
    "steps": _steps,
    "scatter": _scatter,
    "budget": _budget,
}
