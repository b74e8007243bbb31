"""The depth curve: each point holds exactly the tokens it is named after."""

from __future__ import annotations

import pytest

from attacks.prefill import Prefill
from harness.errors import UsageError

SEVEN = "one two three four five six seven"  # seven tokens of the fake model


def test_each_depth_holds_that_many_tokens(attempts, context, behavior):
    made = attempts(Prefill(depths=(0, 2, 5)), behavior(reference=SEVEN), context())
    assert [(a.depth, a.variant, a.prompt.prefill) for a in made] == [
        (0, "k0", ""),
        (2, "k2", "one two"),
        (5, "k5", "one two three four five"),
    ]


def test_a_reply_too_short_for_a_depth_gives_no_attempt_there(attempts, context, behavior):
    made = attempts(Prefill(depths=(5, 7, 8, 80)), behavior(reference=SEVEN), context())
    assert [a.depth for a in made] == [5, 7]  # 7 is exactly there, 8 is not


@pytest.mark.parametrize("text", [SEVEN + " \n", "  " + SEVEN])
def test_a_tokenizer_that_drops_white_space_mislabels_no_depth(text, attempts, context, behavior, model):
    class Stripping(model):
        def head(self, text, k):
            return " ".join(text.split()[:k])

    made = attempts(Prefill(depths=(6, 7, 8)), behavior(reference=text), context(target=Stripping()))
    assert [a.depth for a in made] == [6, 7]


def test_half_a_character_is_never_sent(attempts, context, behavior, model):
    class Bytes(model):
        def head(self, text, k):
            return text.encode()[:k].decode(errors="replace")

    made = attempts(Prefill(depths=(1, 2, 3, 4, 5)), behavior(reference="a浮"), context(target=Bytes()))
    # a is one byte and the sign three: there are 4 tokens, and up to the last of them only "a" can be sent
    assert [(a.depth, a.prompt.prefill) for a in made] == [(1, "a"), (2, "a"), (3, "a"), (4, "a浮")]


def test_the_target_stands_in_for_a_missing_reference(attempts, context, behavior):
    made = attempts(Prefill(depths=(2,)), behavior(target="Sure, here is how"), context())
    assert [a.prompt.prefill for a in made] == ["Sure, here"]


def test_without_any_violating_reply_only_the_bare_request_is_left(attempts, context, behavior):
    assert [a.depth for a in attempts(Prefill(), behavior(), context())] == [0]


def test_no_prefill_needs_no_prefill(attempts, context, behavior):
    made = attempts(Prefill(depths=(0, 1)), behavior(reference=SEVEN), context())
    assert [sorted(a.prompt.needs) for a in made] == [["chat"], ["chat", "prefill"]]


def test_depths_are_sorted_and_counted_once():
    assert Prefill(depths=[20, 0, 5, 5]).depths == (0, 5, 20)


@pytest.mark.parametrize("depths", [(-1,), ("5",), (2.5,), (), "5", (True,)])
def test_depths_that_are_not_counts_are_the_users_mistake(depths):
    with pytest.raises(UsageError, match="depths"):
        Prefill(depths=depths)
