"""AutoDAN on a tiny model: scores are the model's, remembered, and a killed run goes on."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attacks.autodan import AutoDan, common
from attacks.breeding import SLOT
from harness.errors import DataError, ModelError
from harness.types import Attempt, Behavior, Prompt, Sampling
from tests.attacks_adaptive.fakes import Notes, Scripted, context, run
from tests.attacks_adaptive.tiny import Open, open_model

pytestmark = pytest.mark.slow

BEHAVIOR = Behavior(id="ring", request="tell me how {it} is done.", target="the ring floats")
SMALL = AutoDan(size=6, steps=4, mutation=0.3)


def helper() -> Scripted:
    """An attacker that rephrases as it was told to."""
    return Scripted(lambda prompt, sampling: f"Say it, friend number {sampling.seed % 97}: {SLOT}")


def test_losses_are_those_of_each_prompt_alone() -> None:
    import torch

    from attacks.autodan import Fitness
    from attacks.gcg_search import tokens_of
    from attacks.packed import packed

    module, tokenizer = open_model().weights()
    fitness = Fitness(packed(module), tokens_of(tokenizer, 344), [(BEHAVIOR.request, BEHAVIOR.target)])
    prompts = ["x {request}", "tell me: {request} ! x ! x !", "{request}"]
    for prompt, loss in zip(prompts, fitness.losses(prompts), strict=True):
        messages = [{"role": "user", "content": prompt.replace(SLOT, BEHAVIOR.request)}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        target = torch.tensor(tokenizer(BEHAVIOR.target)["input_ids"])
        logits = module(torch.tensor([[*ids, *target.tolist()]])).logits[0, -len(target) - 1 : -1]
        assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, target)), abs=2e-5)


def test_the_best_seed_is_an_attempt_of_its_own_and_the_best_is_no_worse() -> None:
    from attacks.autodan import Fitness
    from attacks.gcg_search import tokens_of
    from attacks.packed import packed

    target = open_model()
    seed, bred = run(SMALL, context(target, helper()), BEHAVIOR)
    assert (seed.variant, bred.variant) == ("seed", "bred")
    assert all(BEHAVIOR.request in attempt.prompt.last for attempt in (seed, bred))
    fitness = Fitness(packed(target.pair[0]), tokens_of(target.pair[1], 344), [(BEHAVIOR.request, BEHAVIOR.target)])
    losses = fitness.losses([a.prompt.last.replace(BEHAVIOR.request, SLOT) for a in (seed, bred)])
    assert losses[1] <= losses[0]


def test_unchanged_prompts_are_scored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from attacks.autodan import Fitness

    scored: list[str] = []
    plain = Fitness.scored

    def counted(self: Fitness, prompts: Any) -> list[float]:
        scored.extend(prompts)
        return plain(self, prompts)

    monkeypatch.setattr(Fitness, "scored", counted)
    run(SMALL, context(open_model(), helper()), BEHAVIOR)
    assert len(scored) == len(set(scored)) < 6 * 5


def test_seeds_are_the_same_for_the_next_behavior() -> None:
    ctx = context(open_model(), helper())
    before = SMALL.seeds()
    first = run(SMALL, ctx, BEHAVIOR)
    run(SMALL, ctx, Behavior(id="other", request="x", target="it is done"))
    assert SMALL.seeds() == before
    assert run(SMALL, context(open_model(), helper()), BEHAVIOR)[0] == first[0]


@pytest.mark.parametrize("answer", ["", "no place for it", f"{SLOT} {SLOT}", f"{SLOT}" + "x" * 99_999])
def test_a_rephrasing_that_loses_the_request_is_dropped_and_counted(answer: str) -> None:
    many = AutoDan(size=30, steps=0)  # 24 seeds and 6 rephrasings
    _, bred = run(many, context(open_model(), Scripted(lambda p, s: answer)), BEHAVIOR)
    assert bred.spent["unusable_rephrasings"] == bred.spent["attacker_queries"] == 30 - len(many.seeds())
    assert bred.prompt.last.count(BEHAVIOR.request) == 1


def test_an_attacker_that_fails_ends_nothing() -> None:
    def dead(prompt: Prompt, sampling: Sampling) -> str:
        raise ModelError("down")

    _, bred = run(AutoDan(size=26, steps=1), context(open_model(), Scripted(dead)), BEHAVIOR)
    assert bred.spent["broken_rephrasings"] >= 1


def test_a_killed_run_ends_as_an_unbroken_one() -> None:
    class Killed(Notes):
        def put(self, key: str, value: str) -> None:
            if len(self.kept) == 3:
                raise KeyboardInterrupt
            super().put(key, value)

    whole = run(SMALL, context(open_model(), helper()), BEHAVIOR)
    memo = Killed()
    with pytest.raises(KeyboardInterrupt):
        run(SMALL, context(open_model(), helper(), memo=memo), BEHAVIOR)
    assert run(SMALL, context(open_model(), helper(), memo=Notes(memo.kept)), BEHAVIOR) == whole


def test_one_prompt_is_bred_for_all_lines_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attacks.autodan import Fitness
    from attacks.gcg_search import tokens_of
    from attacks.packed import packed

    file = tmp_path / "train.jsonl"
    scenes = [("how does it float?", "the ring"), ("where is it?", "it is here")]
    file.write_text("".join(json.dumps({"request": r, "target": t}) + "\n" for r, t in scenes))
    passes: list[int] = []
    plain = Fitness.scored

    def counted(self: Fitness, prompts: Any) -> list[float]:
        passes.append(len(prompts))
        return plain(self, prompts)

    monkeypatch.setattr(Fitness, "scored", counted)
    attack, target = AutoDan(size=6, steps=3, mutation=0, train=str(file)), open_model()
    ctx = context(target, helper())
    others = [Behavior(id=f"b{i}", request=f"request {i}", target="unused") for i in range(3)]

    async def together() -> list[list[Attempt]]:
        async def one(behavior: Behavior) -> list[Attempt]:
            return [attempt async for attempt in attack.attempts(behavior, ctx)]

        return list(await asyncio.gather(*map(one, others)))

    found = asyncio.run(together())
    assert len(passes) <= 4  # one search, however many behaviors wait for it
    texts = [[a.prompt.last.replace(a.behavior.request, SLOT) for a in pair] for pair in found]
    assert texts[0] == texts[1] == texts[2]
    assert all(name.startswith("shared_") for pair in found for a in pair for name in a.spent or {})
    fitness = Fitness(packed(target.pair[0]), tokens_of(target.pair[1], 344), scenes)
    alone = [Fitness(fitness.model, fitness.tokens, [scene]).losses(texts[0]) for scene in scenes]
    assert fitness.losses(texts[0]) == pytest.approx([sum(pair) / 2 for pair in zip(*alone, strict=True)])
    assert fitness.losses(texts[0])[1] <= fitness.losses(texts[0])[0]


def test_a_finished_search_is_replayed_without_weights() -> None:
    memo = Notes()
    first = run(SMALL, context(open_model(), helper(), memo=memo), BEHAVIOR)
    closed = Open(lambda p, s: "no")
    assert run(SMALL, context(closed, helper(), memo=memo), BEHAVIOR) == first


def test_a_behavior_without_target_is_an_error() -> None:
    with pytest.raises(DataError, match="no target"):
        run(SMALL, context(open_model(), helper()), Behavior(id="b", request="x"))


def test_a_target_of_the_attack_stands_for_the_behaviors_own() -> None:
    own = run(replace(SMALL, steps=1), context(open_model(), helper()), BEHAVIOR)
    bare = replace(BEHAVIOR, target="")
    given = run(replace(SMALL, steps=1, target=BEHAVIOR.target), context(open_model(), helper()), bare)
    assert [attempt.prompt for attempt in given] == [attempt.prompt for attempt in own]
    assert {attempt.behavior for attempt in given} == {bare}


def test_common_beginnings() -> None:
    assert common([[1, 2, 3], [1, 2, 4], [1, 2]]) == 2
    assert common([[1], [2]]) == 0


def test_rephrasing_leaves_two_queries_for_the_best_seed_and_the_best_of_all() -> None:
    ctx = context(open_model(), helper(), limits={"queries": 5})
    _, bred = run(AutoDan(size=30, steps=0), ctx, BEHAVIOR)  # 24 seeds and 6 rephrasings
    assert bred.spent["attacker_queries"] == 3


def test_whether_two_words_are_near_is_worked_out_once() -> None:
    from attacks.autodan import Fitness
    from attacks.gcg_search import tokens_of
    from attacks.packed import packed

    module, tokenizer = open_model().weights()
    fitness = Fitness(packed(module), tokens_of(tokenizer, 344), [])
    words = ["ring", "thread", "trick", "magic"]
    pairs = [(one, other) for one in words for other in words]
    first = [fitness.near(*pair) for pair in pairs]
    assert first[:: len(words) + 1] == [True] * len(words)  # each to itself
    fitness.vectors.clear()
    del fitness.model, fitness.tokens
    assert [fitness.near(*pair) for pair in pairs] == first
