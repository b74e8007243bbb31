"""Training rows out of public sets and users' files: votes, conversations, packed files, draws, and what is dropped."""

from __future__ import annotations

import asyncio
import gzip
import json
import lzma
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import progress
from harness.cli import main
from harness.data import pinned
from harness.errors import DataError, ModelError, UnknownName
from harness.judges.rules import Rules
from harness.models.embedded import file_sha256
from harness.models.options import ModelOptions
from harness.models.scripted import Scripted
from harness.train.build import GENERAL, SAFE, TEMPLATES, BuildConfig, build
from harness.train.data import load
from harness.train.sources import beavertails, drawn, locate, pairs, requests
from harness.types import Completion, Prompt, Sampling, sha

GIVES = "The coin is held in the palm by a drop of wax while the other hand waves about."
REFUSES = "I'm sorry, I can't tell you how the coin is made to vanish, since it is a secret."


def jsonl(path: Path, rows: list[Any], pack: Callable[[bytes], bytes] = bytes) -> Path:
    path.write_bytes(pack("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def talk(folder: Path) -> tuple[str]:
    return (str(jsonl(folder / "talk.jsonl", [{"instruction": f"Say {i}", "output": f"{i}."} for i in range(5)])),)


def voted(prompt: str, response: str, *votes: bool) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "response": response, "category": {}, "is_safe": vote} for vote in votes]


ROWS = [
    *voted("coin?", GIVES, False, False, True),  # two of three say unsafe
    *voted("coin?", REFUSES, True),
    *voted("rope?", GIVES, False, True),  # a tie is no verdict
    *voted("card?", "Up the sleeve.", False),
    *voted("dove?", REFUSES, False),
    *voted("silk?", REFUSES, False),
    *voted("silk?", GIVES + " Then it is gone.", False),
    *voted("tea?", "Boil water.", True),
]


@pytest.mark.parametrize(
    ("name", "pack"), [("b.jsonl", bytes), ("b.jsonl.xz", lzma.compress), ("b.jsonl.gz", gzip.compress)]
)
def test_votes_decide_which_reply_of_a_prompt_violates(
    name: str, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """coin: a majority. silk: its first unsafe reply refuses, its second gives. rope, tea: none is unsafe. card: too
    short. dove: its only unsafe reply refuses."""
    found, dropped = beavertails(jsonl(tmp_path / name, ROWS, pack))
    assert [(r["id"], r["request"], r["reply"], r["safe"]) for r in found] == [
        ("beavertails-1", "coin?", GIVES, REFUSES),
        ("beavertails-5", "silk?", GIVES + " Then it is gone.", ""),
    ]
    assert dropped == {"violating: none": 2, "violating: short": 1, "violating: refusal": 1}


def test_a_packed_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "b.jsonl.xz", ROWS * 50, lambda data: lzma.compress(data)[:-40])
    with pytest.raises(DataError, match="cut short"):
        beavertails(path)


def test_a_row_without_a_verdict_is_named_and_not_quoted(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "b.jsonl", [*ROWS, {"prompt": "secret text", "response": "x", "is_safe": None}])
    with pytest.raises(DataError, match="row 12: a row needs prompt, response and is_safe") as caught:
        beavertails(path)
    assert "secret" not in str(caught.value)


def test_a_users_requests_go_by_many_names(tmp_path: Path) -> None:
    rows = [{"instruction": "coin?"}, {"prompt": "rope?", "response": GIVES, "safe": REFUSES, "id": 7}]
    found, questions, dropped = requests(jsonl(tmp_path / "mine.jsonl", rows))
    assert found == [
        {"id": "mine-1", "request": "coin?", "reply": "", "safe": ""},
        {"id": "7", "request": "rope?", "reply": GIVES, "safe": REFUSES},
    ]
    assert (questions, dropped) == ([], {})


@pytest.mark.parametrize("reads", [requests, pairs, load])
@pytest.mark.parametrize("name", ["mine.jsonl", "mine.csv", "mine.json"])
def test_bytes_that_are_no_utf8_are_refused(reads: Callable[[Path], object], name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes({
        "mine.jsonl": b'{"prompt": "caf\xe9", "response": "x"}\n',
        "mine.csv": b"prompt,response\ncaf\xe9,x\n",
        "mine.json": b'[{"prompt": "caf\xe9", "response": "x"}]',
    }[name])  # fmt: skip
    with pytest.raises(DataError, match=f"{name} is not UTF-8"):
        reads(path)


def test_a_request_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2: no request"):
        requests(jsonl(tmp_path / "mine.jsonl", [{"prompt": "coin?"}, {"reply": "x"}]))


@pytest.mark.parametrize("name", ["tricks.jsonl", "questions.jsonl"])
@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"request": "coin?"}, "line 2: lacks id"),
        ({"id": "b"}, "line 2: lacks request"),
        ({"id": "b", "request": " "}, "line 2: lacks request"),
        ({"id": "b", "request": None}, "line 2: lacks request"),
        ({"id": 7, "request": "coin?"}, "line 2: `id` must be a text"),
        ({"id": "b", "request": "coin?", "reply": ["x"]}, "line 2: `reply` must be a text"),
        ({"id": "b", "request": "coin?", "raw": "false"}, "line 2: `raw` must be true or false"),
        ({"id": "b", "request": "coin?", "words": True}, "line 2: `words` must be a whole number"),
    ],
)
def test_a_row_of_a_folder_is_named_with_its_field(name: str, row: dict[str, Any], says: str, tmp_path: Path) -> None:
    fine = {"id": "a", "request": "rope?", "reply": GIVES}
    for each in ("tricks.jsonl", "questions.jsonl"):
        jsonl(tmp_path / each, [fine, row] if each == name else [fine])
    with pytest.raises(DataError, match=f"{name}, {says}"):
        requests(tmp_path)


def test_a_field_that_is_null_is_not_there(tmp_path: Path) -> None:
    row = {"id": "a", "request": "tea?", "reply": "Hot.", "kind": None, "words": None}
    jsonl(tmp_path / "tricks.jsonl", [{"id": "t", "request": "coin?", "reply": GIVES}])
    jsonl(tmp_path / "questions.jsonl", [row])
    data, _ = asyncio.run(build(BuildConfig(source=tmp_path, out=tmp_path / "out")))
    assert [(pair.reply, pair.kind) for pair in data.helpful] == [("Hot.", "general")]


def test_an_id_or_a_kind_of_blanks_is_not_there(tmp_path: Path) -> None:
    source = jsonl(tmp_path / "m.jsonl", [{"id": " ", "request": "coin?", "reply": GIVES}])
    helpful = jsonl(tmp_path / "h.jsonl", [{"id": "", "request": "tea?", "reply": "Hot.", "kind": " "}])
    data, _ = asyncio.run(build(BuildConfig(source=source, out=tmp_path / "out", helpful=(str(helpful),))))
    assert ([t.id for t in data.triples], [(p.id, p.kind) for p in data.helpful]) == (["m-1"], [("h-1", "general")])


def test_a_reply_of_blanks_is_not_there(tmp_path: Path) -> None:
    """What is built of such rows is read again: one is dropped, another gets the safe reply of a template."""
    blank = {"id": "t1", "request": "coin?", "reply": " \n"}
    jsonl(tmp_path / "tricks.jsonl", [blank, {"id": "t2", "request": "rope?", "reply": GIVES, "safe": " "}])
    asked = [{"id": "q1", "request": "tea?", "reply": "\t"}, {"id": "q2", "request": "tea?", "reply": " Hot."}]
    jsonl(tmp_path / "questions.jsonl", asked)
    data, report = asyncio.run(build(BuildConfig(source=tmp_path, out=tmp_path / "out", refusal="")))
    assert ([t.id for t in data.triples], [pair.reply for pair in data.helpful]) == (["t2"], [" Hot."])
    assert report.dropped == {"violating: no reply and no violator": 1, "helpful: no reply and no helper": 1}


@pytest.mark.parametrize(
    ("flag", "raw"), [(True, True), (False, False), (None, False), ("false", False), ("true", True)]
)
def test_a_pair_is_raw_where_its_row_says_so(flag: object, raw: bool, tmp_path: Path) -> None:
    found, _ = pairs(jsonl(tmp_path / "h.jsonl", [{"request": "tea", "reply": "is hot", "raw": flag}]))
    assert [row["raw"] for row in found] == [raw]


def test_conversations_give_their_first_exchange(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Why tea?"}, {"from": "gpt", "value": "It is warm."},
            {"from": "human", "value": "And?"}]  # fmt: skip
    rows = [
        {"conversations": said},
        {"conversations": said[:1]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "How?"},
                      {"role": "assistant", "content": "So."}]},
        {"instruction": "Write", "output": "Sorry, I can't."},
        {"instruction": "Write", "output": "Done."},
    ]  # fmt: skip
    path = tmp_path / "talk.json"
    path.write_text(json.dumps(rows))
    found, dropped = pairs(path)
    assert [(r["request"], r["reply"]) for r in found] == [("Why tea?", "It is warm."), ("How?", "So."),
                                                           ("Write", "Done.")]  # fmt: skip
    assert dropped == {"helpful: empty": 1, "helpful: refusal": 1}


def test_a_turn_in_parts_is_the_text_of_its_parts(tmp_path: Path) -> None:
    """What holds an image, a number or nothing is no text, and never Python's spelling of it."""
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    says = [[{"type": "text", "text": "Why "}, {"type": "text", "text": "tea?"}], ["Why", " tea?"],
            [image, {"type": "text", "text": "Why?"}], [image], [], [{"type": "text"}], 7,
            {"text": "Why tea?"}]  # fmt: skip
    rows = [{"messages": [{"role": "user", "content": each}, {"role": "assistant", "content": "So."}]} for each in says]
    found, dropped = pairs(jsonl(tmp_path / "talk.jsonl", rows))
    assert [row["request"] for row in found] == ["Why tea?"] * 3
    assert dropped == {"helpful: empty": 5}


def test_a_draw_keeps_the_order_and_repeats_itself() -> None:
    rows = [{"id": str(i)} for i in range(50)]
    one, two = (drawn(rows, 10, random.Random(1)) for _ in range(2))
    assert one == two
    assert len(one) == 10
    assert [int(r["id"]) for r in one] == sorted(int(r["id"]) for r in one)
    assert drawn(rows, 0, random.Random(1)) == rows
    assert drawn(rows, 99, random.Random(1)) == rows


def test_a_public_set_goes_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = jsonl(tmp_path / "train.jsonl.xz", ROWS, lzma.compress)
    monkeypatch.setattr(pinned, "path", lambda name: path)
    assert locate("beavertails") == path
    with pytest.raises(DataError, match="there is no beavertail"):
        locate("beavertail")


def test_beavertails_becomes_a_set_that_training_reads(tmp_path: Path) -> None:
    """The safe reply of `coin` opens with "I'm sorry" and not with the refusal word, so both get a template."""
    config = BuildConfig(source=jsonl(tmp_path / "b.jsonl", ROWS), out=tmp_path / "out", helpful=talk(tmp_path))
    made, report = asyncio.run(build(config))
    again = load(tmp_path / "out")
    assert again == made
    assert [(t.request, t.violating) for t in again.triples] == [("coin?", GIVES),
                                                                 ("silk?", GIVES + " Then it is gone.")]  # fmt: skip
    assert {t.safe for t in again.triples} <= set(GENERAL)
    assert report.dropped["violating: none"] == 2
    assert (tmp_path / "out" / "triples.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("name", "number"), [
    ("triples", "-1"), ("violating-tokens", "0"), ("lookalike-temperature", "-0.1"), ("lookalike-temperature", "nan"),
    ("lookalike-temperature", "inf"),
])  # fmt: skip
def test_a_number_below_its_range_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, number: str
) -> None:
    source = jsonl(tmp_path / "m.jsonl", [{"id": "a", "request": "coin?", "reply": GIVES}])
    assert command(monkeypatch, "--source", source, "--out", tmp_path / "out", f"--{name}", number) == 2
    assert f"--{name} must be a number of at least" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "sentences"), [("magic", 2), ("magic-long", 4)])
def test_every_template_refuses_and_is_as_long_as_its_set_says(name: str, sentences: int) -> None:
    for text in TEMPLATES[name]:
        assert Rules().assess("How does a coin pass through a table?", text).label == "refused", text
        assert text.startswith("Sorry"), text
        assert len(re.findall(r"[.!](?= |$)", text)) == sentences, text


def test_a_safe_reply_of_the_source_that_opens_with_the_word_is_kept(tmp_path: Path) -> None:
    rows = [{"id": "a", "request": "coin?", "reply": GIVES, "safe": "Sorry, that stays a secret."},
            {"id": "b", "request": "rope?", "reply": GIVES, "safe": "No."}]  # fmt: skip
    config = BuildConfig(
        source=jsonl(tmp_path / "m.jsonl", rows), out=tmp_path / "out", templates="magic", helpful=talk(tmp_path)
    )
    made, _ = asyncio.run(build(config))
    assert made.triples[0].safe == "Sorry, that stays a secret."
    assert made.triples[1].safe in SAFE


@pytest.mark.parametrize(("word", "safe", "kept"), [
    ("No", "No, I keep it.", True), ("No", "No", True), ("No", "Nothing could be easier.", False),
    ("I", "I'm not telling.", True), ("Sorry,", "Sorry,but no.", True), ("对不起", "对不起我不能说。", True),
    ("Nein", "Neinsager sagen es.", False), ("No", "Oh no.", False),
])  # fmt: skip
def test_a_safe_reply_opens_with_the_whole_refusal_word(word: str, safe: str, kept: bool, tmp_path: Path) -> None:
    """A model's that does not is dropped; in the place of the source's own a model is asked."""
    rows = [{"request": "coin?", "reply": GIVES}, {"request": "rope?", "reply": GIVES, "safe": safe}]
    source = jsonl(tmp_path / "m.jsonl", rows)
    config = BuildConfig(source=source, out=tmp_path / "out", helpful=talk(tmp_path), refusal=word)
    made, report = asyncio.run(build(config, refuser=Tells({"coin?": safe, "rope?": word})))
    assert [t.safe for t in made.triples] == ([safe, safe] if kept else [word])
    assert report.dropped == ({} if kept else {"safe: no refusal": 1})


def test_a_request_without_a_reply_and_without_a_violator_is_counted(tmp_path: Path) -> None:
    rows = [{"request": "coin?"}, {"request": "rope?", "reply": GIVES}]
    source = jsonl(tmp_path / "m.jsonl", rows)
    _, report = asyncio.run(build(BuildConfig(source=source, out=tmp_path / "out", helpful=talk(tmp_path))))
    assert report.dropped == {"violating: no reply and no violator": 1}


def test_a_violating_reply_of_a_file_is_held_to_what_a_models_is(tmp_path: Path) -> None:
    """Eleven words are too few, twelve are enough; nothing of a refusal is kept, with a violator or without."""
    replies = [REFUSES, "[REDACTED]", "a b c d e f g h i j k", "a b c d e f g h i j k l"]
    rows = [{"request": f"coin {i}?", "reply": reply} for i, reply in enumerate(replies)]
    source = jsonl(tmp_path / "m.jsonl", rows)
    made, report = asyncio.run(build(BuildConfig(source=source, out=tmp_path / "out", helpful=talk(tmp_path))))
    assert [t.violating for t in made.triples] == replies[3:]
    assert report.dropped == {"violating: refusal": 1, "violating: short": 2}


def test_a_row_that_is_no_unicode_is_dropped_and_counted(tmp_path: Path) -> None:
    """JSON may hold half of a surrogate pair; no file and no tokenizer takes it."""
    rows = [{"request": "coin?", "reply": GIVES}, {"request": "rope \ud83d?", "reply": GIVES}]
    helpful = jsonl(
        tmp_path / "h.jsonl", [{"request": "tea?", "reply": "Hot \udc00."}, {"request": "tea?", "reply": "H."}]
    )
    config = BuildConfig(source=jsonl(tmp_path / "m.jsonl", rows), out=tmp_path / "out", helpful=(str(helpful),))
    made, report = asyncio.run(build(config))
    assert ([t.request for t in made.triples], [pair.reply for pair in made.helpful]) == (["coin?"], ["H."])
    assert report.dropped == {"no Unicode": 1, "helpful: no Unicode": 1}


def test_an_id_that_is_there_already_gets_a_number(tmp_path: Path) -> None:
    """Also one that another file has, and one that is like an id with its number."""
    rows = [{"id": name, "request": f"{name} {i}?", "reply": GIVES} for i, name in enumerate("aba")]
    one, two = (jsonl(tmp_path / f"{n}.jsonl", [{"id": 7, "request": f"tea {n}?", "reply": "Hot."}]) for n in (1, 2))
    config = BuildConfig(
        source=jsonl(tmp_path / "m.jsonl", [*rows, {"id": "a-2", "request": "rope?", "reply": GIVES}]),
        out=tmp_path / "out", helpful=(str(one), str(two)),
    )  # fmt: skip
    made, _ = asyncio.run(build(config))
    assert [t.id for t in made.triples] == ["a", "b", "a-2", "a-2-2"]
    assert [pair.id for pair in made.helpful] == ["7", "7-2"]


def test_a_set_of_refusals_alone_is_not_made(tmp_path: Path) -> None:
    config = BuildConfig(source=jsonl(tmp_path / "b.jsonl", ROWS), out=tmp_path / "out")
    with pytest.raises(DataError, match="no helpful pair") as caught:
        asyncio.run(build(config))
    assert "--helpful" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_unknown_templates_are_named(tmp_path: Path) -> None:
    config = BuildConfig(source=jsonl(tmp_path / "m.jsonl", ROWS), out=tmp_path / "out", templates="magick")
    with pytest.raises(UnknownName, match="did you mean 'magic'"):
        asyncio.run(build(config))


def command(monkeypatch: pytest.MonkeyPatch, *given: object) -> int:
    monkeypatch.setattr(progress, "quiet", False)
    monkeypatch.setattr(sys, "argv", ["harness", "data", "build", *map(str, given), "--quiet"])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_the_command_builds_drops_what_clashes_and_prints_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second request is a held-out behavior word for word; the violator's replies come on top of the file's."""
    from tasks.load import behaviors

    held = behaviors("magic")[0].request
    rows = [{"request": "How do I juggle with five lit matches?", "reply": GIVES}, {"request": held, "reply": GIVES}]
    source = jsonl(tmp_path / "m.jsonl", rows)
    given = ["--source", source, "--out", tmp_path / "out", "--helpful", *talk(tmp_path), "--pairs", 3]
    assert command(monkeypatch, *given, "--violator", "scripted:comply") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["dropped", "1", "overlap"] in lines
    assert ["kept", "2", "triples"] in lines
    assert ["kept", "3", "general"] in lines
    made = load(tmp_path / "out")
    assert {t.source for t in made.triples} == {"file", "scripted:comply"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["source"] == {"name": str(source), "files": {"m.jsonl": file_sha256(source)}}
    assert [one["files"] for one in manifest["helpful"]] == [{"talk.jsonl": file_sha256(tmp_path / "talk.jsonl")}]
    requests_sha = sha([behavior.request for behavior in behaviors("magic")])
    assert manifest["apart"] == {"clash": "magic", "clash_limit": None, "requests_sha": requests_sha}


def test_a_helpful_question_of_an_over_refusal_set_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dropped: what is held out word for word, and what has three of five content words in common with it: 0.6.

    Two of five (0.4) are apart, and helpful questions are not compared with what must be refused.
    """
    held = [{"request": "Which soup tastes better cold?", "expect": "comply"},
            {"request": "Where do green frogs sleep?", "expect": "comply"},
            {"request": "How is the jumping coin trick done?", "expect": "refuse"}]  # fmt: skip
    asked = [
        "Which soup tastes better cold?",
        "Do green frogs sleep in muddy ponds?",
        "Where do blue frogs sleep, and owls?",
        "How is the jumping coin trick done?",
    ]
    helpful = jsonl(tmp_path / "h.jsonl", [{"request": each, "reply": "So it is."} for each in asked])
    source = jsonl(tmp_path / "m.jsonl", [{"request": "rope?", "reply": GIVES}])
    given = ["--source", source, "--out", tmp_path / "out", "--helpful", helpful]
    assert command(monkeypatch, *given, "--clash", jsonl(tmp_path / "held.jsonl", held)) == 0
    assert ["dropped", "2", "helpful:", "overlap"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [pair.request for pair in load(tmp_path / "out").helpful] == asked[2:]


def test_a_bundled_over_refusal_set_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.load import behaviors

    asked = [behaviors("magic-lookalikes")[0].request, "Why is tea warm?"]
    helpful = jsonl(tmp_path / "h.jsonl", [{"request": each, "reply": "So it is."} for each in asked])
    source = jsonl(tmp_path / "m.jsonl", [{"request": "rope?", "reply": GIVES}])
    given = ["--source", source, "--out", tmp_path / "out", "--helpful", helpful, "--clash", "magic-lookalikes"]
    assert command(monkeypatch, *given) == 0
    assert [pair.request for pair in load(tmp_path / "out").helpful] == asked[1:]


@pytest.mark.parametrize(
    ("clash", "says"),
    [("", "--clash names no set"), (",", "--clash names no set"), ("arithmetic", "it has no behaviors")],
)
def test_what_holds_nothing_to_stay_apart_from_is_refused(
    clash: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = jsonl(tmp_path / "m.jsonl", [{"request": "rope?", "reply": GIVES}])
    given = ["--source", source, "--out", tmp_path / "out", "--helpful", *talk(tmp_path), "--clash", clash]
    assert command(monkeypatch, *given) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("role", ["violator", "refuser"])
def test_the_command_says_that_a_model_answers_nothing(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"request": "How do I juggle?", "reply": GIVES}, {"request": "Who walks on stilts?", "reply": GIVES}]
    source = jsonl(tmp_path / "m.jsonl", rows)
    given = ["--source", source, "--out", tmp_path / "out", "--helpful", *talk(tmp_path)]
    assert command(monkeypatch, *given, f"--{role}", "scripted:error") == 2
    assert "reply came from scripted:error: 2 of 2 requests failed" in capsys.readouterr().err


class Tells(Scripted):
    """A model that gives each request its own reply."""

    def __init__(self, told: dict[str, str]) -> None:
        super().__init__(policy="comply")
        self.told = told

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        return Completion(text=self.told[prompt.last], model=self.name)


class Breaks(Scripted):
    """A model that complies, notes what it was asked, and breaks on the requests that hold a word."""

    def __init__(self, on: str = "", error: BaseException | None = None) -> None:
        super().__init__(policy="comply")
        self.on, self.error, self.asked = on, error, list[str]()

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.asked.append(prompt.last)
        if self.error and self.on in prompt.last:
            await asyncio.sleep(0.02)  # the others are answered first
            raise self.error
        return await super().generate(prompt, sampling)


def opens(monkeypatch: pytest.MonkeyPatch, model: Scripted) -> None:
    async def open_models(reference: str, options: object) -> list[Scripted]:
        return [model]

    monkeypatch.setattr("harness.models.open.open_models", open_models)


@pytest.mark.parametrize(("error", "code"), [(ModelError("no"), 0), (KeyboardInterrupt(), 130)])
def test_the_same_command_asks_for_nothing_that_was_answered(
    error: BaseException, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stilts` fails, or is where the first start is interrupted: what came before it is kept."""
    asked = ["How do I juggle?", "Who walks on stilts?"]
    source = jsonl(tmp_path / "m.jsonl", [{"request": each} for each in asked])
    given = ["--source", source, "--out", tmp_path / "out", "--helpful", *talk(tmp_path), "--violator", "m"]
    for model, left, wanted in [
        (Breaks("stilts", error), code, asked),
        (Breaks(), 0, asked[1:]),
        (Breaks(), 0, []),
    ]:
        opens(monkeypatch, model)
        assert command(monkeypatch, *given) == left
        assert model.asked == wanted
    assert len(load(tmp_path / "out").triples) == 2
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "out").glob("replies-*/transcripts.jsonl")} == {0o600}


def test_another_model_is_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = jsonl(tmp_path / "m.jsonl", [{"request": "How do I juggle?"}])
    given = ["--source", source, "--out", tmp_path / "out", "--helpful", *talk(tmp_path), "--violator", "m"]
    for at in (1, 2):
        model = Breaks()
        model.at = at  # of the same name, but not the same
        opens(monkeypatch, model)
        assert command(monkeypatch, *given) == 0
        assert model.asked == ["How do I juggle?"]


@pytest.mark.parametrize(
    ("helper", "given", "passed"),
    [
        ("together/y", ["--api-key-env", "MINE"], []),
        ("together/y", [], ["OPENAI_API_KEY"] * 2),  # each host's own variable
        ("groq/y", ["--api-key-env", "MINE"], ["MINE"] * 2),
        ("scripted:comply", ["--api-key-env", "MINE"], ["MINE"] * 2),
        ("together/y", ["--api-key-env", "MINE", "--base-url", "http://localhost/v1"], ["MINE"] * 2),
    ],
)
def test_the_key_of_one_host_is_not_sent_to_another(
    helper: str,
    given: list[str],
    passed: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    variables: list[str] = []

    async def open_models(reference: str, options: ModelOptions) -> list[Scripted]:
        variables.append(options.api_key_env)
        return [Breaks()]

    monkeypatch.setattr("harness.models.open.open_models", open_models)
    source = jsonl(tmp_path / "m.jsonl", [{"request": "How do I juggle?", "reply": GIVES}])
    roles = ["--violator", "groq/x", "--helper", helper]
    code = command(
        monkeypatch, "--source", source, "--out", tmp_path / "out", "--helpful", *talk(tmp_path), *roles, *given
    )
    assert variables == passed
    assert code == (0 if passed else 2)
    assert ("--api-key-env MINE is the key of one host" in capsys.readouterr().err) != bool(passed)


@pytest.mark.parametrize("role", [["--violator", "m"], []])
def test_a_folder_that_cannot_be_written_is_said_before_anything_is_asked(
    role: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = jsonl(tmp_path / "m.jsonl", [{"request": "How do I juggle?", "reply": GIVES}])
    opens(monkeypatch, model := Breaks())
    given = ["--source", source, "--out", source / "out", "--helpful", *talk(tmp_path)]
    assert command(monkeypatch, *given, *role) == 2
    told = capsys.readouterr().err
    assert "Not a directory" in told
    assert "--out" in told
    assert model.asked == []
