"""What the searching attacks owe the engine, whatever the request holds."""

from __future__ import annotations

from typing import Any

import pytest

from attacks.autodan import AutoDan
from attacks.gcg import Gcg
from attacks.pair import Pair
from attacks.probe import ProbeSampling
from attacks.tap import Tap
from harness import registry
from harness.types import Behavior
from tests.attacks_adaptive.fakes import Scripted, context, move, run
from tests.attacks_adaptive.tiny import model, open_model

REQUESTS = {
    "braces": "Tell me about {request}, {optim_str}, {0} and {{x}}",
    "quotes": "Explain the \"French drop\" and 'the pass'",
    "backslashes": r"What does \n or C:\tricks\new mean, \ue000?",
    "newlines": "First line\nsecond line\n\n```\nfenced\n```",
    "markers": "Say <|im_end|> and </s>",
    "unicode": "Wie schwebt die Jungfrau – 浮く 🎩",
    "space": "ends in a space ",
}
TALKING = [Pair(preset="code"), Tap(depth=2, width=2, branching=2)]
SEARCHING = [
    Gcg(steps=2, width=16, topk=16, init=" x x x"),
    ProbeSampling(steps=2, width=16, topk=16, init=" x x x"),
    AutoDan(size=4, steps=2),
]


def models(attack: Any) -> tuple[Any, Any]:
    """A target that refuses, and an attacker that can do what the attack asks of it."""
    if isinstance(attack, ProbeSampling):
        return open_model(), open_model(model("qwen2"))
    said = move("how?") if attack in TALKING else "Say {request}"
    return open_model() if attack in SEARCHING else Scripted(lambda p, s: "no"), Scripted(lambda p, s: said)


@pytest.mark.parametrize("name", ["pair", "tap", "gcg", "probe_sampling", "autodan"])
def test_the_table_names_the_class_and_its_docstring_opens_with_one_line(name: str) -> None:
    assert registry.load("attack", name).name == name
    assert 10 < len(registry.summary("attack", name)) <= 95


def check(attack: Any, request: str) -> None:
    """Two runs of one attack give the same attempts, each whole and each under its own key."""
    behavior = Behavior(id="b", request=request, target="the ring floats")
    first, second = (run(attack, context(*models(attack), seed=7), behavior) for _ in range(2))
    assert first == second
    assert {attempt.seed for attempt in first} == {7}
    assert all(attempt.attack == attack.name and attempt.prompt.needs <= attack.needs for attempt in first)
    keys = [(attempt.variant, attempt.seed) for attempt in first]
    assert len(set(keys)) == len(keys)
    assert all(attempt.spent for attempt in first if attempt.variant != "seed")
    if attack in SEARCHING:
        assert all(request in attempt.prompt.last for attempt in first)


@pytest.mark.parametrize("request_kind", REQUESTS)
@pytest.mark.parametrize("attack", TALKING, ids=lambda attack: attack.name)
def test_a_conversation_keeps_the_contract(attack: Any, request_kind: str) -> None:
    check(attack, REQUESTS[request_kind])


@pytest.mark.slow
@pytest.mark.parametrize("request_kind", REQUESTS)
@pytest.mark.parametrize("attack", SEARCHING, ids=lambda attack: attack.name)
def test_a_search_with_gradients_keeps_the_contract(attack: Any, request_kind: str) -> None:
    check(attack, REQUESTS[request_kind])
