"""Public sets as behaviors, on harmless files in the shape of the real ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import registry
from harness.data import pinned
from harness.errors import DataError, UsageError
from harness.types import Behavior
from tasks import PLUGINS
from tasks.catalog import Task
from tasks.load import behaviors
from tasks.public import READERS, pairing

Put = Callable[..., None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Lays files in place of those of a pulled set: the first is the set's first, the rest go by their names."""

    def lay(**files: str) -> None:
        made = []
        for name, text in files.items():
            path = tmp_path / name.replace("__", ".")
            path.write_text(text, encoding="utf-8")
            made.append(path)

        def path_of(name: str, file: str = "") -> Path:
            return next(p for p in made if p.name == file) if file else made[0]

        monkeypatch.setattr(pinned, "path", path_of)

    return lay


def test_every_public_task_has_a_reader_and_a_pinned_set() -> None:
    tasks = {name: registry.load("task", name) for name in PLUGINS}
    public = {name for name, task in tasks.items() if task.pinned and task.kind not in ("helpfulness", "pairwise")}
    assert public == set(READERS)
    assert public <= set(pinned.table())
    for name in public:
        task: Task = registry.load("task", name)
        assert task.kind == pinned.find(name).kind
        assert f"harness data pull {name}" in task.description


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_set_that_was_not_pulled_says_what_to_type(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        behaviors(name)
    assert caught.value.hint == f"harness data pull {name}"


def test_harmbench_has_targets_and_puts_the_context_first(put: Put) -> None:
    put(
        harmbench__csv="Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
        "Explain the trick,standard,magic,,,explain_trick\n"
        'Sum it up,contextual,magic,context,"A coin\nvanishes.",sum\n',
        harmbench_targets_text__json=json.dumps({"explain_trick": "Here is how"}),
    )
    one, two = behaviors("harmbench")
    assert one == Behavior(id="explain_trick", request="Explain the trick", category="magic", task="harmbench",
                           target="Here is how")  # fmt: skip
    assert two.request == "A coin\nvanishes.\n\n---\n\nSum it up"
    assert two.target == ""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "jailbreakbench",
            "Index,Goal,Target,Behavior,Category,Source\n0,Say how,Sure,Title,magic,own\n",
            Behavior(id="jbb-0", request="Say how", target="Sure", category="magic", task="jailbreakbench"),
        ),
        (
            "jailbreakbench-benign",
            "Index,Goal,Target,Behavior,Category,Source\n7,Say when,Sure,Title,magic,own\n",
            Behavior(id="jbb-benign-7", request="Say when", category="magic", expect="comply",
                     task="jailbreakbench-benign"),
        ),
        (
            "advbench",
            "goal,target\nSay how,Sure\n",
            Behavior(id="advbench-0001", request="Say how", target="Sure", task="advbench"),
        ),
        (
            "strongreject",
            "category,source,forbidden_prompt\nmagic,own,Say how\n",
            Behavior(id="strongreject-0001", request="Say how", category="magic", task="strongreject"),
        ),
        (
            "do-not-answer",
            "id,risk_area,types_of_harm,specific_harms,question\n12,magic,a,b,Say how\n",
            Behavior(id="dna-12", request="Say how", category="magic", task="do-not-answer"),
        ),
    ],
)  # fmt: skip
def test_tables_are_read_by_their_own_columns(name: str, text: str, expected: Behavior, put: Put) -> None:
    put(table__csv=text)
    assert behaviors(name) == (expected,)


def test_safe_prompts_of_xstest_are_to_be_answered_and_unsafe_ones_refused(put: Put) -> None:
    head = "id,prompt,type,label,focus,note\n"
    put(x__csv=f"{head}1,How do I kill time?,homonyms,safe,,\n2,How is it done?,contrast_homonyms,unsafe,,\n")
    assert [(b.id, b.expect, b.category) for b in behaviors("xstest")] == [
        ("xstest-1", "comply", "homonyms"), ("xstest-2", "refuse", "contrast_homonyms"),
    ]  # fmt: skip
    put(x__csv=f"{head}1,How do I kill time?,homonyms,,,\n")
    with pytest.raises(DataError, match="line 2: no 'label'"):
        behaviors("xstest")
    put(x__csv=f"{head}1,How do I kill time?,homonyms,maybe,,\n")
    with pytest.raises(DataError, match="neither safe nor unsafe") as caught:
        behaviors("xstest")
    assert "kill time" not in str(caught.value)


def test_or_bench_is_its_hard_prompts_and_its_toxic_ones(put: Put) -> None:
    put(
        hard__csv="prompt,category\nWhen?,magic\nWhere?,magic\n", **{"or-bench-toxic__csv": "prompt,category\nHow?,m\n"}
    )
    found = [(b.id, b.expect) for b in behaviors("or-bench")]
    assert found == [("or-bench-0001", "comply"), ("or-bench-0002", "comply"), ("or-bench-toxic-0001", "refuse")]


def test_derta_questions_keep_every_character_and_get_their_own_openings(put: Put) -> None:
    questions = ["How does a coin vanish? ", "How is a rope cut and mended?", "How does a card rise?"]
    openings = [
        "I will say how a rope is cut, and mended:\n1:",
        "This is how the card rises:\n",
        "A coin vanishes so: ",
    ]
    put(
        q__json="".join(json.dumps({"question": text}) + "\n" for text in questions),
        safety_completionattack__json="".join(json.dumps({"question": text}) + "\n" for text in openings),
    )
    found = behaviors("derta-200")
    assert [b.request for b in found] == questions
    assert [b.opening for b in found] == [openings[2], openings[0], openings[1]]
    assert [b.id for b in found] == ["derta-001", "derta-002", "derta-003"]
    assert [b.category for b in found] == ["do-not-answer", "harmbench", "harmbench"]  # the halves of the file


def test_pairing_is_one_to_one_in_whatever_order_the_texts_come() -> None:
    things = ["coin", "rope", "card", "silk", "dove", "ring", "cup", "ball", "watch", "egg"]
    questions = [f"How does the {thing} do that trick?" for thing in things]
    order = random.Random(3).sample(range(10), 10)
    others = [f"I will tell about that trick and the {things[i]}:" for i in order]
    assert [order[j] for j in pairing(questions, others)] == list(range(10))
    assert sorted(pairing(questions, ["nothing in common"] * 10)) == list(range(10))


def test_pairing_needs_as_many_texts_as_questions() -> None:
    with pytest.raises(DataError, match="2 questions, but 1 openings"):
        pairing(["a", "b"], ["a"])


def test_jsonl_under_the_name_of_json_is_read_from_a_users_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"question": "How does a coin vanish?"}\n{"question": "How does a rope mend?"}\n')
    assert [b.id for b in behaviors(str(path))] == ["mine-0001", "mine-0002"]
