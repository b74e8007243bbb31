"""The paper's protocol as settings, what it will cost, and how a run is set beside the published numbers."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import registry
from harness.cli import main
from harness.commands.paper import paper
from harness.config import ATTACKS, TASKS, make_spec
from harness.errors import UnknownName, UsageError
from harness.paper import protocol
from harness.paper.compare import MEASURES, compare
from harness.paper.estimate import MACHINES, estimate, guess_billions, loads
from harness.store import load
from harness.types import Metric, Record, Run
from reports import published
from reports.numbers import Numbers

DERTA = "Youliang/llama3-8b-derta"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["harness", "paper", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_a_file_for_the_table_that_will_not_do_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("harness.engine.run", None)
    given = ("--stand-in", "--model", "scripted:refuse")
    assert call(monkeypatch, *given, "--json", str(tmp_path / "nodir" / "x.json")) == 2
    assert "is in no folder that exists" in capsys.readouterr().err


def test_help_shows_the_protocols_defaults() -> None:
    shown = {option.name: str(getattr(option, "help", "")) for option in paper.params}
    assert shown["attacks"].endswith("[derta_code,pair,derta_jailbreakchat,derta_cipher,derta_completion,autodan]")
    assert [shown[name].split(" [")[-1] for name in ("behaviors", "max_tokens", "overrefusal", "subset", "seed")] == [
        "derta-200]", "1024]", "none]", "pair=50,autodan=50]", "seed of everything that is drawn"
    ]  # fmt: skip
    assert "profile" not in shown


def test_another_profile_is_a_mistake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--model", DERTA, "--profile", "ci", "--estimate") == 2
    told = capsys.readouterr().err
    assert "No such option '--profile'" in told
    assert "harness paper --help" in told.splitlines()[-1]


def test_a_checkpoint_gets_the_official_prompts_and_the_papers_sizes() -> None:
    spec = protocol.make({"model": DERTA})
    assert spec.behaviors == "derta-200"
    assert spec.attacks == (
        "derta_code", "pair", "derta_jailbreakchat", "derta_cipher", "derta_completion", "autodan"
    )  # fmt: skip
    assert spec.subsets() == {"pair": 50, "autodan": 50}
    assert (spec.max_tokens, spec.temperature, spec.limit, spec.set) == (1024, 0.0, 0, ())
    assert spec.tasks == ("derta-gsm8k", "derta-mmlu", "derta-alpaca")


@pytest.mark.parametrize("given", [{"model": "smollm2-135m"}, {"model": "scripted:refuse"}])
def test_a_model_without_the_public_data_gets_the_stand_in_policy(given: dict[str, Any]) -> None:
    spec = protocol.make(given)
    assert (spec.behaviors, spec.max_tokens) == ("magic", 1024)
    assert len(spec.attacks) == 6
    assert protocol.make({"model": DERTA}, stand_in=True) == replace(spec, model=DERTA)
    protocol.check_data(spec)  # needs nothing


def test_what_is_given_wins_over_the_protocol_and_a_limit_cuts_the_searches_too() -> None:
    spec = protocol.make({"model": DERTA, "limit": "4", "set": ("pair.streams=7",), "attacks": "pair"})
    assert spec.attacks == ("pair",)
    assert spec.task_limit == 4
    assert spec.options_of("pair")["streams"] == "7"
    assert spec.options_of("pair")["iterations"] == "2"


def test_missing_data_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    with pytest.raises(UsageError, match="derta-200, derta-gsm8k, derta-mmlu, derta-alpaca, derta-code") as caught:
        protocol.check_data(protocol.make({"model": DERTA}))
    assert "harness data pull derta-200" in caught.value.hint
    assert "--stand-in" in caught.value.hint
    assert "alpaca-eval" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        protocol.check_data(protocol.make({"model": DERTA, "reference": "other.json"}))
    assert "alpaca-eval" not in caught.value.hint


def test_the_calls_of_an_estimate_follow_from_the_settings() -> None:
    found = {load.what: load for load in loads(protocol.make({"model": DERTA}))}
    # 50 questions x 20 streams x 3 iterations, and the best prompt of each once more
    assert found["pair: target"].calls == 50 * 60 + 50
    assert found["pair: attacker"].calls == 3000
    assert found["derta_code"].calls == 200
    assert found["derta_code"].most == 200 * 1024
    assert found["derta-gsm8k"].calls == found["derta-mmlu"].calls == 500
    # both orders of 300 comparisons
    assert found["derta-alpaca: comparisons"].calls == 600
    # 50 questions, 101 generations of 64, 46% of them new, 300 tokens each
    assert found["autodan: target"].scored == round(50 * 101 * 64 * 0.46 * 300)


def test_what_is_read_at_most_counts_every_retry_and_every_prompt_that_is_scored() -> None:
    found = {load.what: load for load in loads(protocol.make({"model": DERTA}))}
    assert found["pair: attacker"].tokens_in == 3000 * 900
    assert found["pair: attacker"].most_in == 3000 * 5 * 900  # five tries a move
    assert found["autodan: target"].most_in == 100 * 300 + 50 * 101 * 64 * 300
    # three tries in both orders, each reply up to 1024 tokens: 350 + 43 + 300 of the reference + 43 + 1024
    assert found["derta-alpaca: comparisons"].most_in == 3 * 600 * (350 + 43 + 300 + 43 + 1024)


def test_every_model_of_a_run_is_counted() -> None:
    given = {"model": DERTA, "attacks": "derta_code,pair,autodan", "tasks": "derta-mmlu"}
    one, both = protocol.make(given), protocol.make({**given, "adapter": "a,b"})
    for spec, times in ((both, 3), (replace(both, skip_base=True), 2)):
        assert [load.calls for load in loads(spec)] == [times * load.calls for load in loads(one)]
        loading = 180 / 3600
        assert estimate(spec).hours - loading == pytest.approx(times * (estimate(one).hours - loading))


def test_attacks_of_many_requests_are_counted_by_their_own_settings() -> None:
    given = {"model": DERTA, "attacks": "prefill,tap,gcg", "tasks": "none", "subset": "none"}
    spec = protocol.make({**given, "set": ["prefill.depths=0,5,10", "gcg.steps=10", "gcg.width=4"]})
    found = {load.what: load for load in loads(spec)}
    assert found["prefill"].calls == 200 * 3
    # a first level of 4 nodes, one of 4 x 4, eight of 10 x 4; with the best once more
    nodes = 4 + 16 + 8 * 40
    assert found["tap: target"].calls == 200 * (nodes + 1)
    assert found["tap: attacker"].calls == 200 * nodes * 2  # a move and whether it is on its topic
    assert found["tap: attacker"].most == 200 * nodes * (5 * 500 + 20)
    assert (found["gcg"].calls, found["gcg"].scored) == (200 * 2, 200 * 10 * 4 * 60)
    assert any("not counted: gradients" in text for text in estimate(spec).assumptions)


def test_all_attacks_and_tasks_are_estimated_as_what_they_stand_for() -> None:
    given = {"model": DERTA, "behaviors": "magic", "subset": "none"}
    everything = protocol.make({**given, "attacks": "all", "tasks": "all"})
    named = protocol.make({**given, "attacks": ",".join(ATTACKS), "tasks": ",".join(TASKS)})
    assert loads(everything) == loads(named)
    assert estimate(everything) == estimate(named)
    assert {load.what for load in loads(everything)} >= {*ATTACKS, *TASKS}
    twice = protocol.make({**given, "attacks": "direct,all", "tasks": "none"})
    assert [load.what for load in loads(twice)].count("direct") == 1


def test_every_attack_that_takes_no_file_has_an_estimate() -> None:
    for name in registry.table("attack"):
        if not name.startswith("recorded"):
            spec = protocol.make({"model": DERTA, "attacks": name, "tasks": "none", "subset": "none"})
            assert loads(spec)[0].calls >= 200


def test_the_parts_of_a_sharded_estimate_add_up_to_the_whole() -> None:
    def calls(shard: str) -> int:
        return sum(
            load.calls for load in loads(protocol.make({"model": DERTA, "attacks": "derta_code", "shard": shard}))
        )

    assert sum(calls(f"{i}/7") for i in range(1, 8)) == calls("")


def test_hours_follow_the_stated_roofline() -> None:
    # One attack: 200 calls of 320 tokens in and 400 out, at 8.03 billion parameters on one H100 at 40% of peak.
    spec = protocol.make({"model": DERTA, "attacks": "derta_code", "tasks": "none"})
    found = estimate(spec)
    step = 8.03e9 * 2 / (3.35e12 * 0.4)  # reading the weights takes longer than multiplying 128 rows
    seconds = 180 + 200 * 320 * 8.03e9 * 2 / (9.9e14 * 0.4) + 200 * 400 * step / 128
    assert (found.machine, found.gpus) == ("h100", 1)
    assert found.hours == pytest.approx(seconds / 3600)
    assert found.dollars == pytest.approx(found.hours * MACHINES["h100"].price)
    assert found.hours_most > found.hours
    assert estimate(spec, price=10.0).dollars == pytest.approx(found.hours * 10)
    assert estimate(spec, gpus=4).hours < found.hours


def test_a_helper_with_an_endpoint_of_its_own_takes_no_time_here() -> None:
    spec = protocol.make({"model": DERTA, "attacks": "pair", "tasks": "none"})
    other = replace(spec, attacker="gpt", attacker_base_url="http://x")
    assert estimate(other).hours < estimate(spec).hours
    assert any(text.startswith("gpt: on a machine or endpoint of its own") for text in estimate(other).assumptions)


def test_a_served_model_costs_what_its_tokens_cost_and_no_hours(tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("my-model: {input: 1.0, output: 10.0}\n")
    given = {"model": "my-model", "base_url": "http://x", "attacks": "code", "tasks": "none", "prices": str(prices)}
    found = estimate(protocol.make(given, stand_in=True))
    n = found.loads[0].calls
    # 320 tokens read and 400 written a call
    assert found.dollars == pytest.approx(n * (320 * 1.0 + 400 * 10.0) / 1e6)
    assert (found.hours, found.gpus) == (0.0, 0)


@pytest.mark.parametrize(
    ("model", "billions"),
    [(DERTA, 8.03), ("meta-llama/Meta-Llama-3-70B", 70), ("smollm2-135m", 0.135), ("x/Mixtral-8x7B-v0.1", 46.7)],
)
def test_a_models_size_is_told_from_its_name(model: str, billions: float) -> None:
    assert guess_billions(model) == billions


def test_what_an_estimate_can_not_know_is_asked_for() -> None:
    with pytest.raises(UsageError, match="size of") as caught:
        guess_billions("my-model")
    assert "--billions" in caught.value.hint
    with pytest.raises(UnknownName, match="did you mean 'h100'"):
        estimate(protocol.make({"model": DERTA}), machine="h10")


def test_an_estimate_says_what_it_assumes_and_needs_neither_data_nor_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    assert call(monkeypatch, "--model", DERTA, "--estimate") == 0
    told = capsys.readouterr().out
    assert "1 x h100, 8.03 billion parameters" in told
    assert "Assumed:" in told
    assert call(monkeypatch, "--model", DERTA, "--estimate", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["gpus"] == 1
    assert list(tmp_path.iterdir()) == []


def made(name: str, **spec: Any) -> Run:
    """A run of the protocol with two measures, as its folder would say."""
    told = {**vars_of(protocol.make({"model": DERTA})), "model": DERTA, **spec}
    metrics = (
        Metric(name="asr", value=0.05, low=0.02, high=0.09, n=200,
               group={"model": name, "attack": "derta_completion"}),
        Metric(name="asr", value=0.5, low=0.4, high=0.6, n=100, group={"model": name, "attack": "autodan"}),
        Metric(name="asr", value=0.2, low=0.1, high=0.3, n=50,
               group={"model": name, "attack": "autodan", "variant": "bred"}),
        Metric(name="helpfulness", value=0.4, low=0.35, high=0.45, n=499, n_unscored=1,
               group={"model": name, "task": "derta-gsm8k"}),
    )  # fmt: skip
    asked = [("derta-200", "derta_completion", 200), ("derta-200", "autodan", 50), ("derta-gsm8k", "", 500)]
    records = tuple(
        Record(key=f"{task}/{attack}/{i}", model=name, task=task, attack=attack, behavior=str(i), expect="refuse")
        for task, attack, n in asked
        for i in range(n)
    )
    return Run(folder=Path("x"), info={"spec": told}, records=records, metrics=metrics)


def vars_of(spec: Any) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


def test_each_measure_stands_beside_the_row_of_its_checkpoint_with_what_differs() -> None:
    lines = {line.measure.key: line for line in compare(made("llama3-8b-derta"))}
    assert set(lines) == {measure.key for measure in MEASURES}
    completion, autodan, gsm8k, code = (lines[key] for key in ("completion", "autodan", "gsm8k", "code"))
    assert completion.published == {"8B DeRTa": 6.0}
    assert completion.gap == pytest.approx(-1.0)
    assert completion.differs == ("judge rules, not people",)
    # of AutoDAN's attempts the bred prompt is the paper's; 50 questions, but nobody knows which
    assert autodan.gap == pytest.approx(20 - 14)
    assert any("other 50 questions" in text for text in autodan.differs)
    assert any("attacker the model itself" in text for text in autodan.differs)
    assert gsm8k.gap == pytest.approx(40 - 46.4)
    assert (code.published, code.ours, code.gap, code.differs) == ({}, None, None, ("not run",))


def test_a_cut_search_fewer_questions_and_other_settings_are_said() -> None:
    run = made("llama3-8b-derta", set=("autodan.steps=2",), max_tokens=64, judge=("llm",), behaviors="magic")
    autodan = next(line for line in compare(run) if line.measure.key == "autodan")
    text = "; ".join(autodan.differs)
    for told in ("stand-in questions (magic)", "search cut (steps=2)", "at most 64 tokens", "judge llm, not people"):
        assert told in text


def test_a_model_the_paper_does_not_report_stands_beside_landmarks_and_has_no_gap() -> None:
    lines = compare(made("my-model", model="my-model"))
    completion = next(line for line in lines if line.measure.key == "completion")
    assert set(completion.published) == {"8B vanilla", "8B DeRTa"}
    assert completion.gap is None


def test_a_report_compares_a_run_once_however_many_models_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Run] = []
    monkeypatch.setattr(published, "compare", lambda run: calls.append(run) or compare(run))
    runs = [made("llama3-8b-derta"), made("my-model")]
    records, metrics = (tuple(x for run in runs for x in getattr(run, name)) for name in ("records", "metrics"))
    section = published.published(Numbers(replace(runs[0], records=records, metrics=metrics)))
    assert section is not None
    assert len(calls) == 1
    assert len(section.tables) == 4


def test_the_whole_protocol_runs_on_a_script_and_leaves_the_table_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    attacks = "code,jailbreakchat,cipher,completion"  # AutoDAN needs weights, PAIR a model that can attack
    arguments = ["--model", "scripted:comply", "--limit", "2", "--attacks", attacks, "--tasks", "none"]
    assert call(monkeypatch, *arguments, "--out", str(out), "--json", "-") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["status"] == "complete"
    assert json.loads((out / "paper.json").read_text()) == told["table"]
    by = {row["measure"]: row for row in told["table"]}
    assert (by["CompletionAttack"]["value"], by["CompletionAttack"]["n"]) == (1.0, 2)
    assert by["PAIR"]["differs"] == ["not run"]
    text = (out / "summary.md").read_text()
    assert "Beside the paper" in text
    assert "stand-in questions" in text
    assert "Beside the paper" not in (plain_run(tmp_path) / "summary.md").read_text()
    assert load(out).info["spec"]["profile"] == "paper-stand-in"


def plain_run(tmp_path: Path) -> Path:
    from harness.engine import run

    given = {"model": "scripted:refuse", "attacks": "direct", "limit": 1, "overrefusal": "none", "tasks": "none"}
    return run(make_spec(given), tmp_path / "plain").folder


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["runs/a"], "to join run folders"),
        (["--merge", "runs/a"], "--out"),
        (["--model", "scripted:refuse", "--shard", "5/4"], "i/n"),
    ],
)
def test_a_mistake_says_what_to_type_next(
    arguments: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments) == 2
    assert told in capsys.readouterr().err
