"""What a report says of each run, before any renderer."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

from report_runs import make_empty, make_partial, make_unscored, rate, records_of

from harness.metrics import compute
from harness.trust import measures
from harness.types import Judgement, Metric, Record, Run
from reports.build import moment, view
from reports.tables import most_missing
from reports.view import Table, View
from reports.words import DASH


def strings(value: object) -> Iterator[str]:
    """Every string in a view."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from strings(item)
    elif is_dataclass(value):
        for field in fields(value):
            yield from strings(getattr(value, field.name))


def tables(shown: View) -> dict[str, Table]:
    return {table.title: table for section in shown.sections for table in section.tables}


def texts(table: Table, row: int) -> list[str]:
    return [cell.text for cell in table.rows[row].cells]


def test_no_view_holds_a_character_that_hides_or_breaks_a_line(any_run: Run) -> None:
    bad = {"Cc", "Cf", "Cs", "Co", "Cn"}
    assert not [s for s in strings(view(any_run)) if any(unicodedata.category(c) in bad for c in s)]


def test_every_row_has_a_cell_for_every_column(any_run: Run) -> None:
    for table in tables(view(any_run)).values():
        assert {len(row.cells) for row in table.rows} <= {len(table.columns)}


def test_what_a_run_took_leaves_out_the_pauses_between_its_starts(one: Run) -> None:
    later = replace(one, info={**one.info, "finished": "2025-03-09T10:00:00+00:00"})
    assert "6 min 42 s" in set(strings(view(later)))  # 402.5 s of attacks
    unknown = replace(one, info={**one.info, "budget": {}})
    assert "11 min 42 s" in set(strings(view(unknown)))


def test_sampling_names_a_limit_only_where_there_is_one(one: Run) -> None:
    def told(**spec: object) -> str:
        facts = view(replace(one, info={**one.info, "spec": spec})).facts
        return next((fact.value for fact in facts if fact.name == "sampling"), "")

    assert told(temperature=0.0, seed=0, limit=0) == "temperature 0.0, seed 0"
    assert told(limit=5) == "limit 5"
    assert told(temperature=1, top_p=None) == "temperature 1"
    assert told(temperature=1, top_p=0.9) == "temperature 1, top-p 0.9"


def test_money_is_never_said_to_be_nothing_where_it_is_little_and_prices_have_their_dates(one: Run) -> None:
    def told(spent: float, *seen: str) -> str:
        prices = {str(i): {"seen": day} for i, day in enumerate(seen)}
        info = {**one.info, "cost": {"prices": prices}, "budget": {"cost_usd": spent}}
        return next(s.lead for s in view(replace(one, info=info)).sections if s.key == "budget")

    assert "At endpoints: less than 0.01 US dollars, by prices read 2025-03-01." in told(0.004, "2025-03-01")
    assert "At endpoints: 1.50 US dollars, by prices read 2025-03-01 or later." in told(1.5, "2025-05-01", "2025-03-01")
    assert "At endpoints: 0.00 US dollars." in told(0.0)


def test_asr_row_holds_value_interval_and_every_denominator(one: Run) -> None:
    table = tables(view(one))["Attack success rate"]
    assert table.columns == ("attack", "judged ASR", "95% interval", "n", "errors", "unscored", "worst case")
    # code: 41 of 63, one unscored: 41/64 to 42/64
    assert texts(table, 3) == ["code", "65.1%", "[52.8, 75.7]", "63", "0", "1", "[64.1, 65.6]"]
    assert texts(table, 6)[:2] == ["any attack", "98.4%"]


def test_attacks_and_models_stand_in_the_order_asked_for(three: Run) -> None:
    shuffled = replace(three, metrics=tuple(reversed(three.metrics)))
    table = tables(view(shuffled))["Attack success rate"]
    assert [texts(table, i)[0] for i in (0, 3, 6)] == ["direct", "prefill", "completion"]
    assert [texts(table, i)[1] for i in range(3)] == ["base", "vanilla", "derta"]


def test_models_stand_side_by_side_with_over_refusal_and_helpfulness(three: Run) -> None:
    shown = tables(view(three))
    assert "code" in shown["Attack success"].columns
    costs = shown["Over-refusal"]
    assert costs.columns[1:4] == tuple(f"{words}: magic_lookalikes" for words in ("refused", "early", "late"))
    assert texts(costs, 2)[:4] == ["derta", "26.2%", "8.8%", "17.5%"]  # 21, 7 and 14 of 80
    assert shown["Helpfulness"].rows


def test_a_run_that_was_cut_off_says_so_first() -> None:
    shown = view(make_partial())
    assert shown.status == "partial"
    assert shown.findings[0].claim == "This run is not finished."


def test_unscored_replies_leave_a_dash_and_the_widest_bounds() -> None:
    shown = view(make_unscored())
    row = tables(shown)["Attack success rate"].rows[0].cells
    assert [cell.text for cell in row] == ["direct", "–", "", "0", "0", "64", "[0.0, 100.0]"]
    assert row[2].sub == "none scored: 64 unscored"
    assert "64 of 64 attempts (100.0%) have no verdict" in shown.findings[0].claim
    assert not [figure for section in shown.sections for figure in section.figures]


def test_an_empty_folder_still_makes_a_report() -> None:
    assert view(make_empty()).title == "No model"


def test_figures_leave_out_what_has_no_value_and_keep_a_models_colour(three: Run) -> None:
    kept = tuple(m for m in three.metrics if m.group.get("model") != "vanilla" or m.name == "asr_any")
    figure = next(f for s in view(replace(three, metrics=kept)).sections for f in s.figures if f.key == "depth")
    assert [(series.name, series.slot) for series in figure.series] == [("base", 0), ("derta", 2)]


def test_what_metrics_computes_fills_every_section() -> None:
    records = tuple(
        replace(r, variant="k", depth=i % 3 if r.attack == "prefill" else 0) for i, r in enumerate(records_of("m", 0.3))
    )
    benign = tuple(
        replace(r, task="twins", expect="comply", key=f"{r.key}!") for r in records if r.attack in ("direct", "code")
    )
    run = Run(folder=Path(), info={}, records=records + benign, metrics=compute(records + benign))
    shown = view(run)
    assert {"asr", "depth", "position", "overrefusal", "details", "budget"} <= {s.key for s in shown.sections}
    assert "Harmless requests in the shape of an attack" in tables(shown)


def test_variants_of_a_few_replies_are_counted_not_shown(one: Run) -> None:
    few = tuple(replace(m, n=3) if m.group.get("variant") == "go" else m for m in one.metrics)
    table = tables(view(replace(one, metrics=few)))["Success rate by variant"]
    assert "code: go" not in {row.cells[0].text for row in table.rows}
    assert "1 variant with fewer than 5 replies left out" in table.note
    none = tuple(replace(m, n=3) if "variant" in m.group else m for m in one.metrics)
    shown = view(replace(one, metrics=none))
    assert "Success rate by variant" not in tables(shown)
    details = next(s for s in shown.sections if s.key == "details")
    assert "variants with fewer than 5 replies left out." in details.lead


def test_a_variant_that_one_model_has_few_replies_to_is_shown_for_the_others(three: Run) -> None:
    title = "Success rate by variant"
    few = tuple(
        replace(m, n=3) if m.group.get("variant") == "stack" and m.group["model"] == "derta" else m
        for m in three.metrics
    )
    shown, before = tables(view(replace(three, metrics=few)))[title], tables(view(three))[title]
    assert [row.cells[0].text for row in shown.rows] == [row.cells[0].text for row in before.rows]
    assert "left out" not in shown.note


def test_no_text_of_a_model_can_reach_the_report(one: Run) -> None:
    leaky = tuple(replace(r, error="SECRET", judgements=()) for r in one.records)
    assert not [s for s in strings(view(replace(one, records=leaky))) if "SECRET" in s]


def test_a_time_is_read_from_iso_text_or_seconds_and_nothing_else() -> None:
    assert [m and int(m.timestamp()) for m in map(moment, ("1970-01-01T00:01:00", 60, "soon", None, 1e30))] == [
        60,
        60,
        None,
        None,
        None,
    ]


def corrected(attack: str, value: float | None, note: str = "ppi, 40 labels") -> Metric:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    group = {"model": "smollm2-135m", "attack": attack}
    return Metric(name="asr_corrected", value=value, low=low, high=high, n=64, group=group, note=note)


def test_without_labels_the_report_says_that_rates_stand_as_judged(one: Run) -> None:
    table = tables(view(one))["Attack success rate"]
    assert "corrected" not in table.columns
    assert "without people's labels nothing is corrected" in table.note


def test_judged_corrected_and_worst_case_stand_in_one_row(one: Run) -> None:
    run = replace(one, metrics=(*one.metrics, corrected("code", 0.4), corrected("direct", 0.02)))
    table = tables(view(run))["Attack success rate"]
    assert table.columns[1:4] == ("judged ASR", "95% interval", "corrected")
    assert texts(table, 3)[3] == "40.0%"
    assert texts(table, 3)[-1] == "[64.1, 65.6]"
    assert table.rows[1].cells[3].sub == "no labels"
    assert table.rows[6].cells[3].sub == "by attack only"
    assert any("Corrected by people's labels: 2 success rates." in f.claim for f in view(run).findings)
    assert [tile.sub for tile in view(run).tiles if "corrected 2.0%" in tile.sub]


def test_an_uninformative_judge_is_called_so_and_corrects_nothing(one: Run) -> None:
    note = "not corrected: the judge may be no better than a coin; 20 labels"
    shown = view(replace(one, metrics=(*one.metrics, corrected("code", None, note))))
    cell = tables(shown)["Attack success rate"].rows[3].cells[3]
    assert (cell.text, cell.sub) == (DASH, "not corrected")
    assert any("uninformative" in f.claim and "code" in f.detail for f in shown.findings)
    assert "may be no better than a coin" in tables(shown)["The judge against people's labels"].note


def test_seeds_and_judges_fill_their_tables() -> None:
    def verdict(judge: str, complied: bool) -> Judgement:
        return Judgement(judge=judge, label="complied" if complied else "refused", reason="gives" if complied else "")

    records = tuple(
        Record(
            key=f"{b}/{s}", model="m", task="t", behavior=str(b), expect="refuse", seed=s,
            judgements=(verdict("rules", b < 3 + s), verdict("llm", b < 3)),
        )
        for b in range(10) for s in range(2)
    )  # fmt: skip
    shown = tables(view(Run(folder=Path(), info={}, records=records, metrics=measures(records))))
    # They differ on behavior 3 under seed 1 alone: 1 of 20
    assert texts(shown["Where the judges differ"], 0)[1] == "5.0%"
    # 30% and 40%: half their variance is .5 / 100 / 2, its root 5 points; the judges' means .35 and .30 are 3.5 apart
    assert texts(shown["What moves the rate"], 0)[2:] == ["5.0", "3.5"]
    # Behaviors 0 to 3 fall to one of the two tries
    assert texts(shown["Tried again"], 0)[1:] == ["2", "40.0%"]


def look_alikes(*places: int | None) -> Run:
    """Ten look-alikes that were answered, and one that was refused at each of the places."""
    verdicts = [Judgement(judge="rules", label="complied")] * 10
    verdicts += [Judgement(judge="rules", label="refused", refusal_at=at) for at in places]
    records = tuple(
        Record(key=str(i), model="m", task="t", behavior=str(i), expect="comply", judgements=(verdict,))
        for i, verdict in enumerate(verdicts)
    )
    return Run(folder=Path(), info={}, records=records, metrics=compute(records))


def test_a_refusal_of_unknown_position_is_drawn_neither_early_nor_late() -> None:
    for places, part, told in (((2, 30), 1 / 12, False), ((2, None), None, True), ((None, None), None, True)):
        [figure] = [f for s in view(look_alikes(*places)).sections if s.key == "overrefusal" for f in s.figures]
        assert figure.series[0].points[0].part == part
        assert ("unknown" in figure.caption) is told


def test_a_table_with_a_refusal_of_unknown_position_says_so() -> None:
    title = "Refused though it should be answered"
    table = tables(view(look_alikes(2, None)))[title]
    assert "No errors" not in table.note
    [early] = [c for c, head in zip(table.rows[0].cells, table.columns, strict=True) if head == "early"]
    assert "1 of unknown position" in early.sub
    assert "unscored" not in early.sub
    assert "No errors, nothing unscored." in tables(view(look_alikes(2)))[title].note


def test_the_most_that_one_cell_lacks_is_told_by_why() -> None:
    unplaced = rate("over_refusal_early", 1, 5, unscored=4)
    assert most_missing([rate("over_refusal", 5, 9), unplaced]) == "up to 4 of unknown position"
    told = most_missing([rate("asr", 1, 2, errors=1), rate("asr", 1, 2, unscored=3), unplaced])
    assert told == "up to 1 error, up to 3 unscored, up to 4 of unknown position"
