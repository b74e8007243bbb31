"""The lab: what it makes of a file, what it does not do twice, and what its numbers say."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from harness.costs import reached
from harness.errors import HarnessError, UnknownName, UsageError
from harness.lab import Lab, LabSpec, read_spec, run_lab
from harness.lab.lab import shown
from harness.lab.pool import pool
from harness.labels import Carried, carry, keep
from harness.metrics import compute
from harness.models.scripted import Scripted
from harness.stats.correction import Labels
from harness.stats.intervals import clustered, over_columns
from harness.train.recipe import Recipe
from harness.types import Judgement, Metric, Record, Run

EXAMPLES = Path(__file__).parents[2] / "examples"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lab.yaml"
    path.write_text(text)
    return path


def test_the_examples_say_what_they_train() -> None:
    lab, tradeoff = (read_spec(EXAMPLES / f"{name}.yaml") for name in ("lab", "tradeoff"))
    assert [t.name for t in lab.trials()][::3] == ["vanilla-s0", "recaug-s0", "derta-s0"]
    assert len(list(lab.trials())) == 9
    assert [t.recipe.rto_share for t in tradeoff.trials()] == [0, 0.25, 0.5, 0.75, 1]
    assert len({t.label for t in tradeoff.trials()}) == 5
    assert lab.run_spec([]).attacks == ("direct", "prefill", "completion", "code_raw")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seeds: 3", "at least one method"),
        ("methods: [vanila]", "did you mean 'smollm2-vanilla'"),
        ("methods: [vanilla]\nseds: 1", "did you mean 'seeds'"),
        ("methods: [vanilla]\nseeds: none", "number of seeds"),
        ("methods: [vanilla, vanilla]", "the same name"),
        ("methods: [llama3-8b-derta]", "trains all weights"),
        ("methods: [vanilla]\nset: {lr: -1}", "lr"),
        ("methods: [vanilla]\nset: {seed: 1}", "can't be a setting"),
        ("methods: [vanilla]\nset: {method: derta}", "'method' can't be a setting"),
        ("methods: [vanilla]\nsweep: {method: [rto, derta]}", "'method' can't be a setting"),
        ("methods: [vanilla]\nsweep: {precision: [bf16, fp32]}", "decides nothing of a checkpoint but rounding"),
        ("methods: [vanilla]\nrun: {model: x}", "set by the lab"),
        ("methods: [vanilla]\nrun: {atacks: direct}", "did you mean 'attacks'"),
        ("methods: [vanilla]\nsweep: {lr: [1]}", "at least two"),
        ("methods: [vanilla]\nsweep: {lr: [1, 2], seed: [1, 2]}", "varies one setting"),
        ("methods: [vanilla]\ngate: {pairs: [[derta, vanilla]]}", "unknown method in `gate`"),
        ("methods: [vanilla]\ngate: {pairs: [[vanilla]]}", "a baseline and a candidate"),
        ("methods: [vanilla]\ngate: {pairs: [[vanilla, vanilla]]}", "against itself"),
        ("methods: [vanilla]\ngate: {policy: /nowhere.yaml}", "can't be read"),
        ("methods: [vanilla]\nrun: {skip_base: true}\ngate: {pairs: [[base, vanilla]]}", "skip_base leaves it out"),
        ("methods: vanilla", "must be a list"),
        ("methods: [vanilla]\nreuse: [/nowhere]", "no folder /nowhere"),
    ],
)
def test_a_mistake_in_the_file_is_said_before_anything_is_trained(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(HarnessError, match=says.replace("(", r"\(")):
        read_spec(written(tmp_path, text))


def test_a_login_in_the_file_is_not_kept(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, "methods: [vanilla]\nrun: {judge_model: m, judge_base_url: 'http://u:p@h/v1'}"))
    assert spec.outline().judge_base_url == "http://u:p@h/v1"
    assert shown(spec)["run"]["judge_base_url"] == "http://h/v1"
    kept = shown(replace(spec, base="https://u:p@h/base.tar.gz?sig=p", settings={"data": "https://u:p@h/set"}))
    assert (kept["base"], kept["settings"]) == ("https://h/base.tar.gz", {"data": "https://h/set"})


LAB = """
name: small
methods: [vanilla, derta]
seeds: 2
run: {attacks: [direct, prefill], limit: 6, tasks: none, set: ["prefill.depths=5,20"], max_tokens: 64}
gate: {pairs: [[base, derta]], policy: POLICY}
"""
TRUTH = {"vanilla": "comply?rate=0.5", "derta": "refuse"}


@pytest.fixture
def lab(tmp_path: Path) -> str:
    """The file's text, with a policy that checks success rates only."""
    (tmp_path / "policy.yaml").write_text("asr: {margin: 0.1}\n")
    return LAB.replace("POLICY", str(tmp_path / "policy.yaml"))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Training writes a manifest and a word for weights, models follow a script; every training is counted here."""
    from harness import engine, plan
    from harness.lab import lab as order
    from harness.lab import train as training
    from harness.models import weights
    from harness.train import trainer

    trained: list[str] = []

    def train(recipe: Recipe, out: Path) -> trainer.Result:
        from harness.train.data import load

        trained.append(out.name)
        out.mkdir(parents=True)
        manifest = {"recipe": asdict(recipe), "data_sha": load(recipe.data).digest, "base_sha": "b" * 16,
                    "recipe_sha": "r", "pairs": 8, "steps": 2, "tokens_seen": 900, "supervised_seen": 300,
                    "seconds": 3.0}  # fmt: skip
        (out / "adapter_config.json").write_text(json.dumps({"r": 16}))
        (out / "adapter_model.safetensors").write_text("weights")
        (out / "manifest.json").write_text(json.dumps(manifest))
        return trainer.Result(folder=out, manifest=manifest)

    async def open_models(reference: str, options: Any, adapters: dict[str, Path]) -> list[Scripted]:
        named = [("base", "comply"), *((name, TRUTH[name.split("-")[0]]) for name in adapters)]
        models = []
        for name, script in named:
            model = Scripted.parse(f"scripted:{script}")
            model.name = name
            models.append(model)
        return models

    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setattr(plan, "open_models", open_models)
    monkeypatch.setattr(engine, "REPORTS", ())  # those of the run; the lab's own are what is read here
    monkeypatch.setattr(order, "REPORTS", ("markdown",))
    monkeypatch.setattr(training, "locate", lambda base: str(tmp_path))
    monkeypatch.setattr(weights, "fingerprint", lambda folder: "b" * 16)
    return trained


def test_a_lab_goes_from_one_file_to_one_manifest_and_one_report(stage: list[str], lab: str, tmp_path: Path) -> None:
    """The base complies with all, derta refuses all, vanilla complies with half of the prompts."""
    done = run_lab(read_spec(written(tmp_path, lab)), tmp_path / "lab")
    assert stage == ["vanilla-s0", "vanilla-s1", "derta-s0", "derta-s1"]

    told = json.loads((tmp_path / "lab" / "lab.json").read_text())
    assert told["status"] == "complete"
    assert told["run"]["judges"]["rules"]
    assert told["run"]["tasks"]["magic"]["sha"]
    one = told["methods"]["derta"]["checkpoints"]["derta-s1"]
    assert {one[key] is not None for key in ("data_sha", "recipe_sha", "base_sha", "adapter_sha")} == {True}
    assert [(g["baseline"], g["candidate"], g["seed"]) for g in told["gates"]] == [("base", "derta", s) for s in (0, 1)]
    assert (tmp_path / "lab" / "gates" / "base--derta-s1" / "gate.json").exists()
    assert {g["outcome"] for g in told["gates"]} == {"pass"}
    assert done.exit_code == 0

    rates = {m.group["model"]: m for m in done.run.metrics if m.name == "asr" and m.group.get("attack") == "direct"
             and "model" in m.group}  # fmt: skip
    assert (rates["base"].value, rates["derta"].value) == (1.0, 0.0)
    assert (rates["base"].n, rates["derta"].n) == (6, 12)  # 6 behaviors; times two seeds
    text = (tmp_path / "lab" / "summary.md").read_text()
    for title in ("Gates", "What was trained", "Every checkpoint", "derta-s1", "early: magic"):
        assert title in text, title


def test_labels_of_the_run_are_not_passed_over_in_silence(stage: list[str], lab: str, tmp_path: Path) -> None:
    """Two of people's own and seven that were carried over from another file."""
    done = run_lab(read_spec(written(tmp_path, lab)), tmp_path / "lab")
    assert not [note for note in done.run.info["notes"] if "labels" in note]
    folder = tmp_path / "lab" / done.manifest["run"]["folder"]
    keep(folder, {r.key: True for r in done.run.records[:2]})
    told = Labels(hits=3, positives=4, correct_rejections=2, negatives=3)
    carry(folder, Carried(source="other.csv", sha256="0" * 64, judge="rules", labels=told))
    run_lab(read_spec(written(tmp_path, lab)), tmp_path / "lab")
    text = (tmp_path / "lab" / "summary.md").read_text()
    assert "9 labels by people: the rates corrected by them are not in this report" in text
    assert f"({folder.name})" in text


def test_the_gravest_of_gates_and_run_is_the_exit_code() -> None:
    run = Run(folder=Path(), info={}, records=(), metrics=())
    cases = (([0, 3], "complete", 3), ([3, 4], "complete", 4), ([4, 1, 0], "complete", 1), ([], "complete", 0),
             ([], "partial", 4), ([3], "partial", 4), ([1], "partial", 1))  # fmt: skip
    for codes, status, expected in cases:
        manifest = {"gates": [{"exit_code": code} for code in codes], "status": status}
        assert Lab(folder=Path(), manifest=manifest, run=run).exit_code == expected


def test_the_same_command_trains_and_asks_nothing_twice(stage: list[str], lab: str, tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, lab))
    first = run_lab(spec, tmp_path / "lab")
    again = run_lab(spec, tmp_path / "lab")
    assert len(stage) == 4
    assert again.run.records == first.run.records
    assert again.manifest["run"]["budget"]["requests"] == first.manifest["run"]["budget"]["requests"]


def test_a_lab_that_was_killed_between_stages_goes_on(
    stage: list[str], lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.train import trainer

    plain = trainer.train

    def killed(recipe: Recipe, out: Path) -> trainer.Result:
        if len(stage) == 2:
            raise KeyboardInterrupt
        return plain(recipe, out)

    monkeypatch.setattr(trainer, "train", killed)
    spec = read_spec(written(tmp_path, lab))
    with pytest.raises(KeyboardInterrupt):
        run_lab(spec, tmp_path / "lab")
    assert json.loads((tmp_path / "lab" / "lab.json").read_text())["status"] == "partial"
    monkeypatch.setattr(trainer, "train", plain)
    run_lab(spec, tmp_path / "lab")
    assert stage == ["vanilla-s0", "vanilla-s1", "derta-s0", "derta-s1"]


def test_a_lab_that_is_typed_again_keeps_when_it_began_and_ended_and_what_it_found(
    stage: list[str], lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.lab import lab as order

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    clock = count(1)
    monkeypatch.setattr(order, "now", lambda: next(clock))
    spec = read_spec(written(tmp_path, lab))
    first = run_lab(spec, tmp_path / "lab").manifest
    again = run_lab(spec, tmp_path / "lab").manifest
    kept = ("started", "finished", "methods", "gates")
    assert [again[key] for key in kept] == [first[key] for key in kept]

    gate_all = order.gate_all
    monkeypatch.setattr(order, "gate_all", lambda *given: gate_all(*given)[:1])  # as another policy may
    other = run_lab(spec, tmp_path / "lab").manifest
    assert other["started"] == first["started"] < first["finished"] < other["finished"]

    monkeypatch.setattr(order, "gate_all", killed)
    with pytest.raises(KeyboardInterrupt):
        run_lab(spec, tmp_path / "lab")
    told = json.loads((tmp_path / "lab" / "lab.json").read_text())
    assert (told["status"], told["started"], told["finished"]) == ("partial", first["started"], None)
    assert (told["methods"], told["gates"]) == (other["methods"], other["gates"])
    assert told["run"]["folder"] == other["run"]["folder"]


def test_a_changed_recipe_trains_anew_and_never_meets_the_records_of_the_old_one(
    stage: list[str], lab: str, tmp_path: Path
) -> None:
    run_lab(read_spec(written(tmp_path, lab)), tmp_path / "lab")
    other = run_lab(read_spec(written(tmp_path, lab + "set: {lr: 0.001}\n")), tmp_path / "lab")
    assert len(stage) == 8
    assert len({path.name for path in (tmp_path / "lab").glob("run-*")}) == 2
    assert other.manifest["run"]["folder"] in {path.name for path in (tmp_path / "lab").glob("run-*")}


def test_checkpoints_trained_elsewhere_are_taken_over_only_when_they_fit(
    stage: list[str], lab: str, tmp_path: Path
) -> None:
    """They lie in the folder itself or, as in another lab, one deeper; a training that was cut off makes way."""
    from harness.lab.train import Shelf
    from harness.train import trainer

    (tmp_path / "mine").mkdir()
    spec = read_spec(written(tmp_path, lab + f"reuse: [{tmp_path / 'mine'}]\n"))
    [fits, other, deeper, *_] = list(spec.trials())
    trainer.train(fits.recipe, tmp_path / "mine" / "first")
    trainer.train(Recipe(**{**asdict(other.recipe), "lr": 0.5}), tmp_path / "mine" / "second")
    trainer.train(deeper.recipe, tmp_path / "mine" / "1a2b3c4d" / "derta-s0")
    cut_off = Shelf.of(tmp_path / "lab" / "checkpoints", (), spec.base).place(fits)
    cut_off.mkdir(parents=True)
    (cut_off / "state.pt").write_text("half-way")
    stage.clear()
    run_lab(spec, tmp_path / "lab")
    assert stage == ["vanilla-s1", "derta-s1"]
    assert not (cut_off / "state.pt").exists()


def test_a_checkpoint_without_its_weights_is_not_taken_over_and_not_evaluated(
    stage: list[str], lab: str, tmp_path: Path
) -> None:
    from harness.train import trainer

    (tmp_path / "mine").mkdir()
    spec = read_spec(written(tmp_path, lab + f"reuse: [{tmp_path / 'mine'}]\n"))
    trainer.train(next(spec.trials()).recipe, tmp_path / "mine" / "first")
    (tmp_path / "mine" / "first" / "adapter_model.safetensors").unlink()
    stage.clear()
    run_lab(spec, tmp_path / "lab")
    assert stage == ["vanilla-s0", "vanilla-s1", "derta-s0", "derta-s1"]
    [place] = (tmp_path / "lab" / "checkpoints").glob("*/derta-s1")
    (place / "adapter_model.safetensors").unlink()
    with pytest.raises(HarnessError, match="has lost its weights") as told:
        run_lab(spec, tmp_path / "lab")
    assert f"rm -r {place}" in told.value.hint


@pytest.mark.parametrize("what", ["data", "base"])
def test_data_or_a_base_that_change_while_the_lab_trains_are_said(
    what: str, stage: list[str], lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first checkpoint is of what the lab began with, the second is not; the third is not begun."""
    from harness.train import trainer

    plain = trainer.train

    def changed(recipe: Recipe, out: Path) -> trainer.Result:
        found = plain(recipe, out)
        return replace(found, manifest={**found.manifest, f"{what}_sha": "c" * 16}) if len(stage) > 1 else found

    monkeypatch.setattr(trainer, "train", changed)
    with pytest.raises(HarnessError, match=f"the {what} changed while the lab trained") as told:
        run_lab(read_spec(written(tmp_path, lab)), tmp_path / "lab")
    assert stage == ["vanilla-s0", "vanilla-s1"]
    assert "vanilla-s1, and start the lab again" in told.value.hint


def test_manifests_of_other_tools_are_no_checkpoints_and_nobody_is_told_to_remove_them(
    stage: list[str], lab: str, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    for name, text in {"list": "[1, 2]", "objects": '[{"a": 1}]', "cake": '{"recipe": "flour"}'}.items():
        (mine / name).mkdir(parents=True)
        (mine / name / "manifest.json").write_text(text)
    spec = read_spec(written(tmp_path, lab + f"reuse: [{mine}]\n"))
    run_lab(spec, tmp_path / "lab")
    assert len(stage) == 4
    (mine / "list" / "manifest.json").write_text("{")
    for place in (tmp_path / "lab" / "checkpoints").glob("*/vanilla-s0"):
        (place / "manifest.json").write_text("{")
        with pytest.raises(HarnessError, match="is broken") as told:
            run_lab(spec, tmp_path / "lab")
        assert told.value.hint == f"remove the folder to train again: rm -r {place}"
        shutil.rmtree(place)
    with pytest.raises(HarnessError, match="is broken") as told:
        run_lab(spec, tmp_path / "lab")
    assert told.value.hint.startswith(f"mend {mine / 'list' / 'manifest.json'}, or name a folder under `reuse`")


def test_data_named_by_another_path_are_the_same_data(
    stage: list[str], lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.train import data

    shutil.copytree(data.HOME / "magic", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    for named in ("mine", "./mine", str(tmp_path / "mine")):
        run_lab(read_spec(written(tmp_path, lab + f"set: {{data: {named}}}\n")), tmp_path / "lab")
    assert stage == ["vanilla-s0", "vanilla-s1", "derta-s0", "derta-s1"]


def test_a_sweep_draws_the_trade_off(stage: list[str], lab: str, tmp_path: Path) -> None:
    text = lab.replace("[vanilla, derta]", "[derta]").partition("gate:")[0]
    done = run_lab(read_spec(written(tmp_path, text + "sweep: {rto_share: [0, 0.5, 1]}\n")), tmp_path / "lab")
    assert len(stage) == 6
    summary = (tmp_path / "lab" / "summary.md").read_text()
    assert "What safety costs here" in summary
    assert "| 0.5 |" in summary
    assert "refused late" in summary
    assert done.exit_code == 0


@pytest.mark.parametrize(
    ("setting", "says"),
    [("attacks: [dirct]", "did you mean 'direct'"), ("judge: [ruls]", "did you mean 'rules'"),
     ("behaviors: nowhere", "nowhere"), ("attacks: [probe_sampling]", "needs an attacker of its own")],
)  # fmt: skip
def test_what_can_not_work_in_the_run_is_said_before_anything_is_trained(
    stage: list[str], tmp_path: Path, setting: str, says: str
) -> None:
    text = f"methods: [vanilla]\nrun: {{{setting}, tasks: none}}\n"
    with pytest.raises(HarnessError, match=says):
        run_lab(read_spec(written(tmp_path, text)), tmp_path / "lab")
    assert not stage


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("methods: [derta, r2d2]\nset: {template: inst}", "r2d2 needs template: chat"),
        ("methods: [derta, vanilla]\nset: {data: DATA}", "vanilla can't be made of official rows"),
        ("methods: [derta]\nset: {data: nowhere}", "no training data at nowhere"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is(
    stage: list[str], tmp_path: Path, text: str, says: str
) -> None:
    rows = [{"prefix": "How?", "text": "So.", "safe": flag} for flag in ("true", "false")]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    text = text.replace("DATA", str(tmp_path / "rows.json")) + "\nrun: {attacks: [direct], tasks: none, limit: 1}\n"
    with pytest.raises(HarnessError, match=says):
        run_lab(read_spec(written(tmp_path, text)), tmp_path / "lab")
    assert not stage


def test_two_labs_do_not_share_a_folder_at_once(stage: list[str], lab: str, tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "lab").mkdir()
    with FileLock(tmp_path / "lab" / ".lock"), pytest.raises(UsageError, match="another lab"):
        run_lab(read_spec(written(tmp_path, lab)), tmp_path / "lab")


def rows(outcomes: Sequence[Sequence[int]]) -> tuple[Record, ...]:
    """Checkpoint by checkpoint, 1 where the behavior's reply complied."""
    return tuple(
        Record(
            key=f"{s}/{b}", model=f"derta-s{s}", task="magic", behavior=str(b), expect="refuse",
            judgements=(Judgement(judge="rules", label="complied" if hit else "refused"),),
        )
        for s, line in enumerate(outcomes) for b, hit in enumerate(line)
    )  # fmt: skip


def asr(outcomes: Sequence[Sequence[int]]) -> Any:
    run = Run(folder=Path(), info={}, records=rows(outcomes), metrics=())
    labels = {f"derta-s{s}": "derta" for s in range(len(outcomes))}
    found = pool(run, labels)
    [metric] = [m for m in found.metrics if m.name == "asr" and m.group == {"model": "derta", "attack": "direct"}]
    single = [m for m in found.metrics if m.name == "asr" and "checkpoint" in m.group]
    return metric, single


def test_a_method_is_the_mean_of_its_checkpoints_which_are_shown_apart() -> None:
    """2, 1 and 3 of 4: mean 6 / 12."""
    metric, single = asr([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]])
    assert (metric.value, metric.n) == (0.5, 12)
    assert [m.value for m in single] == [0.5, 0.25, 0.75]


def test_seeds_that_agree_leave_the_interval_over_behaviors_alone_and_others_widen_it() -> None:
    """Three checkpoints that do the very same are one for each behavior; three of 0, 4 and 8 of 8 are far apart."""
    same, _ = asr([[1, 0, 1, 0, 1, 0, 1, 0]] * 3)
    assert (same.low, same.high) == pytest.approx(clustered([[hit] * 3 for hit in (1, 0) * 4]))
    apart, _ = asr([[0] * 8, [1, 0] * 4, [1] * 8])
    assert apart.value == same.value
    assert (apart.low, apart.high) == (0.0, 1.0)  # t with 2 degrees of freedom: 4.3 standard errors of 0.29


def test_what_is_told_by_behavior_is_told_of_each_checkpoint() -> None:
    """Checkpoint 0 falls to two of four behaviors, checkpoint 1 to another one: 3 of 8 fell, not 3 of 4; a behavior
    costs one query on each, and a success 8 / 3 of them."""
    run = Run(folder=Path(), info={}, records=rows([[1, 1, 0, 0], [0, 0, 1, 0]]), metrics=())
    found = pool(run, {"derta-s0": "derta", "derta-s1": "derta"}).metrics
    [any_attack] = [m for m in found if m.name == "asr_any" and m.group == {"model": "derta"}]
    assert (any_attack.value, any_attack.n) == (3 / 8, 8)
    [cost] = [m for m in found if m.name == "cost" and m.group.get("unit") == "queries"]
    assert (cost.value, cost.n) == (1.0, 8)
    [each] = [m for m in found if m.name == "cost_per_success" and m.group["unit"] == "queries"]
    assert each.value == pytest.approx(8 / 3)
    assert each.low is not None
    assert each.low > 1
    assert each.high is None or each.high > 3
    assert not [m for m in found if m.name == "asr_at_k"]  # seeds of training are no further tries


def test_costs_are_over_checkpoints_too() -> None:
    """Checkpoints that agree tell no more of what a behavior or a success costs than one of them; three that fall to 0,
    4 and 8 of 8 leave the price of a success, and the share within a budget, open."""

    def told(outcomes: Sequence[Sequence[int]]) -> tuple[Metric, Metric]:
        run = Run(folder=Path(), info={}, records=rows(outcomes), metrics=())
        pooled = pool(run, {f"derta-s{s}": "derta" for s in range(len(outcomes))})
        [price] = [m for m in pooled.metrics if m.name == "cost_per_success" and m.group["unit"] == "queries"]
        [(_, within)] = reached(pooled.records, "queries", [1])
        return price, within

    once, _ = told([[1, 0, 1, 0, 1, 0, 1, 0]])
    same, at_same = told([[1, 0, 1, 0, 1, 0, 1, 0]] * 3)
    assert (same.value, same.low, same.high) == pytest.approx((once.value, once.low, once.high))
    assert (at_same.low, at_same.high) == pytest.approx(clustered([[hit] * 3 for hit in (1, 0) * 4]))
    apart, at_apart = told([[0] * 8, [1, 0] * 4, [1] * 8])
    assert (apart.value, apart.low, apart.high) == (2.0, 1.0, None)
    assert (at_apart.value, at_apart.low, at_apart.high) == (0.5, 0.0, 1.0)


def test_the_length_controlled_win_rate_is_over_checkpoints_too() -> None:
    """Checkpoints that win every other comparison leave its interval alone; of 1, 5 and 9 in ten they open it."""

    def told(wins: Sequence[int]) -> tuple[Metric, Metric]:
        records = tuple(
            Record(
                key=f"{s}/{b}", model=f"derta-s{s}", task="open", behavior=str(b), expect="comply", attack="",
                judgements=(Judgement(judge="pairwise", label="correct" if b % 10 < of else "wrong", longer=b % 7),),
            )
            for s, of in enumerate(wins) for b in range(60)
        )  # fmt: skip
        labels = {f"derta-s{s}": "derta" for s in range(len(wins))}
        pooled = pool(Run(folder=Path(), info={}, records=records, metrics=()), labels)
        [over] = [m for m in pooled.metrics if m.name == "win_rate_lc"]
        [plain] = [m for m in compute(pooled.records) if m.name == "win_rate_lc"]
        return over, plain

    over, plain = told([5, 5, 5])
    assert (over.low, over.high) == pytest.approx((plain.low, plain.high))
    over, plain = told([1, 5, 9])
    assert over.value == plain.value
    assert (over.low, over.high) == (0.0, 1.0)


@pytest.mark.parametrize("first", [0, 999_999, -1])
def test_seeds_of_a_run_stay_with_their_checkpoint_wherever_they_begin(first: int) -> None:
    """Two checkpoints, two seeds of the run each; one of them falls to one of two behaviors, under its second seed."""
    records = tuple(
        replace(r, key=f"{r.key}/{seed}", seed=first + seed)
        for seed, outcomes in enumerate(([[0, 0], [0, 0]], [[1, 0], [0, 0]]))
        for r in rows(outcomes)
    )
    run = Run(folder=Path(), info={}, records=records, metrics=())
    found = pool(run, {"derta-s0": "derta", "derta-s1": "derta"}).metrics
    [any_attack] = [m for m in found if m.name == "asr_any" and m.group == {"model": "derta"}]
    assert (any_attack.value, any_attack.n) == (1 / 4, 4)


def test_widening_by_hand() -> None:
    """Means .2 and .6 of 100 each, value .4: between 2 * (100 * .2)^2 * 2 / 200^2 = .04, chance .24 / 200 = .0012, so
    extra .0388; t with 1 degree of freedom is 12.706: the reach is beyond the scale. Equal means: nothing is added."""
    assert over_columns(0.4, (0.3, 0.5), [(0.2, 100), (0.6, 100)]) == (0.0, 1.0)
    assert over_columns(0.4, (0.3, 0.5), [(0.4, 100), (0.4, 100)]) == pytest.approx((0.3, 0.5))
    # four columns .35 .45 .35 .45: between 4 * (100 * .05)^2 * 4/3 / 400^2 = 8.3333e-4, chance 6e-4, extra 2.3333e-4;
    # t(3) = 3.18245, so reach^2 = 10.1280 * 2.3333e-4 = 2.36320e-3; arms sqrt(.01 + .0023632) = .111190
    four = over_columns(0.4, (0.3, 0.5), [(0.35, 100), (0.45, 100)] * 2)
    assert four == pytest.approx((0.288810, 0.511190), abs=1e-5)


@pytest.mark.slow
def test_every_format_shows_the_figures_of_a_sweep(
    stage: list[str], lab: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.lab import lab as order

    monkeypatch.setattr(order, "REPORTS", ("pdf", "html"))
    text = lab.partition("gate:")[0] + "sweep: {rto_share: [0, 1]}\n"
    run_lab(read_spec(written(tmp_path, text)), tmp_path / "lab")
    assert (tmp_path / "lab" / "report.pdf").read_bytes().startswith(b"%PDF")
    page = (tmp_path / "lab" / "report.html").read_text()
    assert "Over rto_share: what the attack gets" in page
    assert "one mark a value of rto_share" in page


@pytest.mark.slow
def test_intervals_over_seeds_hold_the_truth_about_as_often_as_they_say() -> None:
    """Logit-normal behaviors and training seeds around .5, three seeds of 30 behaviors: without the widening the same
    intervals hold the truth far less often."""
    import math

    rng = random.Random(5)
    held = plain = 0
    runs = 300
    for _ in range(runs):
        easy = [rng.gauss(0, 1.0) for _ in range(30)]
        seeds = [rng.gauss(0, 0.8) for _ in range(3)]
        table = [[int(rng.random() < 1 / (1 + math.exp(-(b + s)))) for b in easy] for s in seeds]
        metric, _ = asr(table)
        low, high = clustered([[float(line[b]) for line in table] for b in range(30)])
        held += metric.low <= 0.5 <= metric.high
        plain += low <= 0.5 <= high
    assert held / runs > 0.9
    assert plain / runs < held / runs - 0.1


def test_names_of_methods_can_be_folders() -> None:
    spec = LabSpec(name="x", methods=("derta",), sweep="rto_share", values=(0.5, 1), seeds=(0,))
    assert [t.name for t in spec.trials()] == ["derta-rto_share=0.5-s0", "derta-rto_share=1-s0"]
    with pytest.raises(UnknownName):
        list(LabSpec(name="x", methods=("../derta",)).trials())
