"""TAP with scripted models: it prunes what it should, and what breaks costs one branch."""

from __future__ import annotations

import json

import pytest

from attacks.tap import Tap
from harness.errors import ModelError, ModelTimeout
from harness.types import Prompt, Sampling
from tests.attacks_adaptive.fakes import Scripted, context, move, run


def attacker(topic: str = '{"same": true}') -> Scripted:
    """Writes the prompt "p<seed>"; answers every topic question with `topic`."""

    def say(prompt: Prompt, sampling: Sampling) -> str:
        return topic if '"same"' in (sampling.schema or "") else move(f"p{sampling.seed}")

    return Scripted(say, name="attacker")


SMALL = Tap(depth=3, width=2, branching=2)


def test_the_tree_has_the_stated_shape_and_stays_in_its_budget() -> None:
    seen, model = Scripted(lambda prompt, sampling: "no"), attacker()
    (attempt,) = run(SMALL, context(seen, model))
    # leaves 1, 2, 2 grow 2 branches each: 2 + 4 + 4 nodes, each a move and a topic question
    assert len(seen.asked) == 10
    assert len(model.asked) == 20
    assert attempt.queries == 31
    assert SMALL.budget() == {"attacker": 60, "target": 11, "judge": 11}


def grown_branches(verdicts: list[tuple[str, float | None]], seed: int = 0) -> set[int]:
    """Which of four first branches, given these verdicts, a tree of width 1 grows on from."""
    first: list[int] = []

    def score(said: str) -> tuple[str, float | None]:
        first.append(int(said[1:]))
        return verdicts[(int(said[1:]) - first[0]) // 5 % 4]

    model = attacker()
    run(Tap(depth=2, width=1, branching=4), context(Scripted(lambda p, s: p.last), model, score, seed=seed))
    later = [p for p, s in model.asked if "same" not in (s.schema or "") and len(p.messages) > 2]
    return {(int(json.loads(p.messages[2].content)["prompt"][1:]) - first[0]) // 5 for p in later}


def test_only_the_best_scored_leaves_grow() -> None:
    assert grown_branches([("refused", 0.1), ("refused", 0.9), ("refused", 0.5), ("refused", 0.8)]) == {1}


def test_an_unscored_leaf_does_not_grow_before_a_known_failure_that_came_close() -> None:
    assert grown_branches([("unscored", None), ("unscored", None), ("neither", 0.5), ("unscored", None)]) == {2}


def test_equal_scores_fall_by_lot_and_the_same_way_on_a_second_run() -> None:
    ties: list[tuple[str, float | None]] = [("refused", None)] * 4
    grown = [grown_branches(ties, seed) for seed in range(12)]
    assert grown == [grown_branches(ties, seed) for seed in range(12)]
    assert all(len(branches) == 1 for branches in grown)
    assert len(set.union(*grown)) > 1  # twelve alike by chance: 4 ** -11


def test_off_topic_prompts_never_reach_the_target() -> None:
    seen = Scripted(lambda prompt, sampling: "no")
    with pytest.raises(ModelError, match="pruned: off topic"):
        run(SMALL, context(seen, attacker('{"same": false}')))
    assert seen.asked == []


@pytest.mark.parametrize("answer", ["", "yes", '{"same": "maybe"}', '{"same": tr'])
def test_an_unreadable_topic_answer_keeps_the_prompt_and_is_counted(answer: str) -> None:
    (attempt,) = run(SMALL, context(Scripted(lambda prompt, sampling: "no"), attacker(answer)))
    assert attempt.spent["unknown_topics"] == 10


def test_a_broken_branch_costs_only_itself() -> None:
    calls = iter(range(100))

    def flaky(prompt: Prompt, sampling: Sampling) -> str:
        if next(calls) == 0:
            raise ModelTimeout("no answer")
        return "no"

    (attempt,) = run(SMALL, context(Scripted(flaky), attacker()))
    # of the first two nodes one broke: 2 nodes, then 1 leaf grows 2, then 2 leaves grow 4
    assert attempt.spent["target_queries"] == 2 + 2 + 4
    assert attempt.spent["broken_rounds"] == 1


def test_it_stops_at_the_level_of_a_success_and_yields_its_earliest() -> None:
    seen = Scripted(lambda prompt, sampling: "the secret")
    (attempt,) = run(Tap(), context(seen, attacker()))
    assert len(seen.asked) == 4
    assert attempt.prompt.last == min(prompt.last for prompt, _ in seen.asked)


def test_seeds_are_distinct_and_the_same_on_a_second_run() -> None:
    def seeds() -> list[int]:
        model = attacker()
        run(SMALL, context(Scripted(lambda prompt, sampling: "no"), model))
        return sorted(s.seed for _, s in model.asked if "same" not in (s.schema or ""))

    assert seeds() == seeds()
    assert len(set(seeds())) == 10
