"""The order of a lab: checkpoints, one run over all of them, gates, one manifest, one report.

    labs/NAME/checkpoints/KEY/METHOD-sSEED   finished checkpoints, by what decides them
              run-HASH                       the run: records, transcripts, judge and helpfulness, resumable
              gates                          one folder for each pair and seed
              lab.json                       the manifest: data, recipe, checkpoint and judge hashes, gates, status
              report.pdf, report.html, summary.md, metrics.json

Nothing is kept in between: each stage finds what an earlier start finished, so the same command goes on.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness import __version__, registry
from harness.lab.pool import pool
from harness.lab.spec import BASE, LabSpec
from harness.lab.train import Checkpoint, Shelf, make
from harness.labels import people
from harness.manifest import now
from harness.models.hub import bare
from harness.store import locked, read_json, write_json
from harness.train import trainer
from harness.train.data import load as load_data
from harness.train.methods import check_rows
from harness.types import Run

KEPT = ("recipe_sha", "data_sha", "base_sha", "pairs", "pairs_by_part", "positions_by_part", "steps", "tokens_seen",
        "supervised_seen", "seconds", "processes", "device", "refusal_token", "versions")  # fmt: skip
REPORTS = ("pdf", "html", "markdown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A finished lab: its folder, its manifest (lab.json), and the run with seeds put together."""

    folder: Path
    manifest: dict[str, Any]
    run: Run

    @property
    def exit_code(self) -> int:
        """The gravest of its gates and its run: 1 a gate failed, 4 incomplete, 3 inconclusive; else 0."""
        codes = {gate["exit_code"] for gate in self.manifest["gates"]}
        if self.manifest["status"] != "complete":
            codes.add(4)
        return next((code for code in (1, 4, 3) if code in codes), 0)


def run_lab(spec: LabSpec, folder: Path) -> Lab:
    """Does a lab, or goes on with one that was cut off. Raises UsageError or DataError."""
    with locked(folder, "lab"):
        return stages(spec, folder)


def stages(spec: LabSpec, folder: Path) -> Lab:
    """Train, evaluate, gate, report; lab.json tells how far it came."""
    from harness.engine import run

    check_trials(spec)
    check_run(spec)
    earlier = earlier_start(spec, folder)
    manifest: dict[str, Any] = {
        "harness": __version__,
        "status": "partial",
        "command": shlex.join(["harness", *sys.argv[1:]]),
        "started": earlier.get("started") or now(),
        "finished": None,
        "spec": shown(spec),
        "methods": earlier.get("methods", {}),
        "run": earlier.get("run"),
        "gates": earlier.get("gates", []),
    }
    write_json(folder / "lab.json", manifest)
    shelf = Shelf.of(folder / "checkpoints", spec.reuse, spec.base)
    checkpoints = make(list(spec.trials()), shelf)
    manifest["methods"] = describe(checkpoints)
    write_json(folder / "lab.json", manifest)
    asked = spec.run_spec([checkpoint.folder for checkpoint in checkpoints])
    done = run(asked, folder / f"run-{asked.identity()}")
    manifest["run"] = {"folder": done.folder.name, **{k: done.info.get(k) for k in ("identity", "status", "models",
                       "judges", "attacks", "tasks", "seeds", "budget", "finished", "host", "versions")}}  # fmt: skip
    manifest["gates"] = gate_all(spec, checkpoints, done, folder / "gates")
    ended = earlier.get("finished") if outcome(manifest) == outcome(earlier) else None
    manifest |= {"status": done.info.get("status", "partial"), "finished": ended or now()}
    write_json(folder / "lab.json", manifest)
    together = join(done, checkpoints, manifest)
    write_json(folder / "metrics.json", [asdict(metric) for metric in together.metrics])
    for name in REPORTS:
        registry.load("report", name)(together, folder)
    return Lab(folder=folder, manifest=manifest, run=together)


def earlier_start(spec: LabSpec, folder: Path) -> dict[str, Any]:
    """What lab.json tells of an earlier start of this very lab; empty where there was none."""
    path = folder / "lab.json"
    told: dict[str, Any] = read_json(path) if path.exists() else {}
    return told if told.get("spec") == as_json(shown(spec)) else {}


def shown(spec: LabSpec) -> dict[str, Any]:
    """The lab's file as it may be kept: without the logins and queries of URLs."""

    def cleaned(told: Mapping[str, Any]) -> dict[str, Any]:
        return {key: bare(value) if isinstance(value, str) else value for key, value in told.items()}

    kept = cleaned(asdict(spec))
    return {**kept, "settings": cleaned(kept["settings"]), "run": cleaned(kept["run"])}


def outcome(manifest: Mapping[str, Any]) -> Any:
    """What a start that finds everything done leaves as it was; what the run has spent is more each time."""
    run = manifest.get("run") or {}
    return as_json([manifest.get("methods"), run.get("finished"), manifest.get("gates")])


def as_json(value: Any) -> Any:
    """A value as it comes back from a JSON file."""
    return json.loads(json.dumps(value, default=str))


def check_trials(spec: LabSpec) -> None:
    """Holds every recipe against its method and its data before any is trained. Raises UsageError or DataError."""
    recipes = [trial.recipe for trial in spec.trials()]
    for recipe in recipes:
        trainer.check(recipe)
    sets = {name: load_data(name) for name in {recipe.data for recipe in recipes}}
    for recipe in recipes:
        check_rows(recipe, sets[recipe.data])


def check_run(spec: LabSpec) -> None:
    """Resolves attacks, sets, tasks and judges before an hour goes into training. Raises UsageError or UnknownName."""
    from harness.plan import check_names, load_tasks

    asked = spec.outline()
    check_names(asked)
    load_tasks(asked, logprobs=True)


def describe(checkpoints: Sequence[Checkpoint]) -> dict[str, Any]:
    """What the manifest keeps of each method and each of its checkpoints."""
    from harness.models.weights import fingerprint

    methods: dict[str, Any] = {}
    for checkpoint in checkpoints:
        trial = checkpoint.trial
        method = methods.setdefault(
            trial.label,
            {"method": trial.recipe.method, "recipe": trial.recipe.name, "swept": dict(trial.swept),
             "experimental": trial.recipe.experimental, "checkpoints": {}},
        )  # fmt: skip
        method["checkpoints"][trial.name] = {
            "seed": trial.recipe.seed,
            "adapter_sha": fingerprint(checkpoint.folder),
            **{key: checkpoint.manifest.get(key) for key in KEPT},
        }
    return methods


def gate_all(spec: LabSpec, checkpoints: Sequence[Checkpoint], run: Run, out: Path) -> list[dict[str, Any]]:
    """Each pair of methods, seed by seed: candidate against the baseline of the same seed, or against the base."""
    from harness.gate import run_gate

    names = {(c.trial.label, c.trial.recipe.seed): c.trial.name for c in checkpoints}
    base = next((model for model in run.info["models"] if model not in names.values()), "")
    found = []
    for baseline, candidate in spec.gates:
        for seed in spec.seeds:
            old, new = (base if label == BASE else names[label, seed] for label in (baseline, candidate))
            verdict, _ = run_gate(
                run.folder, run.folder, spec.policy, out=out / f"{old}--{new}", baseline_model=old, candidate_model=new,
                environment={},
            )  # fmt: skip
            failed = [c.name for c in verdict.checks if c.outcome == "fail"]
            found.append({"baseline": baseline, "candidate": candidate, "seed": seed, "outcome": verdict.outcome,
                          "exit_code": verdict.exit_code, "failed": failed, "needed": verdict.needed})  # fmt: skip
    return found


def join(run: Run, checkpoints: Sequence[Checkpoint], manifest: dict[str, Any]) -> Run:
    """The run as its report shows it: a method where the records have its checkpoints, and what was trained."""
    labels = {c.trial.name: c.trial.label for c in checkpoints}
    models: dict[str, Any] = {name: told for name, told in run.info["models"].items() if name not in labels}
    for label, method in manifest["methods"].items():
        own = [run.info["models"].get(name, {}) for name in method["checkpoints"]]
        shas = ", ".join(c["adapter_sha"] for c in method["checkpoints"].values())
        models[label] = {**(own[0] if own else {}), "adapter_sha": shas}
    notes = [*run.info.get("notes", ()), seeds_note(manifest["methods"]), *labels_note(run.folder)]
    info = {**run.info, "models": models, "notes": notes, "command": manifest["command"], "lab": manifest}
    return pool(replace(run, info=info), labels)


def seeds_note(methods: dict[str, Any]) -> str:
    """How the numbers of a method come about."""
    most = max((len(method["checkpoints"]) for method in methods.values()), default=0)
    if most < 2:
        return "One training seed a method: the intervals say nothing about how another seed would come out."
    return (
        f"Each number of a trained method is the mean over its checkpoints (up to {most} training seeds). Its interval "
        "is that over behaviors, widened by what the seeds differ in beyond chance (two-way clustering); what a "
        "behavior costs and the tokens before a refusal are no shares, and keep the one over behaviors."
    )


def labels_note(run: Path) -> list[str]:
    """Where the rates corrected by people's labels are, if there are labels: they are of single checkpoints."""
    said = people(run)
    n = len(said.human) + (said.carried.labels.positives + said.carried.labels.negatives if said.carried else 0)
    told = f"{n:,} {'label' if n == 1 else 'labels'} by people: the rates corrected by them are not in this report"
    return [f"{told}; they stand in the run's own ({run.name}), checkpoint by checkpoint."] if n else []
