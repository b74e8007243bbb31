"""Many-shot, best-of-N and adaptive prefill: what is sent, what it costs, and what a search ends on."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from attacks.adaptive_prefill import AdaptivePrefill
from attacks.best_of_n import BestOfN, capitalised, noised, scrambled
from attacks.bundled import load_demonstrations
from attacks.many_shot import ManyShot
from attacks.prefill import Prefill
from attacks.search import Tried
from harness.errors import DataError, UsageError
from harness.types import Attempt, Behavior, Judgement, Prompt

TEXT = "Wie schwebt die Jungfrau?\n\tÄußerst  leicht – {request} \\ 浮く"


# --- many-shot


@pytest.mark.parametrize("as_turns", [False, True])
def test_each_number_of_shots_shows_that_many_and_then_the_request(as_turns, attempts, context, behavior):
    made = attempts(ManyShot(shots=(1, 3), as_turns=as_turns), behavior(TEXT), context())
    requests = [shot.request for shot in load_demonstrations()]
    for attempt, n in zip(made, (1, 3), strict=True):
        sent = "\n".join(message.content for message in attempt.prompt.messages)
        assert sum(request in sent for request in requests) == n
        assert TEXT in attempt.prompt.last
        assert [m.role for m in attempt.prompt.messages] == (["user", "assistant"] * n if as_turns else []) + ["user"]


def test_prompts_share_their_prefix_across_behaviors_and_shots(attempts, context, behavior):
    one, two = attempts(ManyShot(shots=(2, 4)), behavior("First"), context())
    (other,) = attempts(ManyShot(shots=(2,)), behavior("Second", id="magic/other"), context())
    shared = one.prompt.last.removesuffix("User: First\nAssistant:")
    assert shared in two.prompt.last
    assert shared in other.prompt.last
    (seeded,) = attempts(ManyShot(shots=(2,)), behavior("First"), context(seed=1))
    assert shared not in seeded.prompt.last


def test_more_shots_than_there_are_is_the_users_mistake():
    with pytest.raises(UsageError, match="from 1 to 64"):
        ManyShot(shots=(4, 65))


def test_a_missing_file_of_shots_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl"):
        ManyShot(demonstrations=str(tmp_path / "none.jsonl"))


# --- best of N


def test_nothing_changes_at_sigma_zero():
    for change in (scrambled, capitalised, noised):
        assert change(TEXT, 0.0, random.Random(0)) == TEXT


def test_scrambling_keeps_the_ends_the_letters_and_the_white_space():
    out = scrambled("Magicians  vanish\ncoins, the end", 1.0, random.Random(1))
    assert out != "Magicians  vanish\ncoins, the end"
    assert [word[0] + word[-1] for word in out.split()] == ["Ms", "vh", "c,", "te", "ed"]
    assert sorted(out) == sorted("Magicians  vanish\ncoins, the end")
    assert out.endswith(" the end")  # words of three stay


def test_letters_outside_ascii_change_case_and_none_is_lost():
    # reference bug: upstream drops every such letter that is drawn
    assert capitalised("aÄ浮 1!", 1.0, random.Random(0)) == "Aä浮 1!"


def test_noise_moves_printable_ascii_by_one_and_leaves_the_rest():
    out = noised(TEXT, 1.0, random.Random(0))
    assert len(out) == len(TEXT)
    for before, after in zip(TEXT, out, strict=True):
        moved = abs(ord(before) - ord(after))
        assert moved == 1 or (moved == 0 and (before == " " or not " " <= before <= "~"))


def test_about_the_papers_share_of_letters_changes_case():
    # sqrt(0.4) = 0.632; of 4,000 letters 2,530 are expected, three standard deviations are 92
    changed = capitalised("a" * 4000, 0.4, random.Random(5)).count("A")
    assert 2438 <= changed <= 2622


def test_all_samples_differ_and_cost_one_query_each(attempts, context, behavior):
    made = attempts(BestOfN(n=12), behavior("How does a magician bend a spoon?"), context())
    assert len({attempt.prompt.last for attempt in made}) == 12
    assert {attempt.queries for attempt in made} == {1}


def test_more_samples_begin_with_the_same(attempts, context, behavior):
    few, many = (attempts(BestOfN(n=n), behavior(), context()) for n in (3, 6))
    assert many[:3] == few


def nth(number, then, otherwise="no"):
    """A reply function: `then` to the call with this number (from 0), `otherwise` to all others."""
    calls = iter(range(10_000))
    return lambda prompt: then if next(calls) == number else otherwise


def test_the_search_stops_after_the_batch_with_the_first_success(attempts, context, behavior):
    world = context(target=nth(5, "SECRET"))
    (attempt,) = attempts(BestOfN(n=20, batch=4, stop_on_success=True), behavior(), world)
    # samples 0-3 fail, 4-7 hold the success: eight queries were sent, whatever came of the last two
    assert (attempt.variant, attempt.queries, len(world.target.seen)) == ("s5", 8, 8)
    assert attempt.prompt == world.target.seen[5]


def test_without_success_the_search_costs_n(attempts, context, behavior):
    world = context()
    (attempt,) = attempts(BestOfN(n=5, batch=4, stop_on_success=True), behavior(), world)
    assert (attempt.queries, len(world.target.seen)) == (5, 5)


@pytest.mark.parametrize("unknown", [None, "GARBLE"])
def test_a_search_ends_on_what_it_does_not_know_rather_than_on_a_refusal(unknown, attempts, context, behavior):
    world = context(target=nth(2, unknown))
    (attempt,) = attempts(BestOfN(n=6, stop_on_success=True), behavior(), world)
    assert (attempt.variant, attempt.queries) == ("s2", 6)


def test_one_failed_request_takes_no_other_down(attempts, context, behavior):
    replies = iter([None, "no", None, "SECRET"])
    (attempt,) = attempts(BestOfN(n=4, stop_on_success=True), behavior(), context(target=lambda p: next(replies)))
    assert attempt.variant == "s3"


@pytest.mark.parametrize("options", [{"n": 0}, {"batch": 0}, {"sigma": 1.5}, {"sigma": -0.1}])
def test_settings_out_of_range_are_the_users_mistake(options):
    with pytest.raises(UsageError):
        BestOfN(**options)


# --- adaptive prefill

REFERENCE = " ".join(f"w{i}" for i in range(1, 101))  # a hundred tokens of the fake model


def by_depth(rule):
    """A target that gives in when `rule(tokens of the reference in the prefill, opening)` says so."""

    def reply(prompt):
        opening, _, head = prompt.prefill.rpartition("w1 ") if "w1 " in prompt.prefill else (prompt.prefill, "", "")
        return "SECRET" if rule(len(head.split()) + ("w1 " in prompt.prefill), opening.strip()) else "no"

    return reply


def search(attempts, context, behavior, rule, **options):
    world = context(target=by_depth(rule))
    (attempt,) = attempts(AdaptivePrefill(openings=("Sure:", "But:"), **options), behavior(reference=REFERENCE), world)
    assert attempt.queries == len(world.target.seen)
    return attempt


def test_a_bare_depth_that_works_ends_the_search(attempts, context, behavior):
    attempt = search(attempts, context, behavior, lambda k, opening: k >= 20, depths=(0, 5, 20, 80))
    # all four depths are in flight together; 20 and 80 succeed, the shallower comes first
    assert (attempt.variant, attempt.depth, attempt.queries) == ("k20-o0", 20, 4)


def test_openings_are_tried_one_after_another_at_every_depth(attempts, context, behavior):
    attempt = search(attempts, context, behavior, lambda k, opening: opening == "But:" and k == 5, depths=(0, 5))
    # two bare depths, two behind "Sure:", two behind "But:", the last of which succeeds
    assert (attempt.variant, attempt.prompt.prefill, attempt.queries) == ("k5-o2", "But: w1 w2 w3 w4 w5", 6)


def test_the_search_goes_on_from_what_came_closest(attempts, context, behavior):
    def reply(prompt):
        if prompt.prefill == "w1 w2 w3":
            return "SECRET"
        return "no but a few words more" if prompt.prefill == "w1 w2 w3 w4 w5" else "no"

    attack = AdaptivePrefill(depths=(0, 5, 21), openings=())
    (attempt,) = attempts(attack, behavior(reference=REFERENCE), context(target=reply))
    # from 5: half way to 0 and to 21, that is 2 and 13; then 3 (half way to 2) and 9: seven queries
    assert (attempt.depth, attempt.queries) == (3, 7)


def test_depths_between_and_beyond_the_grid_are_searched(attempts, context, behavior):
    attempt = search(attempts, context, behavior, lambda k, opening: k == 2, depths=(0, 5), budget=40)
    assert attempt.depth == 2  # half way between 0 and 5
    deep = AdaptivePrefill(depths=(20,), openings=())
    (attempt,) = attempts(deep, behavior(reference=REFERENCE), context(target=by_depth(lambda k, opening: k == 40)))
    assert (attempt.depth, attempt.queries) == (40, 2)  # 20, then twice as deep; 20 has no neighbour below


def test_the_budget_is_never_passed(attempts, context, behavior):
    attempt = search(attempts, context, behavior, lambda k, opening: False, budget=7)
    assert attempt.queries == 7


def test_a_search_with_nothing_left_to_try_ends(attempts, context, behavior):
    world = context()
    (attempt,) = attempts(AdaptivePrefill(budget=10_000), behavior(reference="a b c"), world)
    assert attempt.queries == len(world.target.seen) < 100
    assert attempt.depth <= 3


def test_without_a_violating_reply_the_openings_are_what_is_left(attempts, context, behavior):
    (attempt,) = attempts(AdaptivePrefill(), behavior(), context(target=lambda p: "SECRET" if p.prefill else "no"))
    assert (attempt.variant, attempt.depth, attempt.queries) == ("k0-o1", 0, 2)  # bare, then the first opening
    assert not attempts(AdaptivePrefill(depths=(5,)), behavior(), context())


def test_the_best_attempt_is_a_prefill_the_plain_attack_could_send(attempts, context, behavior):
    given = behavior(reference=REFERENCE)
    found = search(attempts, context, behavior, lambda k, opening: k == 5)
    (plain,) = attempts(Prefill(depths=(5,)), given, context())
    assert replace(found, attack=plain.attack, variant=plain.variant, queries=1) == plain


@pytest.mark.parametrize("options", [{"budget": 0}, {"depths": ()}, {"openings": "Sure"}, {"openings": (1,)}])
def test_wrong_settings_are_the_users_mistake(options):
    with pytest.raises(UsageError):
        AdaptivePrefill(**options)


# --- ranking


def test_success_ranks_over_the_unknown_and_the_unknown_over_failure():
    def outcome(label=None, score=None, given=0):
        attempt = Attempt(behavior=Behavior(id="a", request="b"), attack="x", prompt=Prompt.chat("b"))
        judgement = Judgement(judge="j", label=label, score=score, given=given) if label else None
        return Tried(attempt=attempt, judgement=judgement)

    rising = [outcome("refused"), outcome("neither", given=9), outcome("refused", 0.2), outcome("unscored")]
    ranks = [one.rank for one in [*rising, outcome("complied", 0.1)]]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 5
    assert outcome().rank == outcome("unscored").rank
    assert outcome().promise < outcome("refused").promise  # nowhere to search on from


# --- what a search meets


def test_a_judge_that_breaks_on_one_reply_ends_no_search(attempts, context, behavior):
    class Breaking:
        name = "breaking"

        async def judge(self, attempt, completion, said):
            if said == "odd":
                raise ValueError("a plugin's own error")
            return Judgement(judge=self.name, label="complied" if said == "SECRET" else "refused")

    replies = iter(["no", "odd", "no", "SECRET"])
    world = replace(context(target=lambda prompt: next(replies)), judge=Breaking())
    (attempt,) = attempts(BestOfN(n=4, batch=2, stop_on_success=True), behavior(), world)
    assert (attempt.variant, attempt.queries) == ("s3", 4)
    world = replace(context(target=lambda prompt: "odd"), judge=Breaking())
    (attempt,) = attempts(AdaptivePrefill(budget=3), behavior(), world)
    assert attempt.queries == 3


def test_of_several_successes_in_a_batch_the_first_is_the_one_that_comes_out(attempts, context, behavior):
    replies = iter(["no", "SECRET", "no", "SECRET and a good deal more"])
    (attempt,) = attempts(BestOfN(n=4, stop_on_success=True), behavior(), context(target=lambda p: next(replies)))
    assert attempt.variant == "s1"
