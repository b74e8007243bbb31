"""The bundled helpfulness tasks: sound items, honest marking, and lm-eval's own code agrees."""

from __future__ import annotations

import ast
import operator
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tasks.catalog import ARITHMETIC, INSTRUCTIONS, KNOWLEDGE, Task
from tasks.helpfulness import score
from tasks.helpfulness.checks import CHECKS, followed
from tasks.overlap import similarity
from tasks.read import rows


def items_of(task: Task) -> list[dict[str, Any]]:
    assert task.path is not None
    return [dict(row.fields) for row in rows(task.path)]


def computed(formula: str) -> Decimal:
    """The value of a formula of whole numbers, worked out without eval."""
    signs: dict[type, Any] = {
        ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv
    }  # fmt: skip

    def value(node: ast.expr) -> Decimal:
        if isinstance(node, ast.BinOp):
            return Decimal(signs[type(node.op)](value(node.left), value(node.right)))
        assert isinstance(node, ast.Constant)
        return Decimal(node.value)

    return value(ast.parse(formula, mode="eval").body)


@pytest.mark.parametrize("task", [ARITHMETIC, KNOWLEDGE, INSTRUCTIONS], ids=lambda task: task.name)
def test_items_are_many_numbered_and_distinct(task: Task) -> None:
    found = items_of(task)
    assert [each["id"] for each in found] == [f"{task.name}-{i:03d}" for i in range(1, 73)]
    texts = [each.get("question") or each["prompt"] for each in found]
    assert len(set(texts)) == 72


def test_arithmetic_answers_follow_from_their_formulas() -> None:
    for each in items_of(ARITHMETIC):
        assert computed(each["formula"]) == each["answer"] > 0, each["id"]


def test_arithmetic_mixes_one_and_more_steps() -> None:
    steps = Counter(min(2, len(re.findall(r"[-+*/]", each["formula"]))) for each in items_of(ARITHMETIC))
    assert steps[1] >= 30
    assert steps[2] >= 30


def test_knowledge_has_four_different_options_and_no_favourite_place() -> None:
    found = items_of(KNOWLEDGE)
    assert all(len(set(each["choices"])) == 4 for each in found)
    assert Counter(each["answer"] for each in found) == {0: 18, 1: 18, 2: 18, 3: 18}
    assert min(Counter(each["subject"] for each in found).values()) >= 7


def test_knowledge_is_not_given_away_by_length() -> None:
    def rank(each: dict[str, Any]) -> int:
        lengths = sorted((len(choice) for choice in each["choices"]), reverse=True)
        return lengths.index(len(each["choices"][each["answer"]]))

    longest = sum(rank(each) == 0 for each in items_of(KNOWLEDGE))
    assert longest <= 36  # always taking the longest option gives at most one half


def test_no_two_questions_of_knowledge_are_near_duplicates() -> None:
    texts = [each["question"] for each in items_of(KNOWLEDGE)]
    for number, one in enumerate(texts):
        assert all(similarity(one, other) < 0.7 for other in texts[:number]), one


def test_every_check_that_items_name_is_known_and_every_known_one_is_used() -> None:
    used = {check.partition(": ")[0] for each in items_of(INSTRUCTIONS) for check in each["checks"]}
    assert used == set(CHECKS)


def test_no_instruction_is_followed_by_silence_or_by_an_echo_of_the_prompt() -> None:
    for each in items_of(INSTRUCTIONS):
        for reply in ("", "  \n", each["prompt"]):
            assert score.instructions(each, [reply]) == {"followed": 0.0}, (each["id"], reply)


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ("one_word", ["Cold.", "ice-cream"], ["Very cold", "..."]),
        ("yes_or_no: yes", ["Yes", "yes."], ["No", "Yes, it is", "yes no"]),
        ("number_only: 7", ["7", "7."], ["seven", "7 days", "17"]),
        ("exact: Hi, Al!", ["Hi, Al!", " Hi, Al!\n"], ['"Hi, Al!"', "hi, al!", "Hi, Al! Bye."]),
        ("lower_case", ["the sea is wide."], ["The sea", "123"]),
        ("upper_case", ["FIRE! 3 EXITS"], ["Fire", "123"]),
        ("bullets: 2", ["- a\n- b", "* a\n\n• b", "Sure:\n- a\n- b"], ["- a", "1. a\n2. b", "-a\n-b", "- a\n- b\n- c"]),
        ("numbered: 2", ["1. a\n2) b", "Here:\n1. a\n2. b"], ["- a\n- b", "1. a", "1. a\n2. b\n3. c", "1.5 a\n2"]),
        ("lines: 2", ["a\nb", "a\n\nb\n"], ["a", "a\nb\nc"]),
        ("comma_list: 3", ["red, green, blue", "a, b, c."], ["red, green", "a,\nb,\nc", "a, , c"]),
        ("starts_with: in my opinion", ["In my opinion, tea."], ["Tea, in my opinion", "In"]),
        ("ends_with: the end", ["So it went. The end.", '"The End"'], ["The end of it", "end"]),
        ("contains: dog", ["My dog!", "Dogs run."], ["dogma", "My do g"]),
        ("avoids: bark", ["The dog is loud."], ["It barks."]),
        ("no_commas", ["Eggs and tea."], ["Eggs, tea"]),
        ("max_words: 3", ["It keeps dry"], ["It keeps you dry", "!!!"]),
        ("min_words: 3", ["It keeps dry"], ["It keeps"]),
        ("sentences: 2", ["It rolls. It is red!", 'He said "Hi." Then he left.'], ["It rolls.", "A. B. C."]),
        ("paragraphs: 2", ["One.\n\nTwo.", "One.\n \nTwo\nmore."], ["One.\nTwo.", "One.\n\n\n"]),
        ("quoted", ['"Haste makes waste."', "“Bees”"], ["Haste", '"A" and "B"', '""', '"open']),
        ("question", ["Do you sing?"], ["I sing.", "Nice. Do you sing?", "Do you sing? I do."]),
        (
            "json_keys: name, age",
            ['{"name": "Al", "age": 3}', '```json\n{"age": 3, "name": "Al"}\n```'],
            ['{"name": "Al"}', '{"name": "Al", "age": 3, "x": 0}', "name: Al", "[1]", "[" * 100_000],
        ),
    ],
)
def test_a_check_knows_right_from_wrong(check: str, right: list[str], wrong: list[str]) -> None:
    assert [followed(reply, check) for reply in right] == [True] * len(right)
    assert [followed(reply, check) for reply in wrong] == [False] * len(wrong)


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("12", 12),
        ("Tom has 7 + 5 = 12 apples.", 12),
        ("The answer is 12 apples. I used 2 steps.", 12),
        ("The answer is 7 + 5 = 12.", 12),
        ("Answer: $1,250.00", 1250),
        ("So she pays **$8.50**.", Decimal("8.5")),
        ("#### 42", 42),
        (r"\boxed{9}", 9),
        ("It falls to −3 degrees", -3),
        ("He works 9-5, that is 8 hours", 8),
        ("Give the answer as a number. 12", 12),
        ("1,2 and 3", 3),
        ("Version v2.5", None),
        ("twelve", None),
        ("", None),
    ],
)
def test_the_number_of_a_reply(reply: str, value: Decimal | int | None) -> None:
    assert score.number(reply) == value


def test_a_reply_without_a_number_is_wrong() -> None:
    assert score.arithmetic({"answer": 12}, ["I don't know"]) == {"exact_match": 0.0}
    assert score.arithmetic({"answer": 12}, ["12.0"]) == {"exact_match": 1.0}
    assert score.arithmetic({"answer": 12}, ["112"]) == {"exact_match": 0.0}


def scripted_lm(right: bool) -> Any:
    """An lm-eval model that knows every answer, or gives a wrong one on purpose."""
    from lm_eval.api.model import LM

    class Scripted(LM):  # type: ignore[misc]
        def generate_until(self, requests: list[Any], **_: Any) -> list[str]:
            return [str(r.doc["answer"] + (not right)) if "answer" in r.doc else "ONE, word" for r in requests]

        def loglikelihood(self, requests: list[Any], **_: Any) -> list[tuple[float, bool]]:
            return [(0.0 if (r.idx == r.doc["answer"]) == right else -9.0 - r.idx, False) for r in requests]

        def loglikelihood_rolling(self, requests: list[Any], **_: Any) -> list[float]:
            raise NotImplementedError

    return Scripted()


@pytest.mark.slow
@pytest.mark.parametrize("right", [True, False])
def test_lm_eval_loads_and_scores_the_bundled_tasks_from_any_folder_without_a_hub(
    right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    assert ARITHMETIC.path is not None
    manager = TaskManager(include_path=str(ARITHMETIC.path.parent), include_defaults=False)
    carried = [task.name for task in (ARITHMETIC, INSTRUCTIONS, KNOWLEDGE)]  # the others' rows have to be pulled
    assert set(carried) < set(manager.all_tasks)
    done = simple_evaluate(
        model=scripted_lm(right), tasks=carried, task_manager=manager, bootstrap_iters=0, log_samples=True
    )
    assert done["results"]["arithmetic"]["exact_match,none"] == float(right)
    assert done["results"]["knowledge"]["acc,none"] == float(right)
    by_hand = sum(score.instructions(each, ["ONE, word"])["followed"] for each in items_of(INSTRUCTIONS)) / 72
    assert done["results"]["instructions"]["followed,none"] == pytest.approx(by_hand)
    assert {name: len(samples) for name, samples in done["samples"].items()} == dict.fromkeys(carried, 72)
