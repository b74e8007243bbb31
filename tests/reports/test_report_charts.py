"""Figures: well-formed, the same each time, and labels shown as they are."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from reports.charts import draw
from reports.view import Figure, Kind, Point, Series


def figure(kind: Kind, *names: str, **more: object) -> Figure:
    points = tuple(Point(value=0.1 * i, low=0.05 * i, high=0.2 * i, x=float(i), label=names[0]) for i in (1, 2, 3))
    series = tuple(Series(name=name, slot=slot, points=points) for slot, name in enumerate(names))
    return Figure(key=kind, kind=kind, caption="c", alt='<"alt"&>', series=series, x_label="x", **more)  # type: ignore[arg-type]


def words(svg: str) -> set[str]:
    return {element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")}


def test_labels_are_text_and_never_formulas_or_markup() -> None:
    svg = draw(figure("dots", "$a_b$ <x> & #1", "_hidden"))
    assert "$a_b$ <x> & #1" in words(svg)
    assert "_hidden" in {word.strip() for word in words(svg)}


def test_the_same_figure_gives_the_same_bytes_and_no_date() -> None:
    first = draw(figure("scatter", "m"))
    assert first == draw(figure("scatter", "m"))
    assert "metadata" not in first
    assert ElementTree.fromstring(first).get("aria-label") == '<"alt"&>'


def test_two_figures_of_a_page_share_no_id() -> None:
    ids = [set(re.findall(r'\bid="([^"]+)"', draw(figure(kind, "m", "n")))) for kind in ("lines", "steps")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_single_point_without_interval_can_be_drawn_in_every_kind() -> None:
    alone = (Series(name="m", slot=9, points=(Point(value=0.0, x=0.0, label="a"),)),)
    kinds: tuple[Kind, ...] = ("dots", "bars", "lines", "steps")
    for kind in kinds:
        drawn = Figure(key=kind, kind=kind, caption="", alt="", series=alone, x_label="", wide=False)
        assert draw(drawn).startswith("<svg")


def test_a_percent_scale_that_need_not_be_whole_ends_just_above_the_last_interval() -> None:
    whole, part = (words(draw(figure("lines", "m", whole=w))) for w in (True, False))
    assert "100" in whole
    assert "100" not in part
    assert "60" in part  # the highest interval ends at 60%


def test_swept_values_stand_as_far_apart_as_they_are_and_depths_by_their_logarithm() -> None:
    gaps = []
    for log in (False, True):
        texts = [
            e for e in ElementTree.fromstring(draw(figure("lines", "m", log=log))).iter() if e.tag.endswith("text")
        ]
        at = {e.text: float(e.get("x", "nan")) for e in texts}
        gaps.append((at["2"] - at["1"]) / (at["3"] - at["2"]))
    assert gaps[0] == pytest.approx(1.0, abs=0.02)
    assert gaps[1] == pytest.approx(math.log(3 / 2) / math.log(4 / 3), abs=0.05)


def test_a_bar_of_unknown_parts_is_an_outline() -> None:
    def fills(part: float | None) -> list[str]:
        points = (Point(value=0.5, label="a", part=part),)
        svg = draw(Figure(key="b", kind="bars", caption="", alt="", series=(Series(name="m", slot=0, points=points),),
                          x_label=""))  # fmt: skip
        return re.findall(r"fill: (#0072b2|none); stroke: #0072b2|fill: (#0072b2)", svg)

    assert fills(None) == [("none", "")]
    assert len(fills(0.2)) == 2
