"""The section on costs: every number of it from records, and the figure says what the table says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.metrics import compute
from harness.types import Run
from reports.build import view
from reports.charts import draw
from tests.reports.report_runs import costly, make_costs, make_one


def section() -> Any:
    return next(s for s in view(make_costs()).sections if s.key == "costs")


def table(title: str) -> dict[str, dict[str, tuple[str, str]]]:
    """A table's cells by row and column."""
    found = next(t for t in section().tables if t.title == title)
    return {
        row.cells[0].text: {head: (c.text, c.sub) for head, c in zip(found.columns, row.cells, strict=True)}
        for row in found.rows
    }


def test_what_a_behavior_costs_by_role() -> None:
    pair = table("Spent on one behavior")["pair"]
    assert {head: text for head, (text, _) in pair.items()} == {
        "attack": "pair",
        "queries": "40",
        "target tokens": "4,000",
        "attacker tokens": "9,000",
        "judge tokens": "500",
        "seconds": "–",  # an endpoint does not say
        "n": "10",
        "budget spent": "10.0%",
    }


def test_what_a_success_costs() -> None:
    rows = table("Spent on one success")
    assert rows["best_of_n"]["queries"][0] == "6"  # 30 queries, 5 behaviors
    assert rows["pair"]["tokens"][0] == "15,000"  # 10 x 13,500 over 9
    assert rows["direct"]["queries"][0] == "–"
    assert rows["direct"]["queries"][1].startswith("> ")  # none of 10 fell


def test_the_figure_compares_attacks_at_equal_cost() -> None:
    figure = next(f for f in section().figures if f.key == "budget-queries-0")
    lines = {s.name: {p.x: p.value for p in s.points} for s in figure.series}
    assert lines["direct"] == dict.fromkeys((1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0), 0.0)
    assert (lines["best_of_n"][2.0], lines["best_of_n"][5.0]) == (0.0, 0.5)
    assert (lines["pair"][20.0], lines["pair"][50.0]) == (0.0, 0.9)
    equal = table("ASR within a budget of queries")
    assert (equal["best_of_n"]["5"][0], equal["pair"]["20"][0], equal["pair"]["50"][0]) == ("50.0%", "0.0%", "90.0%")


def test_it_is_drawn_on_a_log_scale_with_every_attack_named() -> None:
    figure = next(f for f in section().figures if f.key == "budget-tokens-0")
    svg = draw(figure)
    assert all(name in svg for name in ("direct", "best_of_n", "pair", "10k"))
    assert draw(figure) == svg


def test_a_run_without_costs_has_no_such_section() -> None:
    assert "costs" not in {s.key for s in view(make_one()).sections}


def test_a_model_without_any_verdict_has_no_figure_and_the_others_keep_theirs() -> None:
    told = [costly("pair", i, "unscored", n, target_queries=1, target_tokens=1) for i in range(4) for n in range(5)]
    other = [replace(r, model="other", key=f"other/{r.key}") for r in make_costs().records]
    for records, drawn in ((told, set()), ([*told, *other], {"budget-queries-1", "budget-tokens-1"})):
        run = Run(folder=Path(), info={}, records=tuple(records), metrics=compute(records))
        found = next(s for s in view(run).sections if s.key == "costs")
        assert {f.key for f in found.figures} == drawn
        assert all(draw(figure) for figure in found.figures)
