"""Several behaviors in step: sharing passes changes no suffix, one that breaks stops no other, a kill no trajectory."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from attacks.autodan import AutoDan
from attacks.gcg import Gcg
from harness.budget import estimate
from harness.errors import DataError
from harness.types import Attempt, Behavior, Context
from tests.attacks_adaptive.fakes import Notes, Scripted, collect, context
from tests.attacks_adaptive.tiny import Open, open_model

pytestmark = pytest.mark.slow

FAST = {"preset": "nanogcg", "init": " x x x x x x x x", "width": 24, "topk": 32, "steps": 5}
ASKED = [
    Behavior(id=f"b{i}", request=request, target=target)
    for i, (request, target) in enumerate([
        ("tell me how the trick is done.", "the ring floats because a thread"),
        ("me?", "it is done"),
        ("how the ring floats", "a thin thread holds it"),
    ])
]  # fmt: skip


def helper() -> Scripted:
    return Scripted(lambda p, s: "")


def all_at_once(attack: Any, contexts: list[Context]) -> list[list[Attempt]]:
    async def gather() -> list[Any]:
        jobs = (collect(attack, ctx, b) for ctx, b in zip(contexts, ASKED, strict=True))
        return await asyncio.gather(*jobs, return_exceptions=True)

    return asyncio.run(gather())


def contexts(target: Open, memo: Notes | None = None, **more: Any) -> list[Context]:
    """One for each behavior, as the engine makes them; the memo is the run's."""
    notes = memo or Notes()
    return [context(target, helper(), memo=notes, **more) for _ in ASKED]


def steps(memo: Notes) -> dict[str, Any]:
    """Every step kept, less the time it took."""
    told = {k: json.loads(v) for k, v in memo.kept.items() if k.rsplit("/", 1)[1].isdigit()}
    return {k: {name: x for name, x in step.items() if name != "seconds"} for k, step in told.items()}


def to_send(attempts: list[Attempt]) -> int:
    """The most tokens that it takes to send what a search yields."""
    return sum(1024 + estimate(attempt.prompt) for attempt in attempts)


def test_behaviors_in_one_pass_find_what_each_finds_alone() -> None:
    memos = Notes(), Notes()
    alone = all_at_once(Gcg(together=1, **FAST), contexts(open_model(), memos[0]))
    together = all_at_once(Gcg(together=3, **FAST), contexts(open_model(), memos[1]))
    assert alone == together
    ids = [{k: step["ids"] for k, step in steps(memo).items()} for memo in memos]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 3 * 5


def test_three_behaviors_take_fewer_passes_than_three_times_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from attacks.packed import Packed

    passes = 0
    plain = Packed.logits

    def counted(self: Packed, *args: Any) -> Any:
        nonlocal passes
        passes += 1
        return plain(self, *args)

    monkeypatch.setattr(Packed, "logits", counted)
    counts = []
    for together in (1, 3):
        passes = 0
        all_at_once(Gcg(together=together, **FAST), contexts(open_model()))
        counts.append(passes)
    # each begins with 3 (prompt, gradient, first loss); a step alone is 2 (gradient, candidates), 3 x (3 + 5 x 2);
    # together a step is one gradient pass and one of all candidates: 3 x 3 + 5 x 2
    assert counts == [39, 19]


@pytest.mark.parametrize("left", [1, 4, 5, 8, 13])
def test_a_group_killed_in_the_middle_ends_as_an_unbroken_one(left: int) -> None:
    class Killed(Notes):
        def put(self, key: str, value: str) -> None:
            if len(self.kept) == left:
                raise KeyboardInterrupt
            super().put(key, value)

    attack, whole, torn = Gcg(together=3, **FAST), Notes(), Killed()
    expected = all_at_once(attack, contexts(open_model(), whole))
    with pytest.raises(KeyboardInterrupt):
        all_at_once(attack, contexts(open_model(), torn))
    resumed = Notes(torn.kept)
    assert all_at_once(attack, contexts(open_model(), resumed)) == expected
    assert steps(resumed) == steps(whole)


def test_a_search_that_cannot_begin_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Gcg.open

    def broken(self: Gcg, lines: Any, ctx: Context) -> Any:
        if lines[0][0] == "me?":
            raise DataError("no such scene")
        return begin(self, lines, ctx)

    monkeypatch.setattr(Gcg, "open", broken)
    first, second, third = all_at_once(Gcg(together=3, **FAST), contexts(open_model()))
    assert isinstance(second, DataError)
    assert [a.variant for a in first] == [a.variant for a in third] == ["seed", "suffix"]


def test_more_behaviors_than_a_group_holds_all_get_their_turn() -> None:
    found = all_at_once(Gcg(together=2, **FAST), contexts(open_model()))
    assert all(len(attempts) == 2 for attempts in found)


def test_costs_of_a_shared_pass_are_split_evenly() -> None:
    found = all_at_once(Gcg(together=3, **FAST), contexts(open_model()))
    assert {attempts[0].spent == {} for attempts in found} == {True}  # the first suffix costs no search
    spent = [dict(attempts[1].spent or {}) for attempts in found]
    assert len({s["target_tokens"] for s in spent}) == 1
    assert all(s["steps"] == 5 and s["seconds"] > 0 for s in spent)


def test_a_budget_of_tokens_ends_a_search_and_is_on_record() -> None:
    free = all_at_once(Gcg(together=3, **FAST), contexts(open_model()))
    whole = (free[0][1].spent or {})["target_tokens"]
    limit = whole / 2 + 2 * 1060  # two replies of the run's length with their prompts: where it began, what it found
    memo = Notes()
    found = all_at_once(Gcg(together=3, **FAST), contexts(open_model(), memo, limits={"target_tokens": limit}))
    for attempts in found:
        spent = dict(attempts[1].spent or {})
        assert spent["target_tokens"] + to_send(attempts) <= limit
        assert 0 < spent["steps"] < 5
        assert spent["exhausted"] == 1
    again = contexts(open_model(), memo, limits={"target_tokens": limit})
    assert all_at_once(Gcg(together=3, **FAST), again) == found
    assert all(ctx.meter.exhausted for ctx in again)


def test_a_budget_ends_breeding_with_the_best_so_far() -> None:
    attack = AutoDan(size=6, steps=4, mutation=0.0)
    free = all_at_once(attack, contexts(open_model()))
    first = (free[0][0].spent or {})["target_tokens"]
    limit = 3.5 * first + 2 * 1250
    found = all_at_once(attack, contexts(open_model(), limits={"target_tokens": limit}))
    for attempts in found:
        assert sum((a.spent or {})["target_tokens"] for a in attempts) + to_send(attempts) <= limit
        assert [a.variant for a in attempts] == ["seed", "bred"]
        assert (attempts[1].spent or {})["generations"] < 4
        assert (attempts[1].spent or {})["exhausted"] == 1
