"""The gate on run folders: reads them, decides, writes every output, says what to exit with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import DataError, UsageError
from harness.gate import render
from harness.gate.policy import Policy, load_policy
from harness.gate.verdict import Verdict, gate
from harness.labels import CARRIED, LABELS, people
from harness.metrics import attacked
from harness.store import load, write_json
from harness.types import Run

BASELINE = Path(".harness/baseline")
KEPT = ("run.json", "records.jsonl", "metrics.json", LABELS, CARRIED)  # never transcripts
LOOKS = 5  # of a sequential gate, where the policy says nothing


def run_gate(
    baseline: str | Path | None,
    candidate: str | Path,
    policy: str | Path | None = None,
    *,
    out: str | Path | None = None,
    intersect: bool = False,
    baseline_model: str | None = None,
    candidate_model: str | None = None,
    sequential: bool = False,
    environment: Mapping[str, str] | None = None,
) -> tuple[Verdict, str]:
    """Gates a candidate folder and writes gate.json, .md, .sarif, .svg and junit beside it (or into `out`).

    Returns the verdict and what to print. Raises UsageError or DataError (exit code 2).
    """
    environment = os.environ if environment is None else environment
    runs = load(baseline or BASELINE), load(candidate)
    told = tuple(people(run.folder) for run in runs)
    limits = policy_for(policy, sequential=sequential)
    left = []
    if limits.judge is None and (carried := told[1].carried):  # known from other replies
        if counts(carried.judge, *runs):
            limits = replace(limits, judge=carried.labels)
        else:
            left = [f"{carried.source} tells of the judge {carried.judge}, which does not count in both runs: not used"]
    verdict = gate(
        *runs,
        limits,
        labels=(told[0].human, told[1].human),
        intersect=intersect,
        baseline_model=baseline_model,
        candidate_model=candidate_model,
    )
    verdict = replace(verdict, notes=(*verdict.notes, *left))
    if verdict.baseline == verdict.candidate and runs[0].folder.resolve() == runs[1].folder.resolve():
        verdict = replace(verdict, notes=(*verdict.notes, "baseline and candidate are the same run"))
    folder = Path(out) if out else Path(candidate)
    when = str(runs[1].info.get("finished") or runs[1].info.get("started") or "1970-01-01T00:00:00")
    write_outputs(verdict, folder, policy=str(policy or "gate.yaml"), when=when)
    printed = [render.to_text(verdict)]
    if summary := environment.get("GITHUB_STEP_SUMMARY"):
        try:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(render.to_markdown(verdict))
        except OSError as err:  # the verdict stands without it
            printed.append(f"the step summary can't be written: {summary}: {err.strerror}")
    if environment.get("GITHUB_ACTIONS") == "true":
        printed += render.to_annotations(verdict)
    return verdict, "\n".join(printed)


def counts(judge: str, baseline: Run, candidate: Run) -> bool:
    """Whether a judge's verdicts count on both sides, and it was the same there."""
    first = {
        r.judgements[0].judge for run in (baseline, candidate) for r in run.records if attacked(r) and r.judgements
    }
    one, other = (run.info.get("judges", {}).get(judge) for run in (baseline, candidate))
    return first <= {judge} and one == other


def gate_model(
    baseline: str | Path | None,
    given: Mapping[str, Any],
    policy: str | Path | None = None,
    *,
    candidate: str | Path | None = None,
    sequential: bool = False,
    intersect: bool = False,
    baseline_model: str | None = None,
    **more: Any,
) -> tuple[Verdict, str]:
    """`run_gate` on a model that is run first, into `candidate`, as the baseline was; `more` goes to `run_gate`.

    With `sequential` it is asked behavior by behavior in batches, and no further than the answer needs.
    """
    from harness.gate.drive import run_candidate

    done = run_candidate(
        load(baseline or BASELINE),
        policy_for(policy, sequential=sequential),
        given,
        out=candidate,
        baseline_model=baseline_model,
        intersect=intersect,
    )
    return run_gate(
        baseline,
        done.folder,
        policy,
        sequential=sequential,
        intersect=intersect,
        baseline_model=baseline_model,
        **more,
    )


def policy_for(path: str | Path | None, *, sequential: bool) -> Policy:
    """The policy, with the usual looks where `sequential` is asked for and the file says nothing of them."""
    policy = load_policy(path)
    return replace(policy, looks=LOOKS) if sequential and policy.looks == 1 else policy


def write_outputs(verdict: Verdict, folder: Path, *, policy: str, when: str) -> None:
    """Writes every format into a folder. Raises UsageError when it can't be written."""
    outputs = {
        "gate.json": render.to_json(verdict),
        "gate.md": render.to_markdown(verdict),
        "gate.junit.xml": render.to_junit(verdict, when),
        "gate.sarif": render.to_sarif(verdict, policy),
        "gate.svg": render.to_badge(verdict),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in outputs.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as err:
        raise UsageError(f"{folder} can't be written: {err.strerror}", hint="name another folder with --out") from err


def compare(
    baseline: str | Path,
    candidate: str | Path,
    *,
    baseline_model: str | None = None,
    candidate_model: str | None = None,
) -> str:
    """What differs between two runs, on what they share, as a Markdown table without a verdict."""
    policy = replace(load_policy(None), looks=1, errors=1.0)
    old, new = (replace(run, info={**run.info, "status": "complete"}) for run in (load(baseline), load(candidate)))
    verdict = gate(old, new, policy, intersect=True, baseline_model=baseline_model, candidate_model=candidate_model)
    return render.comparison(verdict)


def set_baseline(run: str | Path, home: str | Path = BASELINE) -> Path:
    """Keeps a finished run as the baseline: its records and metrics, never its transcripts.

    Raises DataError, or UsageError when it is the baseline already.
    """
    source, home = load(run), Path(home)
    if source.folder.resolve() == home.resolve():
        raise UsageError(f"{source.folder} is the baseline already", hint="name the folder of another run")
    if source.info.get("status") != "complete":
        raise DataError(f"{source.folder} is not finished: it can't be a baseline", hint="type its command again")
    home.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        if (source.folder / name).exists():
            shutil.copyfile(source.folder / name, home / name)
        else:
            (home / name).unlink(missing_ok=True)
    write_json(home / "baseline.json", {"from": source.folder.name, "identity": source.info.get("identity")})
    return home


def show_baseline(home: str | Path = BASELINE) -> str:
    """The baseline in a few lines. Raises DataError when none is set."""
    if not (Path(home) / "run.json").exists():
        raise DataError("no baseline is set", hint="harness baseline set RUN")
    run = load(home)
    lines = [f"{home}: {', '.join(sorted({render.plain(r.model) for r in run.records}))}, {len(run.records)} records"]
    for metric in run.metrics:
        if metric.name in ("asr", "over_refusal", "helpfulness") and "variant" not in metric.group:
            where = " ".join(render.plain(v) for v in metric.group.values())
            ends = f"{render.number(metric.low)} to {render.number(metric.high)}"
            lines.append(f"  {metric.name} {where}: {render.number(metric.value)} ({ends}), n {metric.n}")
    return "\n".join(lines)
