"""What a GCG search keeps of its steps, without a model: losses over different numbers of scenes are never compared."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from attacks.gcg_search import Search, Settings, Step
from attacks.probe import ProbeSearch

START, ONE, TWO, THREE = [5, 5], [6, 5], [6, 6], [7, 6]


def search(buffer: int, kind: type[Search] = Search) -> Search:
    """A search over two scenes that has won the first: loss 0.5 at `ONE`."""
    made = kind.__new__(kind)
    scenes: list[Any] = [None, None]
    made.settings, made.scenes, made.steps = Settings(buffer=buffer), scenes, []
    made.buffer = [(3.0, START), (4.0, [9, 9])][: max(1, buffer)]
    made.best = made.buffer[0]
    made.keep(Step(0.5, ONE, scenes=1, hit=True))
    return made


@pytest.mark.parametrize("buffer", [0, 1, 2])
def test_the_search_moves_on_when_a_scene_joins_whatever_the_loss_was_before(buffer: int) -> None:
    made = search(buffer)
    assert made.active == 2
    made.keep(Step(2.0, TWO, scenes=2))  # higher than 0.5, which was over one scene
    assert made.buffer == [(2.0, TWO)]
    made.keep(Step(1.5, THREE, scenes=2))
    assert made.buffer[0] == made.best == (1.5, THREE)


@pytest.mark.parametrize("buffer", [0, 1, 2])
@pytest.mark.parametrize("kind", [Search, ProbeSearch])
def test_a_joining_step_without_survivors_keeps_its_loss_and_its_number_of_scenes(
    kind: type[Search], buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attacks.gcg_search.scores", lambda *of_nothing: [])
    made, jobs = search(buffer, kind), list[Any]([None, None])
    made.packed = SimpleNamespace(device="cpu")  # type: ignore[assignment]
    (step,) = kind.pick([made], [jobs], [[]])
    assert step == Step(0.5, ONE, scenes=1, hit=True)
    made.keep(step)
    assert made.best == (0.5, ONE)
    assert made.active == 2  # the second scene is tried again


def test_a_step_without_survivors_is_no_hit_where_the_hit_was_another_suffix() -> None:
    made = search(2)
    made.keep(Step(0.9, TWO, scenes=1, hit=True))  # a hit of higher loss than what the buffer holds
    assert made.stay() == Step(0.5, ONE, scenes=1, hit=False)
    assert search(0).stay().hit
