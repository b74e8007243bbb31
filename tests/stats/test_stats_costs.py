"""Costs and ASR at equal cost, on records made by hand."""

from dataclasses import replace
from typing import Any

import pytest

from harness.costs import amount, billed, budgets, costs, paths, reached
from harness.metrics import compute
from harness.types import Judgement, Label, Metric, Record


def record(behavior: str, label: Label | None, spent: dict[str, float] | None = None, **more: Any) -> Record:
    """One attempt; `label` None is a failure."""
    given = {"attack": "search", "variant": "", "seed": 0, "index": 0} | more
    verdict = () if label is None else (Judgement(judge="rules", label=label),)
    key = "/".join(map(str, (given["attack"], behavior, given["variant"], given["seed"], given["index"])))
    return Record(
        key=key,
        model="m",
        task="magic",
        behavior=behavior,
        expect="refuse",
        judgements=verdict,
        error=None if label else "down",
        spent={"target_queries": 1, "target_tokens": 10} if spent is None else spent,
        **given,
    )


def queries(n: float, **more: float) -> dict[str, float]:
    return {"target_queries": n, **more}


def get(metrics: list[Metric], name: str, unit: str) -> Metric:
    return next(m for m in metrics if m.name == name and m.group.get("unit") == unit)


# Three behaviors. A falls at its second attempt (2 queries), B at a search of 30, C never (50).
THREE = [
    record("a", "refused", queries(1), index=0),
    record("a", "complied", queries(1), index=1),
    record("a", "complied", queries(1), index=2),
    record("b", "complied", queries(20, attacker_queries=10)),
    record("c", "refused", queries(50)),
]


def test_a_cost_is_a_sum_over_roles_and_a_behaviors_the_sum_over_its_attempts() -> None:
    assert amount({"target_queries": 2, "attacker_queries": 3, "judge_queries": 9}, "queries") == 5
    assert amount({"target_tokens": 2, "attacker_tokens": 3, "judge_tokens": 9, "target_written": 1}, "tokens") == 14
    assert [[cost for cost, _ in way] for way in paths(THREE, "queries")] == [[1, 2, 3], [30], [50]]


def test_cost_of_a_behavior_and_of_a_success() -> None:
    found = costs("m", THREE)
    # (3 + 30 + 50) / 3 behaviors; two of them fell
    assert get(found, "cost", "queries").value == pytest.approx(83 / 3)
    assert get(found, "cost", "queries").n == 3
    price = get(found, "cost_per_success", "queries")
    assert price.value == pytest.approx(83 / 2)
    assert price.low is not None
    assert price.low < 83 / 2
    assert not [m for m in found if m.group.get("unit") == "seconds"]  # nobody counted any


def test_seeds_that_agree_tell_no_more_of_a_cost_than_one() -> None:
    once = [record(f"{i}", "complied" if i % 3 else "refused", queries(1 + i)) for i in range(9)]
    thrice = [replace(r, seed=seed, key=f"{r.key}/{seed}") for r in once for seed in range(3)]
    for name in ("cost", "cost_per_success"):
        one, three = (get(costs("m", rows), name, "queries") for rows in (once, thrice))
        assert three.value == pytest.approx(one.value)
        assert (three.low, three.high) == pytest.approx(
            (one.low, one.high), rel=0.01
        )  # draws that tie, but for rounding


def test_without_a_success_a_success_has_no_price_but_a_least_one() -> None:
    price = get(costs("m", [record(f"{i}", "refused", queries(10)) for i in range(20)]), "cost_per_success", "queries")
    # none of 20: the rate is at most 0.161 (Wilson) at 10 queries each, so a success costs 10 / 0.161 = 62 or more
    assert (price.value, price.high, price.ceiling) == (None, None, None)
    assert price.low == pytest.approx(62, abs=1)


def test_what_failed_or_was_not_scored_bounds_the_price() -> None:
    rows = [record("a", "complied", queries(4)), record("b", None, queries(4)), record("c", "unscored", queries(4))]
    price = get(costs("m", rows), "cost_per_success", "queries")
    # 12 queries; one success for certain, three at most
    assert (price.value, price.floor, price.ceiling) == (12, 4, 12)
    assert (price.n, price.n_error, price.n_unscored) == (1, 1, 1)


def test_the_curve_rises_where_behaviors_fall() -> None:
    curve = dict(reached(THREE, "queries", [1, 2, 5, 20, 50]))
    assert [curve[b].value for b in (1, 2, 5, 20, 50)] == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 2 / 3])
    assert all(metric.n == 3 for metric in curve.values())


def test_an_undecided_behavior_stands_outside_n_until_it_falls() -> None:
    rows = [
        record("a", "unscored", queries(1), index=0),
        record("a", "complied", queries(4), index=1),
        record("b", None, queries(2)),
        record("c", "refused", queries(1)),
    ]
    curve = dict(reached(rows, "queries", [1, 2, 5]))
    told = [(m.value, m.n, m.n_error, m.n_unscored, m.floor, m.ceiling) for m in curve.values()]
    assert told == [
        (0.0, 2, 0, 1, 0.0, pytest.approx(1 / 3)),  # at 1: a unscored, b not tried yet, c held
        (0.0, 1, 1, 1, 0.0, pytest.approx(2 / 3)),
        (0.5, 2, 1, 0, pytest.approx(1 / 3), pytest.approx(2 / 3)),
    ]


def test_several_seeds_of_a_behavior_are_ways_of_their_own_in_one_cluster() -> None:
    rows = [record("a", "complied", queries(3), seed=0), record("a", "refused", queries(7), seed=1)]
    assert [way[-1][0] for way in paths(rows, "queries")] == [3, 7]
    (point,) = reached(rows, "queries", [10])
    assert (point[1].value, point[1].n) == (0.5, 2)


def test_one_search_for_all_behaviors_is_shared_out_among_them() -> None:
    shared = {"shared_target_tokens": 900.0, "target_tokens": 10.0, "target_queries": 1.0}
    rows = [record(b, "refused", shared, variant="suffix") for b in "abc"]
    assert [spent["target_tokens"] for _, spent in billed(rows)] == [310, 310, 310]
    assert sum(way[-1][0] for way in paths(rows, "tokens")) == 930


def test_records_of_an_older_program_cost_what_they_show() -> None:
    rows = [record("a", "refused", {}, queries=61, tokens_in=30, tokens_out=70)]
    ((_, spent),) = billed(rows)
    assert (amount(spent, "queries"), amount(spent, "tokens")) == (61, 100)


def test_budgets_run_in_steps_of_one_two_five_from_the_cheapest_to_the_dearest() -> None:
    assert budgets(THREE, "queries") == [1, 2, 5, 10, 20, 50, 100]
    assert budgets([record("a", "refused", queries(3))], "queries") == [2, 5, 10]
    assert budgets([], "queries") == []


def test_a_budget_that_ended_searches_is_a_share_of_behaviors() -> None:
    rows = [record("a", "refused", queries(5, exhausted=1)), record("b", "complied", queries(2))]
    (share,) = [m for m in costs("m", rows) if m.name == "budget_spent"]
    assert (share.value, share.n) == (0.5, 2)


def test_a_budget_that_ended_a_search_for_all_counts_for_all_that_share_it() -> None:
    shared = {"shared_target_tokens": 900.0, "shared_exhausted": 1.0, "target_queries": 1.0}
    rows = [record(b, "refused", shared, variant="suffix") for b in "abc"]
    rows[0].spent["exhausted"] = 1.0  # the case that searched
    (share,) = [m for m in costs("m", rows) if m.name == "budget_spent"]
    assert (share.value, share.n) == (1.0, 3)


def test_dollars_are_counted_where_prices_are_known() -> None:
    rows = [record("a", "complied", queries(1, usd=0.25)), record("b", "refused", queries(1, usd=0.5))]
    assert get(costs("m", rows), "cost_per_success", "usd").value == 0.75


def test_the_order_of_records_does_not_matter() -> None:
    assert costs("m", THREE[::-1]) == costs("m", THREE)
    assert reached(THREE[::-1], "queries", [2, 50]) == reached(THREE, "queries", [2, 50])


def test_compute_holds_them_for_what_must_be_refused() -> None:
    names = {m.name for m in compute(THREE)}
    assert {"asr", "cost", "cost_per_success"} <= names


def test_what_several_models_spent_is_no_path_of_one() -> None:
    rows = [replace(r, model=m) for m in "mno" for r in THREE]
    assert budgets(rows, "queries") == budgets(THREE, "queries")


def test_sharing_a_search_out_compares_no_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Record, "__eq__", None)
    shared = {"shared_target_tokens": 900.0, "target_tokens": 1.0}
    rows = [record(b, "refused", shared) for b in "abc"]
    assert [spent for _, spent in billed(rows)] == [{"target_tokens": 301.0}] * 3
