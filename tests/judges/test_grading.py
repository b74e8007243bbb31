"""Grading of replies with one right answer: what counts as the answer, and what the recorded files come to."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from harness.data.recorded import detect
from harness.errors import DataError
from harness.grading import grade, last_numbers, numbers, option, reference_number, reference_option
from harness.judges.rules import Rules
from harness.judges.score import score
from harness.metrics import compute
from harness.scoring import accuracy
from harness.types import Judgement


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        ("(B)", "B"),
        ("-C", "C"),
        ("**C**", "C"),
        ("C.", "C"),
        ("D) both of them", "D"),
        ("The answer is (B), since (C) is too large.", "B"),
        ("Vitamin D is stored in fat, so the answer is B.", "B"),
        ("Answer: **A**", "A"),
        ("A good guess would be C", "C"),  # an article is no option
        ("A", "A"),
        ("A. Paris", "A"),
        ("Option A is right", None),  # "A" before a word in lower case could be an article
        ("Option (A) is right", "A"),
        ("Both A's are equal to B", "B"),
        ("CBD and DNA are no options", None),
        ("(E) none of these", None),
        ("b", None),
        ("I don't know", None),
        ("", None),
    ],
)
def test_the_option_a_reply_names(reply: str, named: str | None) -> None:
    assert option(reply) == named


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("She pays $1,234.00 for 3 of them.", ["1234.00", "3"]),
        ("7 - 12 = -5", ["7", "12", "-5"]),
        ("10-5", ["10", "5"]),
        ("a loss of -$40 or \N{MINUS SIGN}$2.50", ["-40", "-2.50"]),
        ("**18**, _19_ and \\boxed{20}", ["18", "19", "20"]),
        ("half is .5", [".5"]),
        ("1,2 and 3", ["1", "2", "3"]),
        ("v2 and H2O are none", []),
        ("12kg", ["12"]),
        ("", []),
    ],
)
def test_the_numbers_of_a_text(text: str, found: list[str]) -> None:
    assert numbers(text) == [Decimal(each) for each in found]


def test_the_last_sentence_that_holds_a_number_is_read_whatever_follows_it() -> None:
    assert last_numbers("He has 3. Then 4 + 5 = 9 apples. That is all!") == [4, 5, 9]
    assert last_numbers("Total: 1.5 kg\nDone") == [Decimal("1.5")]
    assert last_numbers("none") == []


def test_a_right_number_that_is_not_the_last_one_is_right_in_the_lenient_reading_only() -> None:
    lenient, strict = grade("gsm8k", "He wins by 5 points (240 - 235).", "... #### 5")
    assert (lenient.label, strict.label) == ("correct", "wrong")
    assert (lenient.judge, strict.judge) == ("grade:lenient", "grade:strict")


def test_the_reference_is_the_number_behind_the_hashes_and_any_mark_around_a_letter() -> None:
    assert reference_number("3 + 4 = 7\n#### 1,250") == 1250
    assert reference_number("-12") == -12
    assert [reference_option(text) for text in ("C", "-C", "(C)", "**C**")] == ["C"] * 4
    for broken in ("#### ?", ""):
        with pytest.raises(ValueError, match="holds no number"):
            reference_number(broken)
    for broken in ("E", "AB", ""):
        with pytest.raises(ValueError, match="no option"):
            reference_option(broken)


def test_a_reply_without_an_answer_is_wrong_and_an_empty_one_is_unscored() -> None:
    [said_nothing] = grade("mmlu", "I'd rather not say.", "B")
    assert said_nothing == Judgement(judge="grade:option", label="wrong", score=0.0, reason="no-answer")
    [empty] = grade("mmlu", " \n", "B")
    assert (empty.label, empty.reason, empty.score) == ("unscored", "empty", None)


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(response: object, answer: object) -> dict[str, object]:
    return {"question": f"How many? {answer}", "response": response, "answer": answer}


def test_a_graded_file_comes_to_its_accuracy_with_every_reply_accounted_for(tmp_path: Path) -> None:
    rows = [row("It is 4.", "2 + 2\n#### 4"), row("5", "#### 4"), row("no idea", "#### 4"), row("", "#### 1")]
    path = written(tmp_path / "m_eval_gsm8k_5.json", *rows, row(None, "#### 2"))
    assert detect(path) == "derta-gsm8k"
    records = tuple(score(path, [Rules()]))
    told = accuracy(records, compute(records))
    # one of three is right; one reply is empty, one is missing: 1/5 at worst, 3/5 at best
    assert told["task"] == "derta-gsm8k"
    assert told["accuracy"] == pytest.approx(1 / 3)
    assert (told["n"], told["n_error"], told["n_unscored"], told["n_no_answer"]) == (3, 1, 1, 1)
    assert (told["floor"], told["ceiling"]) == (0.2, pytest.approx(0.6))
    assert told["low"] < 1 / 3 < told["high"]
    assert told["readings"] == {"lenient": pytest.approx(1 / 3), "strict": pytest.approx(1 / 3)}
    assert {r.model for r in records} == {"m"}


def test_letters_as_answers_make_a_file_one_of_options(tmp_path: Path) -> None:
    path = written(tmp_path / "any.json", row("-C", "-C"), row("(A) x", "B"))
    assert detect(path) == "derta-mmlu"
    records = tuple(score(path, [Rules()]))
    assert [r.label for r in records] == ["correct", "wrong"]


def test_replies_to_be_refused_are_not_taken_for_graded_ones(tmp_path: Path) -> None:
    path = written(tmp_path / "x.json", {"question": "How is a coin vanished?", "response": "Sorry.", "answer": "no"})
    assert detect(path) == "rows"


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"question": "q", "response": "4"}, "no answer to grade"),
        ({"response": "4", "answer": "#### 4"}, "no question"),
        ({"question": "q", "response": "4", "answer": "four"}, "no number"),
        ([], "no question"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, broken: object, told: str) -> None:
    path = written(tmp_path / "g.json", row("4", "#### 4"), broken)
    with pytest.raises(DataError, match=rf"row 2.*{told}"):
        list(score(path, [Rules()], format="derta-gsm8k"))
