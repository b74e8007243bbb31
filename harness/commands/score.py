"""`harness score`: judge what others recorded, with no model under attack and no GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness import progress
from harness.errors import DataError
from harness.types import Metric, Record


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    default="",
    help="derta, derta-gsm8k, derta-mmlu, jailbreakbench, harmbench, inspect, lm-eval, rows, run [found out]",
)
@click.option("--questions", default="", help="file with the bare requests, where the recorded file lacks them")
@click.option(
    "--judge", default="rules", help="judges that need no model, comma-separated; the first one's verdict counts"
)
@click.option("--out", type=click.Path(path_type=Path), help="run folder to write, with reports like any other")
@click.option(
    "--json", "to", default="", metavar="-|FILE", help="write one JSON object: asr (or accuracy), low, high, n, ..."
)
@click.option("--quiet", is_flag=True, help="no progress on the terminal")
def score(file: Path, form: str, questions: str, judge: str, out: Path | None, to: str, quiet: bool) -> None:
    """Judge replies that another tool recorded, and say the attack success rate with its interval.

    Replies to questions with one right answer are graded, and the object says their accuracy.

    \b
    harness score results.json --format derta --judge rules --json -
    harness score Llama-3-8B_derta_eval_gsm8k_500.json --format derta-gsm8k --json -
    harness score completions.csv --out runs/scored
    harness score runs/before --judge rules,vote
    """
    progress.quiet = quiet or to == "-"
    from harness import registry
    from harness.judges.score import score as judged
    from harness.metrics import compute

    judges = [registry.make("judge", name.strip()) for name in judge.split(",")]
    records = tuple(judged(file, judges, format=form, questions=questions))
    metrics = compute(records)
    if out is not None:
        from harness.manifest import describe_judge

        write(out, file, {j.name: describe_judge(j) for j in judges}, records, metrics)
    graded = any(r.judgements and r.judgements[0].judge.startswith("grade:") for r in records)
    told = accuracy(records, metrics) if graded else summary(records, metrics, [j.name for j in judges])
    if to and to != "-":
        Path(to).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(told, indent=None if to == "-" else 2))


def summary(records: tuple[Record, ...], metrics: tuple[Metric, ...], judges: list[str]) -> dict[str, Any]:
    """One object: the rate over all that was to be refused, its denominators, and where judges disagree."""
    from harness.metrics import attacked
    from harness.stats.intervals import clustered

    refuse = [r for r in records if attacked(r)]
    scored = [r for r in refuse if r.label not in (None, "unscored")]
    groups: dict[str, list[bool]] = {}
    for record in scored:
        groups.setdefault(f"{record.model}/{record.behavior}", []).append(record.label == "complied")
    hits = sum(r.label == "complied" for r in scored)
    low, high = clustered(list(groups.values())) if groups else (None, None)
    told: dict[str, Any] = {
        "asr": hits / len(scored) if scored else None,
        "low": low,
        "high": high,
        "n": len(scored),
        "n_error": sum(r.error is not None for r in refuse),
        "n_unscored": sum(r.label == "unscored" for r in refuse),
        "judge": judges[0],
        "by_attack": {
            m.group["attack"]: m.value for m in metrics if m.name == "asr" and set(m.group) == {"model", "attack"}
        },
    }
    if len(judges) > 1:
        pairs = [r for r in refuse if len(r.judgements) > 1]
        differ = [r.key for r in pairs if len({j.label for j in r.judgements}) > 1]
        told |= {"judges_disagree": len(differ), "judged_by_all": len(pairs), "disagreements": differ[:50]}
    return told


def accuracy(records: tuple[Record, ...], metrics: tuple[Metric, ...]) -> dict[str, Any]:
    """One object: the share of right answers, its denominators, and the same under every reading of the replies."""
    found = [m for m in metrics if m.name == "helpfulness"]
    counts = next((m for m in found if set(m.group) == {"model", "task"}), None)
    if counts is None:
        hint = "a file of replies to be refused? name its --format"
        raise DataError("none of the replies could be graded", hint=hint)
    first = next((r.judgements[0].judge.rpartition(":")[2] for r in records if r.judgements), "")
    return {
        "task": counts.group["task"],
        "accuracy": counts.value,
        **{name: getattr(counts, name) for name in ("low", "high", "n", "n_error", "n_unscored", "floor", "ceiling")},
        "n_no_answer": sum(r.judgements[0].reason == "no-answer" for r in records if r.judgements),
        "readings": {first: counts.value, **{m.group["reading"]: m.value for m in found if "reading" in m.group}},
    }


def write(
    out: Path, file: Path, judges: dict[str, Any], records: tuple[Record, ...], metrics: tuple[Metric, ...]
) -> None:
    """A run folder with the records of what was scored, under judges by name. Raises DataError when it holds a run."""
    from dataclasses import asdict

    from harness.engine import write_reports
    from harness.manifest import now, versions
    from harness.store import Store, load, write_json

    if (out / "run.json").exists():
        raise DataError(f"{out} already holds a run", hint="name another folder with --out")
    with Store(out) as store:
        for record in records:
            store.put_record(record)
    info = {
        "status": "complete",
        "command": f"harness score {file.name}",
        "spec": {"model": file.stem, "judge": list(judges)},
        "started": now(),
        "finished": now(),
        "versions": versions(),
        "judges": judges,
        "notes": [f"scored from {file.name}: nothing was asked of a model"],
    }
    write_json(out / "run.json", info)
    write_json(out / "metrics.json", [asdict(m) for m in metrics])
    write_reports(load(out))
