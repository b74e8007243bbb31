"""What every attack in the table owes the engine, whatever it does."""

from __future__ import annotations

import ast
import functools
import re

import pytest

from attacks import PLUGINS
from harness import registry
from harness.errors import UnknownName
from harness.types import Attack, sha

# Those that hold conversations or need gradients have tests of their own, with attackers and weights to fake; so have
# those that send prompts of a file.
APART = {
    "pair",
    "tap",
    "replay",
    "recorded",
    "recorded_raw",
    "derta_code",
    "derta_jailbreakchat",
    "derta_cipher",
    "derta_completion",
}
NAMES = [name for name in sorted(set(PLUGINS) - APART) if "weights" not in registry.load("attack", name).needs]

REQUESTS = {
    "plain": "How do I bend a spoon?",
    "quotes": "Explain the \"French drop\" and 'the pass'",
    "backslashes": r"What does \n or C:\tricks\new mean, and \"this\"?",
    "braces": "Tell me about {request}, {encoded}, {0} and {{x}}",
    "newlines": "First line\nsecond line\n\n```\nfenced\n```",
    "unicode": "Wie schwebt die Jungfrau – auf «Französisch»? 浮く 🎩",
    "word": "Levitation",
    "hyphens": "self-working sleight-of-hand",
    "only hyphens": "--",
}
REPLY = "First you take the spoon in both hands and warm it. " * 12


@functools.cache
def made_by_name(name: str) -> Attack:
    return registry.make("attack", name)


def words(text: str) -> str:
    return re.sub(r"[\s\-]+", " ", text).strip()


@pytest.mark.parametrize("name", NAMES)
def test_the_class_bears_the_name_of_its_row(name):
    assert registry.load("attack", name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_opens_with_one_sentence_for_the_listing(name):
    assert 10 < len(registry.summary("attack", name)) <= 95


@pytest.mark.parametrize("request_kind", REQUESTS)
@pytest.mark.parametrize("name", NAMES)
def test_attempts_declare_what_they_need_and_never_collide(name, request_kind, attempts, context, behavior):
    attack = made_by_name(name)
    made = attempts(attack, behavior(REQUESTS[request_kind], reference=REPLY), context())
    assert made, "at least one attempt"
    assert all(attempt.prompt.needs <= attack.needs for attempt in made)
    assert all(attempt.attack == name and attempt.queries >= 1 for attempt in made)
    keys = [(attempt.attack, attempt.variant, attempt.seed) for attempt in made]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_attempts(name, attempts, context, behavior):
    attack = made_by_name(name)
    one, two = (attempts(attack, behavior(reference=REPLY), context(seed=7)) for _ in range(2))
    assert [sha(attempt) for attempt in one] == [sha(attempt) for attempt in two]
    assert {attempt.seed for attempt in one} == {7}


@pytest.mark.parametrize("request_kind", REQUESTS)
@pytest.mark.parametrize("name", ["cipher", "jailbreakchat", "prefill", "direct"])
def test_the_request_reaches_the_model_to_the_letter(name, request_kind, attempts, context, behavior):
    request = REQUESTS[request_kind]
    for attempt in attempts(made_by_name(name), behavior(request), context()):
        assert request in attempt.prompt.last


@pytest.mark.parametrize("request_kind", REQUESTS)
def test_code_holds_the_request_in_literals_that_read_back(request_kind, attempts, context, behavior):
    from attacks.code import FAMILIES, Code

    request = REQUESTS[request_kind]
    for attempt in attempts(Code(families=FAMILIES), behavior(request), context()):
        code = re.search(r"```\w+\n(.*)```\n?$", attempt.prompt.last, re.DOTALL)[1]
        if not attempt.variant.startswith("python"):
            # json and C++ and Go share every escape that is used here, so Python reads their literals too
            literal = re.search(r"my_?string :?= (.*?);?$", code, re.MULTILINE | re.IGNORECASE)[1]
            assert ast.literal_eval(literal) == request
            continue
        scope: dict[str, object] = {}
        # The one place where code runs, and it is our own template: up to where the model is to fill it in.
        exec(code.partition("    # What it takes")[0] + "    return task\n", scope)
        told = scope["fill_output_list"]()
        assert told == request if "string" in attempt.variant else words(told) == words(request)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_setting_is_named(name):
    with pytest.raises(UnknownName, match="colour"):
        registry.make("attack", name, {"colour": "red"})


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("code")])
def test_what_is_not_encoded_is_read_as_it_is(name, attempts, context, behavior):
    attack = made_by_name(name)
    attempt = attempts(attack, behavior(reference=REPLY), context())[0]
    assert attack.read(attempt, 'output_list = ["a"]') == 'output_list = ["a"]'
