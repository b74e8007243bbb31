"""What only a lab's report has, on numbers made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_runs import rate

from harness.types import Run
from reports import lab
from reports.numbers import Numbers


def swept(*methods: str) -> Run:
    """A sweep over three values; the rate of the method number i at the value number j is (2 i + j) of 10."""
    labels = {f"{name} lr={value:g}": value for name in methods for value in (10, 1, 2)}
    metrics = [rate("asr", i // 3 * 2 + i % 3, 10, model=label, attack="direct") for i, label in enumerate(labels)]
    metrics += [rate("over_refusal", 1, 10, model=label, task="t") for label in labels]
    told = {label: {"method": "derta", "swept": {"lr": value}} for label, value in labels.items()}
    info: dict[str, Any] = {"lab": {"spec": {"sweep": "lr"}, "methods": told}}
    return Run(folder=Path(), info=info, records=(), metrics=tuple(metrics))


@pytest.mark.parametrize(
    ("methods", "lines", "rows"),
    [
        (("derta",), {"direct: given away": [0.1, 0.2, 0.0]}, ["1", "2", "10"]),
        (
            ("derta", "mine"),
            {"derta: direct: given away": [0.1, 0.2, 0.0], "mine: direct: given away": [0.3, 0.4, 0.2]},
            ["derta 1", "derta 2", "derta 10", "mine 1", "mine 2", "mine 10"],
        ),
    ],
)
def test_each_method_of_a_sweep_has_a_line_of_its_own(
    methods: tuple[str, ...], lines: dict[str, list[float]], rows: list[str]
) -> None:
    section = lab.curve(Numbers(swept(*methods)))
    assert section is not None
    over, against = section.figures
    assert {s.name: [p.value for p in s.points] for s in over.series} == lines
    assert [s.name for s in against.series] == rows
    assert [row.cells[0].text for row in section.tables[0].rows] == rows


def test_the_seed_of_a_gate_is_a_name_and_no_amount() -> None:
    gate = {"candidate": "a", "baseline": "b", "seed": 20_240_101, "outcome": "pass", "failed": [], "needed": None}
    run = replace(swept("derta"), info={"lab": {"gates": [gate]}})
    section = lab.gates(Numbers(run))
    assert section is not None
    assert section.tables[0].rows[0].cells[1].text == "20240101"
