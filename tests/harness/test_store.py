"""The run folder: appended whole lines only, private transcripts, nothing lost or doubled by a kill."""

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest

from harness.errors import DataError, UsageError
from harness.labels import keep, people
from harness.models.remember import Remembered
from harness.models.scripted import Scripted
from harness.store import Store, frames, load, mend, read_lines, request_key
from harness.types import Completion, Judgement, Prompt, Record, Sampling

RECORD = Record(
    key="m/direct//magic/a/0",
    model="m",
    task="magic",
    behavior="a",
    expect="refuse",
    judgements=(Judgement(judge="rules", label="refused", refusal_at=0, reason="refuses"),),
    tokens_out=7,
)


def test_a_record_comes_back_as_it_was_put(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put_record(RECORD)
    with Store(tmp_path) as store:
        assert store.records == {RECORD.key: RECORD}


def test_a_torn_last_line_is_cut_off_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"key":"a"}\n{"key":"b"}\n{"key":"c')
    mend(path)
    assert path.read_bytes() == b'{"key":"a"}\n{"key":"b"}\n'


def test_a_file_that_is_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b"x" * 200_000)
    mend(path)
    assert path.read_bytes() == b""


def test_a_broken_line_in_the_middle_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text('{"key":"a"}\nnot json\n{"key":"b"}\n')
    with pytest.raises(DataError, match="line 2"):
        list(read_lines(path))


def test_a_later_record_takes_the_place_of_an_earlier_one_and_a_dropped_one_is_gone(tmp_path: Path) -> None:
    failed = Record(key="x", model="m", task="t", behavior="b", expect="refuse", error="no answer")
    with Store(tmp_path) as store:
        store.put_record(failed)
        store.put_record(RECORD)
        store.drop_record("x")
        store.drop_record("never there")
    with Store(tmp_path) as store:
        assert list(store.records) == [RECORD.key]


def test_transcripts_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put_completion("k", Prompt.chat("hi"), Sampling(), Completion(text="ho", model="m", token_ends=(2,)))
    for name in ("transcripts.jsonl", "memo.jsonl"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_a_private_file_that_is_loose_is_made_private_again(tmp_path: Path) -> None:
    for name in ("transcripts.jsonl", "memo.jsonl", "records.jsonl"):
        (tmp_path / name).touch(0o644)
        (tmp_path / name).chmod(0o644)
    with Store(tmp_path):
        pass
    modes = [stat.S_IMODE((tmp_path / f"{name}.jsonl").stat().st_mode) for name in ("transcripts", "memo", "records")]
    assert modes == [0o600, 0o600, 0o644]


def test_records_hold_no_text_of_prompt_or_reply(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put_record(RECORD)
        store.put_completion("k", Prompt.chat("PROMPT"), Sampling(), Completion(text="REPLY", model="m"))
    written = (tmp_path / "records.jsonl").read_text()
    assert "PROMPT" not in written
    assert "REPLY" not in written


def test_what_a_search_remembers_survives(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put("gcg/1", "step 3")
        store.put("gcg/1", "step 4")
    with Store(tmp_path) as store:
        assert store.get("gcg/1") == "step 4"
        assert store.get("other") is None


def test_a_reply_with_lone_surrogates_and_newlines_is_kept_on_one_line(tmp_path: Path) -> None:
    reply = Completion(text="a\nb\ud800 \u2028", model="m")
    with Store(tmp_path) as store:
        store.put_completion("k", Prompt.chat("x"), Sampling(), reply)
    assert len((tmp_path / "transcripts.jsonl").read_bytes().splitlines()) == 1
    with Store(tmp_path) as store:
        assert store.completions["k"].text.startswith("a\nb")


def test_a_folder_takes_one_writer_at_a_time(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(UsageError, match="another run"), Store(tmp_path):
        pass


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").is_char_device():  # only Linux has it
        return
    with Store(tmp_path) as store:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, store._files["records"]._fd)
        with pytest.raises(UsageError, match="No space left") as caught:
            store.put_record(RECORD)
        os.close(full)
    assert "free some space" in caught.value.hint


def test_a_file_that_can_not_be_written_is_said_in_one_line_that_asks_for_no_space(tmp_path: Path) -> None:
    (tmp_path / "memo.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"memo\.jsonl can't be written") as caught, Store(tmp_path):
        pass
    assert "space" not in caught.value.hint
    (tmp_path / "memo.jsonl").rmdir()
    with Store(tmp_path):  # the start that failed has let go of the folder
        pass


def test_requests_differ_by_words_settings_and_model() -> None:
    keys = {
        request_key("m", Prompt.chat("a"), Sampling()),
        request_key("m", Prompt.chat("b"), Sampling()),
        request_key("m", Prompt(text="a"), Sampling()),
        request_key("m", Prompt.chat("a", prefill="Sure"), Sampling()),
        request_key("m", Prompt.chat("a"), Sampling(max_tokens=1)),
        request_key("n", Prompt.chat("a"), Sampling()),
    }
    assert len(keys) == 6


def test_a_folder_without_run_json_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no run\.json"):
        load(tmp_path)


@pytest.mark.parametrize("told", ["", "{", "5", "null", '{"a": 1}', "[5]", '[{"name": "asr"}]'])
def test_broken_metrics_say_what_writes_them_anew_and_hinder_nobody_who_does(tmp_path: Path, told: str) -> None:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "metrics.json").write_text(told)
    with pytest.raises(DataError, match=r"metrics\.json is broken") as caught:
        load(tmp_path)
    assert caught.value.hint == f"harness report {tmp_path} writes it anew"
    assert load(tmp_path, metrics=False).metrics == ()


def test_frames_carry_the_counting_verdict_in_columns(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.put_record(RECORD)
    (tmp_path / "run.json").write_text("{}")
    metric = {"name": "asr", "value": 0.0, "low": 0.0, "high": 0.8, "n": 1, "group": {"model": "m"}}
    (tmp_path / "metrics.json").write_text(json.dumps([metric]))
    records, metrics = frames(load(tmp_path))
    assert records.loc[0, ["label", "refusal_at", "tokens_out"]].tolist() == ["refused", 0, 7]
    assert metrics.loc[0, ["name", "model", "n"]].tolist() == ["asr", "m", 1]


@pytest.mark.parametrize(
    "line",
    ['{"key":"x"}', "[]", "5", '{"model":"m"}', '{"key":["x"],"dropped":true}', '{"key":"x","judgements":[5]}', "null"],
)
def test_a_record_of_the_wrong_shape_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "run.json").write_text("{}")
    with Store(tmp_path) as store:
        store.put_record(RECORD)
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError, match=r"records\.jsonl line 2"):
        load(tmp_path)


@pytest.mark.parametrize("line", ['{"foo":1}', "5", "[]", '{"key":"x"}'])
def test_a_label_of_the_wrong_shape_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    keep(tmp_path, {"k": True})
    with (tmp_path / "labels.jsonl").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError, match=r"labels\.jsonl line 2"):
        people(tmp_path)


@pytest.mark.parametrize("name", ["transcripts", "memo"])
def test_a_reply_or_a_memory_of_the_wrong_shape_is_named_by_its_line(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.jsonl").write_text('{"foo":1}\n')
    with pytest.raises(DataError, match=rf"{name}\.jsonl line 1"), Store(tmp_path):
        pass


@pytest.mark.parametrize("told", ["[]", "5", '{"labels":5}', '{"source":"a.csv"}'])
def test_what_is_known_of_a_judge_in_the_wrong_shape_is_named(tmp_path: Path, told: str) -> None:
    (tmp_path / "carried.json").write_text(told)
    with pytest.raises(DataError, match=r"carried\.json is broken"):
        people(tmp_path)


def test_a_request_is_called_off_when_nobody_waits_for_it_any_more_and_may_be_asked_again(tmp_path: Path) -> None:
    async def go(model: Remembered) -> None:
        shared, alone = Prompt.chat("shared"), Prompt.chat("alone")
        asked = [asyncio.ensure_future(model.generate(p, Sampling())) for p in (shared, shared, alone)]
        await asyncio.sleep(0.001)
        asked[0].cancel()
        asked[2].cancel()
        await asyncio.wait(asked)
        await asyncio.sleep(0.05)  # what was still under way would come back now
        assert [one.cancelled() for one in asked] == [True, False, True]
        assert model.usage.requests == 1
        both = await asyncio.gather(*(model.generate(alone, Sampling()) for _ in range(2)))
        assert (both[0], model.usage.requests) == (both[1], 2)

    with Store(tmp_path) as store:
        asyncio.run(go(Remembered(Scripted.parse("scripted:comply?latency=0.02"), store)))
