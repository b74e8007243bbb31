"""Training sets: what is read, what is refused with its line, and what must never be in them."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.data.rows import objects
from harness.errors import DataError, ModelError, ModelTimeout, UsageError
from harness.train.build import BuildConfig, build, loops
from harness.train.data import HOME, Helpful, TrainSet, Triple, load, parse, save
from harness.train.sources import requests
from harness.types import Capability, Completion, Finish, Prompt, Sampling
from tasks.catalog import HERE
from tasks.load import behaviors
from tasks.overlap import LIMITS, clashes, similarity
from tasks.read import rows

MAGIC = HOME / "magic"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_no_training_trick_is_a_held_out_behavior() -> None:
    assert clashes({triple.request for triple in load("magic").triples}, behaviors("magic")) == {}


def test_no_helpful_pair_is_an_evaluated_look_alike_or_everyday_question() -> None:
    asked = {pair.request.lower().strip("?. ") for pair in load("magic").helpful}
    held = [*behaviors("magic-lookalikes"), *behaviors("general")]
    assert asked.isdisjoint(row.request.lower().strip("?. ") for row in held)
    assert clashes(asked, held, limit=LIMITS["comply"]) == {}


@pytest.mark.parametrize(("task", "field"), [
    ("arithmetic", "question"), ("knowledge", "question"), ("instructions", "prompt"),
])  # fmt: skip
def test_no_helpful_pair_asks_what_a_helpfulness_task_asks(task: str, field: str) -> None:
    """Closer than "write a sentence with the word ..." in both, which is a form and no answer."""
    asked = {pair.request for pair in load("magic").helpful}
    found = [row.fields for row in rows(HERE / "helpfulness" / f"{task}.jsonl")]
    close = [(row[field], other) for row in found for other in asked if similarity(str(row[field]), other) > 0.6]
    assert close == []


def test_the_bundled_set_is_large_and_every_safe_reply_opens_with_the_refusal_word() -> None:
    data = load("magic")
    assert len({triple.request for triple in data.triples}) >= 600
    assert all(triple.safe.startswith("Sorry") for triple in data.triples)
    assert len(data.helpful) >= 500


def test_no_helpful_reply_refuses_and_none_that_teaches_an_end_breaks_off() -> None:
    from harness.train.build import REFUSAL

    for pair in load("magic").helpful:
        assert not REFUSAL.search(pair.reply), pair.id
        assert pair.cut or re.search(r"[\w.!?)\"'\]*:;`}°]$", pair.reply.rstrip()), pair.id


def test_the_manifest_names_the_data_it_describes() -> None:
    assert json.loads((MAGIC / "manifest.json").read_text())["data_sha"] == load("magic").digest


def test_the_bundled_set_is_what_the_builder_makes_of_its_sources_and_its_models_replies(tmp_path: Path) -> None:
    """The models' replies are taken from the set itself; those that were dropped come back empty, and are dropped.

    A question may be asked twice: replies come in the order of its rows.
    """
    bundled = load("magic")
    violating = {t.request: t.violating for t in bundled.triples if t.id.endswith("-model")}
    kept = {pair.id: pair for pair in bundled.helpful}
    helpful = defaultdict[str, list[Completion]](list)
    for row in requests(MAGIC)[1]:
        if not row.get("reply"):
            pair = kept.get(row["id"])
            begun = pair is not None and pair.cut and pair.kind == "lookalike"
            finish: Finish = "length" if begun else "stop"
            helpful[row["request"]].append(Completion(text=pair.reply if pair else "", model="says", finish=finish))
    config = BuildConfig(
        source=MAGIC, out=tmp_path / "out", templates="magic-long", ends_from=70, violating_tokens=48,
        lookalike_tokens=96,
    )  # fmt: skip
    helper = Says(lambda asked: helpful[asked].pop(0))
    data, _ = asyncio.run(build(config, violator=says(violating, ""), helper=helper))  # type: ignore[arg-type]
    names = {t.source for t in bundled.triples} - {"file"}
    assert names == {"smollm2-135m"}
    made = [replace(t, source="file" if t.source == "file" else "smollm2-135m") for t in data.triples]
    assert made == list(bundled.triples)
    assert data.helpful == bundled.helpful


def test_official_rows_call_rto_safe(tmp_path: Path) -> None:
    row = {"prefix": "[INST] q [\\INST]", "text": "a reply"}
    path = write(tmp_path / "rows.json", json.dumps([{**row, "safe": "true"}, {**row, "safe": "false"}]))
    assert [instance.rto for instance in load(path).instances] == [True, False]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ('{"id": "1", "request": "q", "safe": "s", "violating": "v"}\n{"id": "2", "requ', "line 2 is not JSON"),
        ('{"id": "1", "request": "q", "safe": " ", "violating": "v"}\n', "line 1: lacks safe"),
        ('{"id": "1", "request": "q", "safe": "s", "violating": "v", "extra": 1}\n', "unknown keys extra"),
        ("3\n", "row 1 is no object"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        list(parse(write(tmp_path / "triples.jsonl", text), Triple))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"raw": "false"}, "line 1: `raw` must be true or false"),
        ({"cut": 1}, "line 1: `cut` must be true or false"),
        ({"kind": ["general"]}, "line 1: `kind` must be a text"),
        ({"reply": 3}, "line 1: `reply` must be a text"),
    ],
)
def test_a_value_of_another_kind_is_named(tmp_path: Path, more: dict[str, object], says: str) -> None:
    path = write(tmp_path / "helpful.jsonl", json.dumps({"id": "1", "request": "q", "reply": "a", **more}) + "\n")
    with pytest.raises(DataError, match=says):
        list(parse(path, Helpful))


def test_a_text_may_hold_any_line_separator_of_unicode(tmp_path: Path) -> None:
    triple = Triple(id="1", request="q", safe="Sorry", violating="one\u2028two\x85three\r\nfour\x1cfive")
    data = TrainSet(triples=(triple,), helpful=(Helpful(id="h", request="q", reply="a\u2029b"),))
    save(tmp_path, data, {})
    assert load(tmp_path) == data


def made(reply: str) -> TrainSet:
    triple = Triple(id="1", request="q", safe="Sorry", violating=reply)
    return TrainSet(triples=(triple,), helpful=(Helpful(id="h", request="q", reply=reply),))


def test_a_set_whose_files_are_not_of_one_writing_is_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    save(one, made("a"), {})
    save(two, made("b"), {})
    (one / "helpful.jsonl").write_bytes((two / "helpful.jsonl").read_bytes())
    with pytest.raises(DataError, match="is of other rows"):
        load(one)
    (one / "manifest.json").unlink()
    assert load(one).helpful == made("b").helpful


@pytest.mark.parametrize("last", ["manifest.json", "triples.jsonl", "helpful.jsonl"])
def test_a_set_is_replaced_whole_or_refused(last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fails at one of the renames: what was there before is there, or `load` says that it is in part."""
    save(tmp_path, made("a"), {})
    rename = Path.replace

    def fails(path: Path, target: Path) -> Path:
        if target.name == last:
            raise OSError(5, "no disk")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(UsageError, match="no disk"):
        save(tmp_path, made("b"), {})
    if last == "manifest.json":
        assert load(tmp_path) == made("a")
    else:
        with pytest.raises(DataError, match="is of other rows"):
            load(tmp_path)


def test_a_file_that_others_could_read_becomes_its_owners_alone(tmp_path: Path) -> None:
    for name in ("triples.jsonl", "helpful.jsonl", "manifest.json"):
        write(tmp_path / name, "{}").chmod(0o644)
    save(tmp_path, made("a"), {})
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "triples.jsonl": 0o600, "helpful.jsonl": 0o600, "manifest.json": 0o600,
    }  # fmt: skip


def test_a_repeated_id_is_named_with_both_its_lines(tmp_path: Path) -> None:
    row = '{"id": "1", "request": "q", "reply": "a"}\n'
    with pytest.raises(DataError, match="line 3: has the id of line 1"):
        list(parse(write(tmp_path / "helpful.jsonl", f"{row}\n{row}"), Helpful))


def test_half_of_a_surrogate_pair_is_named_with_its_line(tmp_path: Path) -> None:
    row = r'{"id": "1", "request": "q", "reply": "a \ud800"}'
    with pytest.raises(DataError, match="line 1: a text holds half"):
        list(parse(write(tmp_path / "helpful.jsonl", row), Helpful))
    with pytest.raises(DataError, match="line 1: a text holds half"):
        load(write(tmp_path / "rows.json", r'{"prefix": "p", "text": "\udfff", "safe": "true"}'))


@pytest.mark.parametrize("text", ['{"id": "1"}\n{"id": "2"}\n', '[{"id": "1"}, {"id": "2"}]'])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "rows.jsonl", "\ufeff" + text)
    assert list(objects(path)) == [(1, {"id": "1"}), (2, {"id": "2"})]


@pytest.mark.parametrize("flag", ["", "yes", "None"])
def test_an_official_row_without_a_clear_flag_is_refused(tmp_path: Path, flag: str) -> None:
    path = write(tmp_path / "rows.jsonl", json.dumps({"prefix": "p", "text": "t", "safe": flag}) + "\n")
    with pytest.raises(DataError, match="line 1: `safe` must be"):
        load(path)


def test_an_unknown_set_lists_the_bundled_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path / "nowhere")
    assert "magic" in caught.value.hint


@pytest.mark.parametrize("here", [".", "..", "magic/.."])
def test_a_path_is_the_users_own_folder_and_none_of_the_package(
    here: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "magic").mkdir()
    monkeypatch.chdir(tmp_path / "magic" if here == ".." else tmp_path)
    with pytest.raises(DataError, match=r"triples\.jsonl") as caught:
        load(here)
    assert str(HOME) not in f"{caught.value} {caught.value.hint}"
    save(tmp_path, made("a"), {})
    assert load(here) == made("a")


class Says:
    """A model that answers every prompt by a rule."""

    name = "says"
    can: frozenset[Capability] = frozenset({"chat", "raw"})

    def __init__(self, rule: Callable[[str], Completion]) -> None:
        self.rule = rule

    def describe(self) -> dict[str, str]:
        return {"kind": "test"}

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        return self.rule(prompt.last)


def says(
    rule: dict[str, str | Completion | ModelError],
    otherwise: str | ModelError = "It is done with a long thread and a very small magnet below the table.",
) -> Says:
    def answer(asked: str) -> Completion:
        found = rule.get(asked, otherwise)
        if isinstance(found, ModelError):
            raise found
        return found if isinstance(found, Completion) else Completion(text=found, model="says")

    return Says(answer)


TOLD = "It is up the sleeve, on a thread that runs to the other elbow."


def source(tmp_path: Path) -> Path:
    tricks = [{"id": f"t{i}", "request": f"trick {i}", "reply": TOLD if i == 0 else ""} for i in range(4)]
    questions = [{"id": f"q{i}", "request": f"question {i}", "reply": "Tea." if i == 0 else ""} for i in range(5)]
    write(tmp_path / "tricks.jsonl", "".join(json.dumps(row) + "\n" for row in tricks))
    write(tmp_path / "questions.jsonl", "".join(json.dumps(row) + "\n" for row in questions))
    return tmp_path


def test_the_builder_learns_how_the_helper_itself_begins_to_answer_look_alikes(tmp_path: Path) -> None:
    """Of seven without a reply one answer ends, one is cut at the limit, one refuses, one is short, one loops, one
    loops after the words that are kept, one fails; one has a reply. Raw texts and general questions must end."""
    whole = " ".join(f"word{i}" for i in range(45))
    cut = Completion(text=f" {whole} and", model="says", finish="length")
    looped = "a b c d e " * 9
    later = Completion(text=f"{whole} {looped}", model="says", finish="length")
    told = {"q 0": whole, "q 1": cut, "q 2": "I'm unable to say.", "q 3": "Tea.", "q 4": looped, "q 5": later,
            "q 6": ModelError("no"), "raw": cut, "plain": cut}  # fmt: skip
    rows = [
        {"id": f"q{i}", "request": f"q {i}", "reply": "", "kind": "lookalike", "words": 12 * (i == 5)} for i in range(7)
    ]
    rows += [{**rows[0], "id": "known", "reply": "Known."}, {**rows[0], "id": "r", "request": "raw", "raw": True}]
    rows += [{"id": "g", "request": "plain", "reply": ""}]
    write(source(tmp_path) / "questions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    config = BuildConfig(source=tmp_path, out=tmp_path / "out", ends_from=45, lookalike_tokens=48)
    data, report = asyncio.run(build(config, violator=says({}), helper=says(told, "Nobody asks this.")))  # type: ignore[arg-type]
    assert [(pair.id, pair.reply, pair.kind, pair.cut) for pair in data.helpful] == [
        ("known", "Known.", "lookalike", True),
        ("q0", whole, "lookalike", False),
        ("q1", f"{whole} and", "lookalike", True),
        ("q5", " ".join(whole.split()[:12]), "lookalike", True),
    ]
    assert report.dropped == {
        "look-alike: refusal": 1, "look-alike: short": 1, "look-alike: loop": 1, "look-alike: failed": 1,
        "helpful: cut": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("temperature", "drawn"), [(0.0, [(0.0, 0), (0.0, 0)]), (0.8, [(0.8, 0), (0.8, 1)])])
def test_look_alikes_may_be_answered_by_chance_with_a_seed_each_and_nothing_else_is(
    tmp_path: Path, temperature: float, drawn: list[tuple[float, int]]
) -> None:
    rows = [{"id": f"q{i}", "request": f"q {i}", "reply": "", "kind": "lookalike"} for i in range(2)]
    rows += [{"id": "g", "request": "g", "reply": ""}]
    write(source(tmp_path) / "questions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    asked: dict[str, Sampling] = {}

    class Helper(Says):
        async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
            asked[prompt.last] = sampling
            return Completion(text="It is a plain answer that goes on for some twelve words or more.", model="says")

    config = BuildConfig(
        source=tmp_path, out=tmp_path / "out", lookalike_tokens=48, lookalike_temperature=temperature, both=False
    )
    asyncio.run(build(config, violator=says({}), helper=Helper(lambda _: Completion(text="", model="says"))))  # type: ignore[arg-type]
    assert [(asked[f"q {i}"].temperature, asked[f"q {i}"].seed) for i in range(2)] == drawn
    assert (asked["g"].temperature, asked["g"].seed) == (0.0, 0)


def test_the_builder_drops_and_counts_what_is_of_no_use(tmp_path: Path) -> None:
    """Tricks: 0 has a reply and gets another, 1 is refused, 2 is too short, 3 clashes: 2 triples.
    Questions: 0 has a reply, 1 is cut, 2 loops, 3 refuses, 4 is fine: 2 pairs."""
    violator = says({"trick 1": "Sorry, I can't.", "trick 2": "By magic."})
    cut = Completion(text="Tea is", model="says", finish="length")
    helper = says({"question 1": cut, "question 2": "a b c d e " * 9, "question 3": "I'm unable to say."}, "Hot.")
    config = BuildConfig(source=source(tmp_path), out=tmp_path / "out")
    held = {"trick 3": "magic-001"}
    made = build(config, violator=violator, helper=helper, clash=lambda request, _: held.get(request))  # type: ignore[arg-type]
    data, report = asyncio.run(made)
    assert [t.id for t in data.triples] == ["t0", "t0-model"]
    assert [pair.reply for pair in data.helpful] == ["Tea.", "Hot."]
    assert dict(report.dropped) == {
        "overlap": 1, "violating: refusal": 1, "violating: short": 1,
        "helpful: cut": 1, "helpful: loop": 1, "helpful: refusal": 1,
    }  # fmt: skip
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["dropped"]["overlap"] == 1
    assert list(manifest["source"]["files"]) == ["tricks.jsonl", "questions.jsonl"]


def test_a_request_that_fails_costs_its_own_row_alone(tmp_path: Path) -> None:
    """Tricks: 0 has a reply and gets another, 1 fails, 2 and 3 are answered: 4 triples, the safe reply of one fails.
    Questions: 0 has a reply, 1 fails, the others are answered: 4 pairs."""
    violator, helper = says({"trick 1": ModelError("no")}), says({"question 1": ModelTimeout("late")}, "Hot.")
    refuser = says({"trick 3": ModelError("no")}, "Sorry, no.")
    config = BuildConfig(source=source(tmp_path), out=tmp_path / "out")
    data, report = asyncio.run(build(config, violator=violator, refuser=refuser, helper=helper))  # type: ignore[arg-type]
    assert [t.id for t in data.triples] == ["t0", "t0-model", "t2-model"]
    assert [pair.id for pair in data.helpful] == ["q0", "q2", "q3", "q4"]
    assert report.dropped == {"violating: failed": 1, "safe: failed": 1, "helpful: failed": 1}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["dropped"] == report.dropped


@pytest.mark.parametrize("role", ["violator", "refuser", "helper"])
def test_a_model_that_answers_nothing_is_said(role: str, tmp_path: Path) -> None:
    models = {"violator": says({}), "refuser": says({}, "Sorry, no."), "helper": says({}, "Hot.")}
    models[role] = says({}, ModelError("the socket is closed", hint="start it"))
    build_config = BuildConfig(source=source(tmp_path), out=tmp_path / "out")
    with pytest.raises(UsageError, match=r"no \w+ reply came from says: (\d) of \1 .* the socket is closed") as caught:
        asyncio.run(build(build_config, **models))  # type: ignore[arg-type]
    assert caught.value.hint == "start it"


def test_plain_requests_stay_plain_and_short_or_shortened_answers_teach_no_end(tmp_path: Path) -> None:
    asked = []

    def answer(prompt: str) -> Completion:
        asked.append(prompt)
        return Completion(text="It is done with a long thread and a very small magnet below the table.", model="says")

    tricks = [
        {"id": "own", "request": "trick\n\n", "reply": TOLD, "raw": True},
        {"id": "asked", "request": "Q: trick\nA:", "reply": "", "raw": True},
    ]
    write(tmp_path / "tricks.jsonl", "".join(json.dumps(row) + "\n" for row in tricks))
    questions = [
        {"id": "short", "request": "q", "reply": "Green tea."},
        {"id": "long", "request": "q", "reply": "Boil water, wait, pour."},
        {"id": "begun", "request": "q", "reply": "Boil water, wait, pour, drink.", "words": 4},
        {"id": "plain", "request": "q:", "reply": " Tea.", "raw": True},
        {"id": "longer", "request": "q:", "reply": " Tea, then cake.", "raw": True},
    ]
    write(tmp_path / "questions.jsonl", "".join(json.dumps(row) + "\n" for row in questions))
    config = BuildConfig(source=tmp_path, out=tmp_path / "out", ends_from=3)
    data, _ = asyncio.run(build(config, violator=Says(answer)))  # type: ignore[arg-type]
    assert [(t.id, t.raw) for t in data.triples] == [("own", True), ("asked-model", True)]
    assert asked == ["Q: trick\nA:"]  # what has a reply and is plain isn't asked for another
    assert [(pair.id, pair.reply, pair.cut) for pair in data.helpful] == [
        ("short", "Green tea.", True),
        ("long", "Boil water, wait, pour.", False),
        ("begun", "Boil water, wait, pour,", True),
        ("plain", " Tea.", True),
        ("longer", " Tea, then cake.", False),
    ]


def test_a_refuser_must_open_with_the_refusal_word(tmp_path: Path) -> None:
    refuser = says({"trick 0": "I would rather not."}, "Sorry, no.")
    config = BuildConfig(source=source(tmp_path), out=tmp_path / "out", both=False)
    data, report = asyncio.run(build(config, violator=says({}), refuser=refuser))  # type: ignore[arg-type]
    assert {t.safe for t in data.triples} == {"Sorry, no."}
    assert report.dropped["safe: no refusal"] == 1


def test_a_reply_that_is_no_unicode_is_dropped_and_counted(tmp_path: Path) -> None:
    half = "It is done with a long thread and a very small \ud800 below the table."
    config = BuildConfig(source=source(tmp_path), out=tmp_path / "out")
    models = {"violator": says({"trick 1": half}), "helper": says({"question 1": half}, "Hot.")}
    _, report = asyncio.run(build(config, **models))  # type: ignore[arg-type]
    assert report.dropped == {"violating: no Unicode": 1, "helpful: no Unicode": 1}


def test_loops_are_told_from_plain_text() -> None:
    assert loops("the coin is in the box and " * 6)
    assert not loops("Boil the water, put in the tea, wait for three minutes and take the tea out again.")
