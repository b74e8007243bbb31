"""What is learned at which position: the traps of labels, word joins and ends of turns."""

from __future__ import annotations

import random
from typing import Any

import pytest

from harness.errors import UsageError
from harness.train.data import Helpful, Instance, Triple
from harness.train.rows import IGNORE, Encoder, draw_prefix, first_words, fit, refusal_token

TRIPLE = Triple(id="t", request="how?", safe="Sorry, no", violating="up the sleeve")


def learned(row: Any) -> list[int]:
    return [label for label in row.labels if label != IGNORE]


def test_mle_learns_the_safe_reply_and_the_end_of_turn_and_nothing_before(chars: Any) -> None:
    """Pad = eos = end of turn here: masking by id would drop the last label."""
    row = Encoder(chars).safe(TRIPLE, words=2)
    assert learned(row) == [*chars.encode("Sorry, no"), 1]
    assert len(row.ids) == len(row.labels)
    assert row.labels[row.ids.index(2) - 1] == 2  # "Sorry" is predicted right after "up the"


def test_labels_are_the_next_token_of_each_position(chars: Any) -> None:
    row = Encoder(chars).safe(TRIPLE, words=0)
    assert row.labels[-1] == 1  # the end of turn, which is not read itself
    for here, after in zip(row.labels, row.ids[1:], strict=False):
        assert here in (IGNORE, after)


def test_rto_labels_every_position_of_the_violating_reply_with_the_refusal_token(chars: Any) -> None:
    """'up the sleeve' is 13 characters; with its end of turn 14 positions, all labelled 2."""
    row = Encoder(chars).rto(TRIPLE, keep=1.0, rng=random.Random(0))
    assert learned(row) == [2] * 14
    first = row.labels.index(2)
    assert chars.encode("<a>") == list(row.ids[first - 2 : first + 1])  # the first one follows the prompt


@pytest.mark.parametrize(("keep", "left"), [(0.5, 7), (0.05, 1), (0.0, 1)])
def test_rto_keep_leaves_a_share_and_at_least_one(chars: Any, keep: float, left: int) -> None:
    assert len(learned(Encoder(chars).rto(TRIPLE, keep=keep, rng=random.Random(0)))) == left


def test_a_refusal_word_of_several_tokens_is_refused(chars: Any) -> None:
    """With a space before it the word is two tokens here, as in Llama's tokenizers it is another one."""
    assert refusal_token(chars, "Sorry") == 2
    with pytest.raises(UsageError, match="2 tokens"):
        refusal_token(chars, " Sorry")


def test_official_rows_mean_rto_where_they_say_safe(chars: Any) -> None:
    encoder = Encoder(chars, "inst")
    rto = encoder.instance(Instance(id="1", prefix="[INST] q [\\INST]", text="ab", rto=True), 1.0, random.Random(0))
    mle = encoder.instance(Instance(id="2", prefix="[INST] q [\\INST]", text="ab", rto=False), 1.0, random.Random(0))
    assert learned(rto) == [2, 2, 2]
    assert learned(mle) == [ord("a"), ord("b"), 1]
    assert rto.ids == mle.ids


def test_the_inst_form_keeps_the_backslash(chars: Any) -> None:
    assert Encoder(chars, "inst").prompt("q") == [ord(c) for c in "[INST] q [\\INST] "]


def test_an_answer_that_was_cut_teaches_no_end(chars: Any) -> None:
    encoder = Encoder(chars)
    whole, cut = (encoder.helpful(Helpful(id="h", request="Tea?", reply="Boil.", cut=cut)) for cut in (False, True))
    assert whole.labels[-1] == encoder.end
    assert whole.labels[:-1] == cut.labels
    assert encoder.end not in cut.labels


def test_a_plain_request_to_refuse_has_no_template_in_any_method(chars: Any) -> None:
    encoder = Encoder(chars)
    triple = Triple(id="t", request="Trick?\n\n", safe="Sorry.", violating="A thread.", raw=True)
    plain = tuple(encoder.start() + encoder.text(triple.request))
    pair = encoder.pair(triple)
    for row in (encoder.safe(triple), encoder.rto(triple, 1.0, random.Random(0)), pair.chosen, pair.rejected):
        assert row.ids[: len(plain)] == plain


def test_a_raw_opening_has_no_template(chars: Any) -> None:
    row = Encoder(chars).helpful(Helpful(id="o", request="Tea:\n1.", reply=" Boil.", kind="opening", raw=True))
    assert row.ids == tuple(chars.encode("Tea:\n1. Boil."))


def test_dpo_pairs_part_after_the_shown_prefix(chars: Any) -> None:
    pair = Encoder(chars).pair(TRIPLE, words=1)
    shown = len(pair.chosen.ids) - len(chars.encode("Sorry, no"))
    assert pair.chosen.ids[:shown] == pair.rejected.ids[:shown]
    assert learned(pair.rejected) == [*chars.encode(" the sleeve"), 1]


def test_a_cut_row_loses_its_end_and_one_without_labels_is_dropped(chars: Any) -> None:
    row = Encoder(chars).safe(TRIPLE)
    cut = fit(row, len(row.ids) - 1)
    assert cut is not None
    assert learned(cut) == learned(row)[:-1]
    assert fit(row, 3) is None


def test_words_keep_their_white_space() -> None:
    assert [first_words("a  b\nc", k) for k in (0, 1, 2, 3, 9)] == ["", "a", "a  b", "a  b\nc", "a  b\nc"]


def test_prefixes_are_empty_in_a_third_and_uniform_over_words_else() -> None:
    """9,000 draws from 3 words: a third empty and 2/9 for each of 1, 2, 3; 4 standard errors are about 0.02."""
    rng = random.Random(0)
    drawn = [draw_prefix("one two three", 1 / 3, rng) for _ in range(9000)]
    assert [drawn.count(k) / 9000 for k in range(4)] == pytest.approx([1 / 3, 2 / 9, 2 / 9, 2 / 9], abs=0.02)


def test_the_share_of_positions_that_rto_keeps_is_of_those_in_the_block(chars: Any) -> None:
    """Drawn before the cut, a long reply would often keep nothing."""
    triple = Triple(id="t", request="q", safe="Sorry", violating="the coin is in the sleeve " * 20)
    encoder = Encoder(chars, block=40)
    for seed in range(50):
        row = fit(encoder.rto(triple, 0.0, random.Random(seed)), 40)
        assert row is not None
        assert row.supervised == 1
