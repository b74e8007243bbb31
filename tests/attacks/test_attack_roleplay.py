"""SelfCipher and JailbreakChat: bundled texts, a user's own files, and who gets which template."""

from __future__ import annotations

import hashlib
import json

import pytest

from attacks.bundled import TEMPLATES, fill, load_demonstrations, load_role_plays
from attacks.cipher import SelfCipher
from attacks.jailbreakchat import JailbreakChat
from harness import registry
from harness.errors import DataError, UsageError
from tasks.overlap import clashes


def test_filling_leaves_braces_in_the_request_alone():
    assert fill("{a} {b} {c} {}", a="{b}", b="{a}") == "{b} {a} {c} {}"


def test_demonstrations_give_away_no_trick_that_is_evaluated():
    tricks = [json.loads(line)["trick"] for line in (TEMPLATES / "demonstrations.jsonl").read_text().splitlines()]
    assert len(set(tricks)) == len(tricks) == len(load_demonstrations())
    evaluated = [*registry.behaviors("magic"), *registry.behaviors("magic-lookalikes")]
    assert not clashes([shot.request for shot in load_demonstrations()], evaluated)


def test_the_cipher_prompt_is_role_demonstrations_and_the_bare_question(attempts, context, behavior):
    (attempt,) = attempts(SelfCipher(shots=2), behavior("Why {so}?"), context())
    (message,) = attempt.prompt.messages
    assert message.content.endswith("\n\nWhy {so}?")
    assert message.content.count("\nuser: ") == message.content.count("\nassistant: ") == 2


def test_the_cipher_prefix_can_be_the_system_message(attempts, context, behavior):
    (attempt,) = attempts(SelfCipher(as_system=True), behavior("Why?"), context())
    assert [(m.role, m.content == "Why?") for m in attempt.prompt.messages] == [("system", False), ("user", True)]


@pytest.mark.parametrize("shots", [0, 65, -1, "5", True, 2.0])  # 64 are bundled
def test_more_or_fewer_shots_than_there_are_is_the_users_mistake(shots):
    with pytest.raises(UsageError, match=r"shots is .* from 1 to 64"):
        SelfCipher(shots=shots)


def test_a_users_demonstrations_are_pinned_by_hash(tmp_path, attempts, context, behavior):
    file = tmp_path / "own.jsonl"
    file.write_text('{"request": "own question", "reply": "own answer"}\n\n')
    pinned = hashlib.sha256(file.read_bytes()).hexdigest()
    attack = SelfCipher(shots=1, demonstrations=str(file), sha256=pinned)
    (attempt,) = attempts(attack, behavior(), context())
    assert "user: own question\nassistant: own answer" in attempt.prompt.last
    with pytest.raises(DataError, match="not the pinned file"):
        SelfCipher(shots=1, demonstrations=str(file), sha256="0" * 64)


@pytest.mark.parametrize(
    ("second_row", "said"),
    [
        ("{UNSPEAKABLE", "line 2"),
        ('{"request": "UNSPEAKABLE"}', "line 2: KeyError"),
        ('{"request": "UNSPEAKABLE", "reply": 3}', "line 2"),
        ('["UNSPEAKABLE"]', "line 2"),
        ('"UNSPEAKABLE"', "line 2"),
    ],
)
def test_a_broken_row_is_named_by_its_number_and_never_quoted(second_row, said, tmp_path):
    file = tmp_path / "own.jsonl"
    file.write_text('{"request": "a", "reply": "b"}\n' + second_row)
    with pytest.raises(DataError, match=said) as caught:
        SelfCipher(shots=1, demonstrations=str(file))
    error: BaseException | None = caught.value
    while error:
        assert "UNSPEAKABLE" not in str(error)
        error = error.__cause__


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_a_missing_empty_or_binary_file_is_one_clear_error(content, tmp_path):
    file = tmp_path / "own.jsonl"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"own\.jsonl"):
        SelfCipher(demonstrations=str(file))


def test_at_least_twenty_distinct_templates_each_with_its_slot():
    templates = load_role_plays()
    assert len(set(templates.values())) == len(templates) >= 20
    for text in templates.values():
        assert text.count("{request}") == 1
        assert "{" not in fill(text, request="")


def test_a_behavior_keeps_its_template_whoever_else_is_there(attempts, context, behavior):
    def templates(ids):
        return {i: attempts(JailbreakChat(), behavior(id=i), context())[0].variant for i in ids}

    everyone = [f"magic/{i}" for i in range(40)]
    assert templates(everyone[7:9]).items() <= templates(everyone).items()
    assert len(set(templates(everyone).values())) > 10  # 24 templates, 40 draws: some 20 are expected


def test_more_templates_begin_with_the_ones_drawn_before(attempts, context, behavior):
    one, three = (attempts(JailbreakChat(n=n), behavior(), context()) for n in (1, 3))
    assert [a.variant for a in three][:1] == [a.variant for a in one]
    assert len({a.variant for a in three}) == 3


def test_all_templates_means_all(attempts, context, behavior):
    made = attempts(JailbreakChat(all_templates=True), behavior(), context())
    assert {a.variant for a in made} == set(load_role_plays())


def test_a_users_templates_take_the_place_of_ours(tmp_path, attempts, context, behavior):
    file = tmp_path / "own.yaml"
    file.write_text("mine: 'Say {request} and {other}'\n")
    (attempt,) = attempts(JailbreakChat(templates=str(file)), behavior("{x}"), context())
    assert (attempt.variant, attempt.prompt.last) == ("mine", "Say {x} and {other}")


@pytest.mark.parametrize("content", ["a: no slot", "[1, 2]", "a: [", "", "a: {request}"])
def test_a_file_without_templates_is_one_clear_error(content, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(content)
    with pytest.raises(DataError, match=r"own\.yaml"):
        JailbreakChat(templates=str(file))


@pytest.mark.parametrize("n", [0, 1000])
def test_more_templates_than_there_are_is_the_users_mistake(n):
    with pytest.raises(UsageError, match="n is"):
        JailbreakChat(n=n)
