"""Numbers and names as text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_runs import rate

from reports.words import (
    bounds,
    bracket,
    clean,
    compact,
    duration,
    listing,
    missing,
    percent,
    short,
    shorten,
    why_empty,
)


def test_percent_has_one_decimal_and_no_number_is_a_dash() -> None:
    assert [percent(v) for v in (0.0, 0.03125, 1.0, None, float("nan"))] == ["0.0%", "3.1%", "100.0%", "–", "–"]


def test_interval_needs_both_ends() -> None:
    assert (bracket(0.0086, 0.1070), bracket(None, 0.5), bracket(0.1, float("nan"))) == ("[0.9, 10.7]", "", "")


def test_missing_replies_are_counted_and_bound_the_value() -> None:
    # 1 of 2 scored, 1 error, 1 unscored: from 1/4 to 3/4
    metric = rate("asr", 1, 2, errors=1, unscored=1)
    assert missing(metric) == "1 error, 1 unscored"
    assert bounds(metric) == "[25.0, 75.0]"
    assert compact(metric).sub.endswith("n 2 1 error, 1 unscored: [25.0, 75.0]")
    assert short(metric).sub.endswith("†")


def test_no_bounds_where_nothing_is_missing() -> None:
    assert bounds(rate("asr", 1, 2)) == missing(rate("asr", 1, 2)) == ""


def test_an_empty_number_says_why() -> None:
    assert compact(rate("asr", 0, 0, unscored=3)).text == "–"
    assert why_empty(rate("asr", 0, 0, unscored=3)) == "none scored: 3 unscored"
    assert why_empty(None) == "not run"
    empty = rate("judge_tpr", 0, 0)
    assert why_empty(replace(empty, note="labels of the same attack")) == "nothing to count"
    assert why_empty(replace(empty, note="not corrected: too few; 3 labels")) == "not corrected"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a\n b\tc", "a b c"),
        ("a\u202eb\u200bc\x1bd\x00\ud800", "a�b�c�d��"),
        ("x" + "\u0316" * 50, "x" + "\u0316" * 2),
        ("日本 é", "日本 é"),
        (None, "None"),
        ("--base-url http://me:secret@host/v1", "--base-url http://…@host/v1"),
        ("http://me:s@cr@t@host/v1 http://b@c", "http://…@host/v1 http://…@c"),
    ],
)
def test_a_name_keeps_its_letters_and_loses_what_hides_or_reorders(given: object, shown: str) -> None:
    assert clean(given) == shown


def test_a_long_name_loses_its_middle() -> None:
    assert clean("abcdefghij", 7) == "abcd…ij"
    assert len(clean("A" * 10_000, 36)) == 36


def test_short_names_stay_apart() -> None:
    long = [f"org/some-very-long-model-name-{i}" for i in ("vanilla", "derta")]
    assert list(shorten(long, family=True).values()) == ["vanilla", "derta"]
    assert list(shorten(["A" * 90 + "x" * 40, "A" * 90 + "y" + "x" * 39], 9).values()) == ["AAAAA…xxx", "AAAA…xx~2"]
    assert shorten(["base", "base-derta"], family=True) == {"base": "base", "base-derta": "base-derta"}


def test_many_names_alike_are_told_apart_in_time() -> None:
    shown = shorten(["A" * 20 + f"{i:05d}" + "B" * 20 for i in range(20_000)])
    assert len(set(shown.values())) == 20_000
    assert max(map(len, shown.values())) <= 24
    assert list(shorten(["A" * 90 + c + "B" * 90 for c in "xyz"], 9).values()) == [
        "AAAAA…BBB",
        "AAAA…BB~2",
        "AAAA…BB~3",
    ]


def test_duration_and_listing_read_like_speech() -> None:
    assert [duration(s) for s in (3.14, 402.5, 7500)] == ["3.1 s", "6 min 42 s", "2 h 05 min"]
    assert [listing(w) for w in ([], ["a"], ["a", "b"], ["a", "b", "c", "d", "e"])] == [
        "",
        "a",
        "a and b",
        "a, b, c and 2 more",
    ]
