"""Settings and files of the searching attacks are checked when the attack is made, before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.errors import DataError, HarnessError, UsageError


def made(**settings: Any) -> None:
    """Makes an attack with one setting, named `attack__setting`."""
    ((name, value),) = settings.items()
    attack, setting = name.split("__")
    registry.make("attack", attack, {setting: str(value)})


@pytest.mark.parametrize(
    "settings",
    [
        {"pair__streams": -1},
        {"pair__iterations": -1},
        {"pair__tries": 0},
        {"pair__memory": 0},
        {"pair__target_tokens": 0},
        {"tap__depth": 0},
        {"tap__width": -3},
        {"tap__branching": 0},
        {"tap__tries": 0},
        {"tap__memory": 0},
        {"gcg__steps": -1},
        {"gcg__width": 0},
        {"gcg__topk": 0},
        {"gcg__buffer": -1},
        {"probe_sampling__width": 0},
        {"autodan__points": -1},
        {"autodan__words": -1},
        {"autodan__swaps": -1},
    ],
)
def test_a_number_that_makes_no_search_is_the_users_mistake(settings: dict[str, int]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(UsageError, match=f"{name.split('__')[1]} is {value}; it must be a whole number"):
        made(**settings)


@pytest.mark.parametrize(
    "settings", [{"pair__streams": 0}, {"gcg__steps": 0}, {"gcg__buffer": 0}, {"autodan__swaps": 0}]
)
def test_a_zero_that_has_a_meaning_is_taken(settings: dict[str, int]) -> None:
    made(**settings)


@pytest.mark.parametrize("name", ["gcg__train", "probe_sampling__train", "autodan__train", "autodan__templates"])
def test_a_missing_file_is_said_when_the_attack_is_made(name: str, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="read"):
        made(**{name: tmp_path / "none"})


@pytest.mark.parametrize("target", ['""', '" "', "null"])
@pytest.mark.parametrize("attack", ["gcg", "autodan"])
def test_an_empty_target_in_a_train_file_names_its_row(attack: str, target: str, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    fine = '{"request": "how?", "target": "the ring"}'
    file.write_text(f'{fine}\n{{"request": "how does the coin vanish?", "target": {target}}}\n')
    with pytest.raises(DataError, match="row 2: the target is empty") as caught:
        made(**{f"{attack}__train": file})
    assert "coin" not in str(caught.value)
    file.write_text(fine)
    made(**{f"{attack}__train": file})


@pytest.mark.parametrize(
    "settings",
    [
        {"pair__temperature": -1},
        {"pair__top_p": 0},
        {"tap__temperature": -0.5},
        {"tap__top_p": 7},
        {"gcg__mellowmax": -2},
        {"probe_sampling__mellowmax": -2},
        {"autodan__elites": -3},
        {"autodan__crossover": 40},
        {"autodan__mutation": 50},
        {"best_of_n__sigma": 1.5},
    ],
)
def test_a_number_out_of_range_is_the_users_mistake(settings: dict[str, float]) -> None:
    ((name, _),) = settings.items()
    with pytest.raises(UsageError, match=f"{name.split('__')[1]} is .*; it must be a number"):
        made(**settings)


@pytest.mark.parametrize("name", ["pair__temperature", "tap__top_p", "gcg__mellowmax", "autodan__elites"])
def test_what_is_no_number_is_none(name: str) -> None:
    attack, setting = name.split("__")
    with pytest.raises(UsageError, match="'nan' is not a number"):
        made(**{name: "nan"})
    with pytest.raises(UsageError, match="must be a number"):
        registry.load("attack", attack)(**{setting: float("nan")})


def test_a_blank_first_suffix_is_the_users_mistake() -> None:
    with pytest.raises(UsageError, match="init is blank"):
        made(gcg__init="  ")


def test_texts_with_commas_are_given_as_json() -> None:
    made_of = registry.make("attack", "adaptive_prefill", {"openings": '["Sure, here it is", "So:"]'})
    assert made_of.openings == ("Sure, here it is", "So:")
    with pytest.raises(UsageError, match="is no JSON list"):
        made(adaptive_prefill__openings="[Sure, here it is")
