"""Transfer: prompts of another run reach this model as they were; from where, and what is left out, is on record."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import DataError, UnknownName, UsageError
from harness.metrics import compute
from harness.store import load
from harness.types import Run
from reports.numbers import Numbers
from reports.transfer import transfer

Do = Callable[..., Run]


def sent(run: Run) -> dict[str, str]:
    """Every prompt of a run by its request key, as JSON."""
    lines = map(json.loads, (run.folder / "transcripts.jsonl").read_text().splitlines())
    return {line["sha"]: json.dumps(line["prompt"], sort_keys=True) for line in lines}


def test_prompts_of_another_run_are_sent_as_they_were(do: Do) -> None:
    before = do("scripted:comply", "a", attacks="direct,best_of_n,prefill", set=["best_of_n.n=2"], limit=3)
    after = do("scripted:refuse", "b", attacks="replay", from_run=str(before.folder), limit=3)
    old, new = sent(before), sent(after)
    found = {(r.behavior, f"{r.attack}:{r.variant}@scripted:comply"): old[r.prompt_sha] for r in before.records}
    for record in after.records:
        assert record.attack == "replay"
        assert new[record.prompt_sha] == found[record.behavior, record.variant]
        assert (record.label, record.queries, record.spent["target_queries"]) == ("refused", 1, 1)
    assert {r.variant.partition(":")[0] for r in after.records} == {"best_of_n", "prefill"}  # bare requests are no find
    assert len(after.records) == len([r for r in before.records if r.attack != "direct"])
    assert {r.depth for r in after.records} == {r.depth for r in before.records}


def test_what_has_no_counterpart_is_counted(do: Do) -> None:
    before = do("scripted:comply", "a", attacks="best_of_n", set=["best_of_n.n=1"], limit=3)
    after = do("scripted:comply", "b", attacks="replay", from_run=str(before.folder))
    source = after.info["attacks"]["replay"]["source"]
    assert (source["behaviors"], source["without_counterpart"], source["not_asked_here"]) == (3, 6, 0)
    assert len(after.records) == 3
    assert any("6 behaviors have none there" in note for note in after.info["notes"])
    fewer = do("scripted:comply", "c", attacks="replay", from_run=str(before.folder), limit=1)
    source = fewer.info["attacks"]["replay"]["source"]
    assert (source["behaviors"], source["without_counterpart"], source["not_asked_here"]) == (1, 0, 2)


def test_prompts_that_the_model_cannot_take_are_counted_and_not_sent(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.models.scripted import Scripted

    before = do("scripted:comply", "a", attacks="best_of_n,completion", set=["best_of_n.n=1"], limit=2)
    parse = Scripted.parse
    monkeypatch.setattr(Scripted, "parse", lambda ref: replace(parse(ref), can=frozenset({"chat"})))
    after = do("scripted:refuse", "b", attacks="replay", from_run=str(before.folder), limit=2)
    assert after.info["attacks"]["replay"]["source"]["beyond_the_model"] == 2  # raw text
    assert {r.variant.partition(":")[0] for r in after.records} == {"best_of_n"}


def test_only_what_worked_and_only_what_one_attack_found_can_be_asked_for(do: Do) -> None:
    before = do("scripted:comply?rate=0.5", "a", attacks="best_of_n,many_shot", set=["best_of_n.n=4"])
    won = {(r.behavior, r.variant) for r in before.records if r.attack == "best_of_n" and r.label == "complied"}
    assert 0 < len(won) < 36
    settings = ["replay.won=true", "replay.attacks=best_of_n"]
    after = do("scripted:refuse", "b", attacks="replay", from_run=str(before.folder), set=settings)
    names = {(r.behavior, r.variant.partition(":")[2].rpartition("@")[0]) for r in after.records}
    assert names == won


def test_a_replayed_reply_is_read_as_its_attack_reads_it(do: Do) -> None:
    before = do("scripted:comply", "a", attacks="code", limit=2)
    after = do("scripted:comply", "b", attacks="replay", from_run=str(before.folder), limit=2)
    told = {(r.behavior, r.variant): (r.reply_sha, r.judgements) for r in before.records}
    for record in after.records:
        key = (record.behavior, record.variant.partition(":")[2].rpartition("@")[0])
        assert (record.reply_sha, record.judgements) == told[key]


def test_replay_adds_to_the_attacks_that_are_named_and_resumes_for_nothing(
    do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = do("scripted:comply", "a", attacks="best_of_n", set=["best_of_n.n=1"], limit=2)
    settings = {"attacks": "direct", "from_run": str(before.folder), "limit": 2}
    first = do("scripted:refuse", "b", **settings)
    assert {r.attack for r in first.records} == {"direct", "replay"}
    monkeypatch.setattr("harness.models.scripted.Scripted.generate", None)
    assert do("scripted:refuse", "b", **settings).records == first.records


def test_transfer_is_told_in_the_report_with_where_it_is_from(do: Do) -> None:
    before = do("scripted:comply", "source-run", attacks="prefill", set=["prefill.depths=0,5"], limit=3)
    after = do("scripted:refuse", "b", attacks="replay", from_run=str(before.folder), limit=4)
    text = (after.folder / "summary.md").read_text()
    assert "What transfers" in text
    assert "source-run" in text
    assert "1 without" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| prefill:k0") and "100.0%" in line]
    assert "0.0%" in row  # all of it worked there, none of it here


def test_the_only_variant_that_was_judged_here_is_not_called_not_run(do: Do) -> None:
    before = do("scripted:comply", "source-run", attacks="prefill", set=["prefill.depths=0,5"], limit=3)
    after = do("scripted:refuse", "b", attacks="replay", from_run=str(before.folder), limit=3)
    k0, k5 = (name for name in after.info["attacks"]["replay"]["source"]["labels"])
    failed = [replace(r, judgements=(), error="down") if r.variant == k5 else r for r in after.records]
    for records, others in ((failed, "none scored: 3 errors"), ([r for r in failed if r.variant == k0], "not run")):
        run = replace(after, records=tuple(records), metrics=compute(records))
        section = transfer(Numbers(run))
        assert section is not None
        (_, there, here), (_, _, other) = (row.cells for row in section.tables[0].rows)
        assert (there.text, here.text, other.sub) == ("100.0%", "0.0%", others)


def test_what_a_subset_leaves_out_is_not_counted_there(do: Do) -> None:
    before = do("scripted:comply", "a", attacks="prefill", set=["prefill.depths=0"], limit=4)
    after = do("scripted:refuse", "b", attacks="replay", from_run=str(before.folder), limit=4, subset=["replay=2"])
    source = after.info["attacks"]["replay"]["source"]
    assert (source["behaviors"], source["not_asked_here"], len(after.records)) == (2, 2, 2)
    assert [sum(labels.values()) for labels in source["labels"].values()] == [2]


def test_mistakes_are_told_before_anything_is_sent(do: Do, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a run"):
        do("scripted:refuse", attacks="replay")
    with pytest.raises(DataError, match="not a run folder"):
        do("scripted:refuse", attacks="replay", from_run=str(tmp_path / "nowhere"))
    before = do("scripted:comply", "a", attacks="direct", limit=2)
    with pytest.raises(DataError, match="holds no prompt"):
        do("scripted:refuse", "b", attacks="replay", from_run=str(before.folder))


def test_a_run_without_transcripts_is_a_clear_error(do: Do) -> None:
    before = do("scripted:comply", "a", attacks="best_of_n", set=["best_of_n.n=1"], limit=2)
    (before.folder / "transcripts.jsonl").unlink()
    with pytest.raises(DataError, match=r"transcripts\.jsonl is missing"):
        do("scripted:refuse", "b", attacks="replay", from_run=str(load(before.folder).folder))


def test_an_attack_that_the_source_run_lacks_is_the_users_mistake(do: Do) -> None:
    before = do("scripted:comply", "a", attacks="many_shot", limit=2)
    with pytest.raises(UnknownName, match="'many_shots'; did you mean 'many_shot'"):
        do("scripted:refuse", "b", attacks="replay", from_run=str(before.folder), set=["replay.attacks=many_shots"])


def test_the_seeds_of_a_source_run_are_looked_up_once(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    from attacks import replay

    before = do("scripted:comply", "a", attacks="prefill", seeds=2, limit=2)
    read, calls = replay.source, []
    monkeypatch.setattr(replay, "source", lambda folder: calls.append(folder) or read(folder))
    attack = replay.Replay(run=str(before.folder))
    prompts = [found for every in read(attack.run).values() for found in every]
    assert {attack.label(found).partition("#")[2][:2] for found in prompts} == {"0@", "1@"}
    assert len(calls) == 1 < len(prompts)
