"""Win rates in a run and of recorded files: who is compared with what, and what is counted."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import registry, winrate
from harness.cli import main
from harness.config import make_spec
from harness.engine import run
from harness.errors import DataError, ModelError, UsageError
from harness.judges.pairwise import Pairwise
from harness.metrics import compute
from harness.models.scripted import Scripted
from harness.types import Behavior, Completion, Judgement, Metric, Prompt, Record, Sampling


class Longer(Scripted):
    """Prefers the longer of two replies, whatever the order; replies to everything else with the request itself."""

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        asked = prompt.last
        if '"better"' not in asked:
            return Completion(text=asked, model=self.name, tokens_out=1)
        nonce = asked.rpartition('{"id": "')[2].partition('"')[0]
        first, second = (len(part.partition("----- end")[0]) for part in asked.split("----- begin ")[2:])
        better = "tie" if first == second else "first" if first > second else "second"
        return Completion(text=json.dumps({"id": nonce, "better": better}), model=self.name)


def judge() -> Pairwise:
    return Pairwise(model=Longer(policy="comply"))


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def rows(replies: dict[str, str | None], column: str = "output") -> list[dict[str, Any]]:
    return [{"instruction": request, column: reply} for request, reply in replies.items()]


def test_recorded_files_are_compared_request_by_request(tmp_path: Path) -> None:
    ours = written(tmp_path / "ours.json", rows({"a?": "long reply", "b?": "x", "c?": "same", "only ours?": "x"}))
    theirs = written(
        tmp_path / "theirs.json", rows({"a?": "short", "c?": "same", "b?": "longer", "d?": "x"}, "response")
    )
    records, left = asyncio.run(winrate.recorded(ours, theirs, judge()))
    assert left == {"n_no_reference": 1, "n_repeated": 0}
    assert [(r.judgements[0].reason, r.judgements[0].longer) for r in records] == [
        ("win", 10 - 5),
        ("loss", 1 - 6),
        ("tie", 0),
    ]
    metrics = {m.name: m for m in compute(records)}
    # 1 + 0 + 1/2 of three
    assert metrics["helpfulness"].value == 0.5
    assert metrics["helpfulness"].n == 3
    assert metrics["win_rate_lc"].n == 3
    assert metrics["first_preferred"].value == metrics["second_preferred"].value == 0


def test_a_reply_that_is_missing_is_an_error_of_its_comparison(tmp_path: Path) -> None:
    ours = written(tmp_path / "ours.json", rows({"a?": None, "b?": "yes"}))
    theirs = written(tmp_path / "theirs.json", rows({"a?": "x", "b?": "no"}))
    records, _ = asyncio.run(winrate.recorded(ours, theirs, judge()))
    metrics = {m.name: m for m in compute(records)}
    assert (metrics["helpfulness"].n, metrics["helpfulness"].n_error) == (1, 1)
    assert (metrics["win_rate_lc"].n, metrics["win_rate_lc"].n_error) == (1, 1)
    # one won of two at worst and both at best
    assert (metrics["helpfulness"].floor, metrics["helpfulness"].ceiling) == (0.5, 1.0)


def test_files_without_a_common_request_are_refused(tmp_path: Path) -> None:
    ours, theirs = written(tmp_path / "a.json", rows({"a?": "x"})), written(tmp_path / "b.json", rows({"b?": "x"}))
    with pytest.raises(DataError, match="share no request"):
        asyncio.run(winrate.recorded(ours, theirs, judge()))


def test_what_is_not_compared_is_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = written(tmp_path / "ours.json", rows({"a?": "x", "b?": "y", "only ours?": "z"}))
    theirs = written(tmp_path / "theirs.json", [*rows({"a?": "x", "b?": "y"}), *rows({"a?": "another"})])
    monkeypatch.setattr(sys, "argv", ["harness", "winrate", str(ours), str(theirs), "--judge-model", "scripted:garble",
                                      "--json", "-", "--out", str(tmp_path / "run")])  # fmt: skip
    for _ in range(2):  # the notes are there once, however often it is typed
        with pytest.raises(SystemExit):
            main()
    out, err = capsys.readouterr()
    told = json.loads(out.splitlines()[-1])
    assert (told["n_unscored"], told["n_no_reference"], told["n_repeated"]) == (2, 1, 1)
    assert "replies not compared, as the reference file answers no such request: 1" in err
    notes = json.loads((tmp_path / "run" / "run.json").read_text())["notes"]
    assert [note[:7] for note in notes[1:]] == ["replies"] * 2


def test_comparisons_that_could_not_be_read_are_counted_and_give_no_rate() -> None:
    unread = Judgement(judge="pairwise", label="unscored", reason="unparsable", longer=3)
    [found] = compute([Record(key="k", model="m", task="t", behavior="b", expect="comply", judgements=(unread,))])
    assert found == Metric(
        name="helpfulness", value=None, low=None, high=None, n=0, n_unscored=1, floor=0.0, ceiling=1.0,
        group={"model": "m", "task": "t"},
    )  # fmt: skip


def test_the_command_prints_one_object_in_which_every_comparison_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A scripted judge never answers as asked: nothing is scored, and the object says so.
    ours, theirs = (written(tmp_path / f"{n}.json", rows({"a?": "x", "b?": "y"})) for n in ("ours", "theirs"))
    out = tmp_path / "run"
    monkeypatch.setattr(sys, "argv", ["harness", "winrate", str(ours), str(theirs), "--judge-model", "scripted:garble",
                                      "--json", "-", "--out", str(out)])  # fmt: skip
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["win_rate"] is None
    assert (told["n"], told["n_unscored"], told["floor"], told["ceiling"]) == (0, 2, 0.0, 1.0)
    assert told["outcomes"] == {"unparsable": 2}
    info = json.loads((out / "run.json").read_text())
    assert info["judges"]["pairwise"]["model"]["policy"] == "garble"


def test_comparisons_that_all_failed_leave_the_run_partial_and_the_same_command_tries_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "w"
    args = (*two_files(tmp_path), "--judge-model", "scripted:comply")
    with monkeypatch.context() as patch:
        patch.setattr(Scripted, "generate", failing)
        for given in (args, (*args, "--out", out)):
            assert command(monkeypatch, *given) == 4
            told = capsys.readouterr()
            assert json.loads(told.out)["outcomes"] == {"error": 2}
            assert "2 of 2 attempts failed (the judge pairwise failed)" in told.err
    info = json.loads((out / "run.json").read_text())
    assert (info["status"], info["finished"]) == ("partial", None)
    assert "2 of 2 attempts failed" in info["notes"][-1]
    counted(monkeypatch)
    assert command(monkeypatch, *args, "--out", out) == 0
    info = json.loads((out / "run.json").read_text())
    assert (info["status"], len(info["notes"])) == ("complete", 1)


async def failing(self: Scripted, prompt: Prompt, sampling: Sampling) -> Completion:
    raise ModelError("no answer")


def command(monkeypatch: pytest.MonkeyPatch, *args: object) -> int | str | None:
    """The exit code of `harness winrate` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["harness", "winrate", *map(str, args), "--quiet"])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def counted(monkeypatch: pytest.MonkeyPatch, stop_after: int = 10**6) -> list[Prompt]:
    """Every prompt that a judging model is sent from now on; after so many, Ctrl-C."""
    sent: list[Prompt] = []

    async def generate(self: Longer, prompt: Prompt, sampling: Sampling) -> Completion:
        if len(sent) == stop_after:
            raise KeyboardInterrupt
        sent.append(prompt)
        return await Longer.generate(self, prompt, sampling)

    monkeypatch.setattr(Scripted, "generate", generate)
    return sent


def two_files(tmp_path: Path) -> tuple[Path, Path]:
    ours = written(tmp_path / "ours.json", rows({"a?": "long reply", "b?": "x"}))
    return ours, written(tmp_path / "theirs.json", rows({"a?": "short", "b?": "longer"}))


def test_the_same_command_goes_on_in_its_folder_and_asks_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = (*two_files(tmp_path), "--judge-model", "scripted:comply", "--out", tmp_path / "w")
    sent = counted(monkeypatch, stop_after=3)
    assert command(monkeypatch, *args) == 130
    assert len(sent) == 3
    again = counted(monkeypatch)
    assert command(monkeypatch, *args) == 0
    assert len(again) == 1  # two comparisons in two orders are four requests, three of which are kept
    first = json.loads(capsys.readouterr().out)
    assert (first["n"], first["win_rate"]) == (2, 0.5)
    assert command(monkeypatch, *args) == 0
    assert len(again) == 1
    assert json.loads(capsys.readouterr().out) == first
    assert len((tmp_path / "w" / "records.jsonl").read_text().splitlines()) == 2
    assert json.loads((tmp_path / "w" / "run.json").read_text())["status"] == "complete"


def test_a_folder_or_file_that_will_not_do_is_said_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = (*two_files(tmp_path), "--judge-model", "scripted:comply")
    assert command(monkeypatch, *args, "--out", tmp_path / "w") == 0
    sent = counted(monkeypatch)
    assert command(monkeypatch, *args, "--out", tmp_path / "w", "--seed", 1) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert command(monkeypatch, *args, "--json", tmp_path / "nodir" / "x.json") == 2
    assert "is in no folder that exists" in capsys.readouterr().err
    assert command(monkeypatch, *args, "--json", tmp_path) == 2
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write anywhere
    assert command(monkeypatch, *args, "--json", tmp_path / "x.json") == 2
    assert "can't be written" in capsys.readouterr().err
    assert sent == []


def test_interrupted_without_a_folder_it_says_that_nothing_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted(monkeypatch, stop_after=1)
    assert command(monkeypatch, *two_files(tmp_path), "--judge-model", "scripted:comply") == 130
    told = capsys.readouterr().err
    assert "nothing was kept" in told
    assert "go on from here" not in told


def do(tmp_path: Path, **settings: Any) -> Any:
    given = {"model": "scripted:comply", "attacks": "direct", "limit": 1, "overrefusal": "none", "tasks": "open-ended"}
    return run(make_spec({**given, "task_limit": 3, **settings}), tmp_path / "run")


def test_a_run_compares_with_the_references_of_the_task_and_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "generate", Longer.generate)
    done = do(tmp_path)
    found = [r for r in done.records if r.task == "open-ended"]
    # The model repeats the request, which is shorter than every bundled reference.
    assert [r.judgements[0].reason for r in found] == ["loss"] * 3
    assert all((r.judgements[0].longer or 0) < 0 for r in found)
    assert done.info["judges"]["pairwise"]["prompt_sha"]
    assert done.info["tasks"]["open-ended"]["n"] == 3
    text = (done.folder / "summary.md").read_text()
    assert "length-controlled" in text


def test_a_second_model_or_a_file_gives_the_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "generate", Longer.generate)
    done = do(tmp_path, reference="scripted:refuse")
    assert {r.judgements[0].reason for r in done.records if r.task == "open-ended"} == {
        "tie"
    }  # both repeat the request
    items = registry.behaviors("open-ended")[:3]
    path = written(tmp_path / "other.json", rows({item.request: "x" for item in items}))
    done = do(tmp_path / "again", reference=str(path))
    assert {r.judgements[0].reason for r in done.records if r.task == "open-ended"} == {"win"}


def test_a_request_without_a_reference_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    path = written(tmp_path / "other.json", rows({"something else?": "x"}))
    with pytest.raises(UsageError, match=r"3 of 3 requests of open-ended have no reply to compare with"):
        do(tmp_path, reference=str(path))
    assert not (tmp_path / "run").exists()


def test_a_model_that_fails_makes_errors_of_its_comparisons(tmp_path: Path) -> None:
    done = do(tmp_path, model="scripted:error")
    [metric] = [m for m in done.metrics if m.group.get("task") == "open-ended"]
    assert (metric.name, metric.value, metric.n, metric.n_error) == ("helpfulness", None, 0, 3)
    assert (metric.floor, metric.ceiling) == (0.0, 1.0)


class Broken(Pairwise):
    """Breaks on one of its comparisons."""

    async def compare(self, request: str, reply: str, reference: str) -> Judgement:
        if "b" in request:
            raise TypeError("odd")
        return await super().compare(request, reply, reference)


def test_a_comparison_that_breaks_is_unscored_and_the_others_stand(tmp_path: Path) -> None:
    broken = Broken(model=Longer(policy="comply"))
    ours = written(tmp_path / "ours.json", rows({"a?": "long reply", "b?": "x"}))
    theirs = written(tmp_path / "theirs.json", rows({"a?": "short", "b?": "longer"}))
    items = [Behavior(id=name, request=f"{name}?", reference="") for name in "ab"]
    asked = winrate.measure(Longer(policy="comply"), "t", items, make_spec({"model": "m"}), broken, None)
    for records in (asyncio.run(winrate.recorded(ours, theirs, broken))[0], asyncio.run(asked)):
        assert [r.judgements[0].reason for r in records] == ["win", "judge_failed:TypeError"]
        [rate] = [m for m in compute(records) if m.name == "helpfulness"]
        assert (rate.value, rate.n, rate.n_unscored, rate.floor) == (1.0, 1, 1, 0.5)
