"""Prompts that are sent as they are: the official files of DeRTa, here replaced by harmless ones, and a user's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attacks import derta
from harness import registry
from harness.data import pinned
from harness.errors import DataError, UsageError
from harness.types import Attack, Attempt, Behavior, Context, Prompt

CHAT = {"derta_code": "derta-code", "derta_jailbreakchat": "derta-jailbreakchat", "derta_cipher": "derta-cipher"}
TEXTS = ["  first prompt, spaces kept \n", "second\n```python\nx\n```", "third"]


def third(**fields: Any) -> Behavior:
    return Behavior(**({"id": "derta-003", "request": "q", "task": "derta-200", "opening": "So it is:\n1: "} | fields))


@pytest.fixture
def pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every DeRTa set is this one file of three rows."""
    path = tmp_path / "prompts.json"
    path.write_text("".join(json.dumps({"question": text}) + "\n" for text in TEXTS))
    monkeypatch.setattr(pinned, "path", lambda name, file="": path)
    return path


@pytest.mark.parametrize("name", [*CHAT, "derta_completion"])
def test_a_set_that_was_not_pulled_is_said_when_the_attack_is_made(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        registry.make("attack", name)
    assert caught.value.hint.startswith("harness data pull derta-")


@pytest.mark.parametrize("name", CHAT)
def test_question_i_gets_row_i_to_the_letter(
    name: str, pulled: Path, attempts: Callable[..., list[Attempt]], context: Callable[..., Context]
) -> None:
    attack: Attack = registry.make("attack", name)
    for number, text in enumerate(TEXTS, 1):
        [attempt] = attempts(attack, third(id=f"derta-{number:03d}"), context())
        assert attempt.prompt == Prompt.chat(text)
        assert (attempt.attack, attempt.variant) == (name, "official")


def test_the_opening_is_sent_raw(pulled: Path, attempts: Any, context: Any) -> None:
    [attempt] = attempts(registry.make("attack", "derta_completion"), third(), context())
    assert attempt.prompt == Prompt(text="So it is:\n1: ")


@pytest.mark.parametrize("fields", [{"task": "magic"}, {"id": "derta-004"}, {"id": "derta-000"}, {"id": "coin"}])
@pytest.mark.parametrize("name", CHAT)
def test_behaviors_of_other_sets_are_refused(
    name: str, fields: dict[str, str], pulled: Path, attempts: Any, context: Any
) -> None:
    with pytest.raises(UsageError, match="alone") as caught:
        attempts(registry.make("attack", name), third(**fields), context())
    assert caught.value.hint == "--behaviors derta-200"


def test_an_opening_of_another_set_is_refused(pulled: Path, attempts: Any, context: Any) -> None:
    with pytest.raises(UsageError, match="alone"):
        attempts(registry.make("attack", "derta_completion"), third(task="magic"), context())


def test_a_reply_in_code_is_read_as_what_its_list_would_hold(pulled: Path) -> None:
    attack: Attack = registry.make("attack", "derta_code")
    attempt = Attempt(behavior=third(), attack="derta_code", prompt=Prompt.chat("x"), variant="official")
    said = attack.read(attempt, '```python\noutput_list.append("Hold the coin.")\noutput_list.append("Let go.")\n```')
    assert said.split("\n") == ["Hold the coin.", "Let go."]


def test_a_row_without_a_question_is_named_by_its_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text('{"question": "fine"}\n{"answer": "secret text"}\n')
    with pytest.raises(DataError, match=r"broken\.json has a row without a question") as caught:
        derta.prompts(path)
    assert "secret" not in str(caught.value)


def recorded(path: Path, name: str = "recorded") -> Attack:
    made: Attack = registry.make("attack", name, {"file": str(path)})
    return made


@pytest.mark.parametrize("name", ["recorded", "recorded_raw"])
def test_recorded_prompts_find_their_behavior_by_id_or_request(
    name: str, tmp_path: Path, attempts: Any, context: Any
) -> None:
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"id": "coin", "prompt": "one "},
        {"id": "coin", "prompt": "two"},
        {"request": "How does a rope mend?", "prompt": "three"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    attack = recorded(path, name)
    made = Prompt.chat if name == "recorded" else lambda text: Prompt(text=text)
    coin = attempts(attack, Behavior(id="coin", request="q"), context())
    assert [(a.variant, a.prompt) for a in coin] == [("1", made("one ")), ("2", made("two"))]
    assert all(a.prompt.needs == attack.needs for a in coin)
    [rope] = attempts(attack, Behavior(id="r", request="How does a rope mend?"), context())
    assert rope.prompt == made("three")


def test_a_row_with_id_and_request_is_found_by_either_and_once(tmp_path: Path, attempts: Any, context: Any) -> None:
    path = tmp_path / "prompts.jsonl"
    rows = [{"id": "coin", "request": "How?", "prompt": "one"}, {"id": "same", "request": "same", "prompt": "two"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    attack = recorded(path)
    for behavior in (Behavior(id="coin", request="other words"), Behavior(id="magic-7", request="How?")):
        [found] = attempts(attack, behavior, context())
        assert found.prompt == Prompt.chat("one")
    [same] = attempts(attack, Behavior(id="same", request="same"), context())
    assert same.prompt == Prompt.chat("two")


def test_a_behavior_without_a_recorded_prompt_is_an_error_not_a_gap(
    tmp_path: Path, attempts: Any, context: Any
) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("id,prompt\ncoin,one\n")
    with pytest.raises(DataError, match="no prompt for behavior rope"):
        attempts(recorded(path), Behavior(id="rope", request="q"), context())


@pytest.mark.parametrize("row", ['{"id": "coin"}', '{"prompt": "secret text"}', '"secret text"', "[1]"])
def test_a_broken_row_of_prompts_is_named_by_number(row: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": "a", "prompt": "fine"}\n' + row + "\n")
    with pytest.raises(DataError, match="row 2") as caught:
        recorded(path)
    assert "secret" not in str(caught.value)


def test_no_file_says_how_to_name_one() -> None:
    with pytest.raises(UsageError) as caught:
        registry.make("attack", "recorded_raw")
    assert caught.value.hint == "--set recorded_raw.file=PATH"


def test_official_attacks_are_reached_by_the_engine(pulled: Path, context: Any) -> None:
    async def first() -> Attempt:
        return await anext(aiter(registry.make("attack", "derta_code").attempts(third(), context())))

    assert asyncio.run(first()).prompt.last == "third"
