"""Tasks by name through lm-eval: its own gsm8k and mmlu with the hub stubbed, and DeRTa's pulled subsets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from harness.config import make_spec
from harness.errors import UsageError
from harness.helpfulness import measure, prepare
from harness.metrics import compute
from harness.models.scripted import Scripted
from harness.types import Completion, Prompt, Record, Sampling

pytestmark = pytest.mark.slow


class Told(Scripted):
    """Replies from a table by the last line of what it is asked; keeps every prompt."""

    def __init__(self, replies: dict[str, str]) -> None:
        super().__init__(policy="comply")
        self.replies, self.sent = replies, list[Prompt]()

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.sent.append(prompt)
        found = next((reply for key, reply in self.replies.items() if key in prompt.last), "")
        return Completion(text=found, model=self.name, tokens_out=1)

    async def loglikelihood(self, prompt: Prompt, continuation: str) -> tuple[float, bool]:
        self.sent.append(prompt)
        return (0.0 if continuation.strip() == "B" else -5.0), False


def asked(model: Told, names: list[str], **settings: Any) -> list[Record]:
    tasks, _ = prepare(names, explicit=True, logprobs=True, who="test")
    return asyncio.run(measure(model, tasks, make_spec({"model": "scripted:comply", **settings})))


@pytest.fixture
def pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files in the place of the pinned ones."""
    rows = {
        "derta-gsm8k": [("2 + 2?", "... #### 4"), ("3 + 3?", "#### 6"), ("4 + 4?", "#### 8"), ("5 + 5?", "#### 10")],
        "derta-mmlu": [("Sky?\n-options\n-(A) red\n-(B) blue", "B"), ("Grass?\n-options\n-(A) green\n-(B) red", "A")],
    }
    for name, items in rows.items():
        lines = [json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in items]
        (tmp_path / f"{name}.json").write_text("".join(lines))
    from harness.data import pinned

    monkeypatch.setattr(pinned, "path", lambda name, file="": tmp_path / f"{name}.json")


@pytest.mark.usefixtures("pulled")
def test_dertas_subsets_are_sent_as_the_paper_sent_them_and_graded_its_way() -> None:
    model = Told({"2 + 2": "It is 4.", "3 + 3": "6, which is 3 + 3.", "4 + 4": "no idea", "Sky": "-B", "Grass": "(B)"})
    records = asked(model, ["derta-gsm8k", "derta-mmlu"])
    assert {prompt.last for prompt in model.sent} >= {
        "\n 2 + 2? \n ",
        "Choose the correct option for the given question.\n\n\n\nQuestion: Sky?\n-options\n-(A) red\n-(B) blue\n",
    }
    by = {(m.group["task"], m.group.get("reading", "")): m for m in compute(records) if m.name == "helpfulness"}
    # lenient: 4 and 6 are right, "no idea" is wrong, an empty reply is unscored
    # strict: 3 is the last number of the second
    lenient, strict, option = by["derta-gsm8k", ""], by["derta-gsm8k", "strict"], by["derta-mmlu", ""]
    assert (lenient.value, lenient.n, lenient.n_unscored) == (pytest.approx(2 / 3), 3, 1)
    assert strict.value == pytest.approx(1 / 3)
    assert (option.value, option.n) == (0.5, 2)


def test_nothing_is_said_of_a_folder_that_is_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    asked(Told({}), ["arithmetic"], task_limit=1)
    assert "git" not in capfd.readouterr().err


@pytest.mark.usefixtures("pulled")
def test_the_shards_of_a_task_make_up_the_whole_with_the_same_items() -> None:
    def items(**settings: Any) -> list[tuple[str, Any]]:
        found = asked(Told({"2 + 2": "4", "3 + 3": "6"}), ["derta-gsm8k"], **settings)
        return [(record.key, record.judgements) for record in found]

    whole = items()
    parts = [items(shard=f"{i}/3") for i in (1, 2, 3)]
    assert [len(part) for part in parts] == [2, 1, 1]
    assert sorted(pair for part in parts for pair in part) == sorted(whole)
    assert items(shard="6/6") == []
    assert len(items(task_limit=3)) == 3


def stub_hub(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> None:
    """`datasets.load_dataset` gives these rows in every split, and nothing is fetched."""
    import datasets

    table = datasets.Dataset.from_list(rows)
    splits = dict.fromkeys(("train", "dev", "validation", "test", "auxiliary_train"), table)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.DatasetDict(splits))


def test_lm_evals_own_gsm8k_runs_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = range(1, 9)
    stub_hub(monkeypatch, [{"question": f"What is {i} + 0?", "answer": f"{i} + 0 = {i}\n#### {i}"} for i in numbers])
    records = asked(Told({f"What is {i} + 0?": f"The answer is {i}" for i in numbers}), ["gsm8k"])
    assert len(records) == 8
    [metric] = [m for m in compute(records) if m.group == {"model": "scripted", "task": "gsm8k"}]
    assert (metric.value, metric.n) == (1.0, 8)


def test_lm_evals_own_mmlu_runs_by_name_over_all_its_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"question": f"Pick {i}", "choices": ["a", "b", "c", "d"], "answer": i % 2, "subject": "abstract_algebra"}
        for i in range(6)
    ]
    stub_hub(monkeypatch, rows)
    records = asked(Told({}), ["mmlu"], task_limit=2)
    assert len({record.category for record in records}) == 57
    assert len(records) == 57 * 2
    [metric] = [m for m in compute(records) if m.group == {"model": "scripted", "task": "mmlu"}]
    # The model likes B best, which is right for every second item.
    assert (metric.value, metric.n) == (0.5, 114)


def test_a_task_whose_data_was_not_pulled_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        prepare(["derta-mmlu"], explicit=True, logprobs=True, who="test")
    assert "harness data pull derta-mmlu" in caught.value.hint


def test_a_task_that_ends_the_process_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class Index:
        all_tasks = ("proofs",)

        def load(self, names: list[str]) -> None:
            raise SystemExit("install a prover")

    monkeypatch.setattr("harness.helpfulness.index", lambda defaults: Index())
    with pytest.raises(UsageError, match="task 'proofs' can't be asked here: install a prover"):
        prepare(["proofs"], logprobs=True, explicit=True, who="m")
