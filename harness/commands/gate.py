"""`harness gate`, `harness compare` and `harness baseline`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness.commands.options import ENDS
from harness.errors import UsageError

FOLDER = click.Path(path_type=Path)
EXIT_CODES = f"Exit codes: 0 pass, 1 fail, 2 usage or data, 3 inconclusive, 4 incomplete, {ENDS}"


@click.command(epilog=EXIT_CODES)
@click.option("--baseline", type=FOLDER, help="run folder to compare with [what `harness baseline set` kept]")
@click.option("--candidate", type=FOLDER, help="run folder to judge; with --model, where its run goes")
@click.option("--model", help="run this model first, with the baseline's own settings, then gate it")
@click.option("--adapter", help="with --model: a LoRA folder to judge on top of it")
@click.option("--base-url", help="with --model: OpenAI-compatible endpoint that serves it")
@click.option("--config", type=FOLDER, help="with --model: YAML of more settings of `harness run`")
@click.option("--sequential", is_flag=True, help="look early: stop asking the model once the answer is clear")
@click.option("--policy", type=FOLDER, help="YAML file of limits [the one that comes with the package]")
@click.option(
    "--out", type=FOLDER, help="where gate.json, .md, .sarif, .svg and .junit.xml go [the candidate's folder]"
)
@click.option("--intersect", is_flag=True, help="compare what two unlike runs share")
@click.option("--baseline-model", help="model of a baseline run that holds several")
@click.option("--candidate-model", help="model of a candidate run that holds several")
@click.option("--quiet", is_flag=True, help="no progress on the terminal")
def gate(
    baseline: Path | None,
    candidate: Path | None,
    model: str | None,
    adapter: str | None,
    base_url: str | None,
    config: Path | None,
    sequential: bool,
    policy: Path | None,
    out: Path | None,
    intersect: bool,
    baseline_model: str | None,
    candidate_model: str | None,
    quiet: bool,
) -> int:
    """Did this change make the model less safe, or less useful, beyond what chance explains?

    \b
    harness gate --baseline runs/old --candidate runs/new
    harness gate --candidate runs/new --policy gate.yaml
    harness gate --baseline runs/old --model checkpoints/new --sequential
    harness gate --baseline runs/both --baseline-model derta --candidate runs/both --candidate-model vanilla
    """
    from harness import progress
    from harness.gate.command import gate_model, run_gate

    progress.quiet = quiet
    common: dict[str, Any] = {
        "out": out,
        "intersect": intersect,
        "baseline_model": baseline_model,
        "candidate_model": candidate_model,
        "sequential": sequential,
    }
    if model is not None:
        given = settings(config, model=model, adapter=adapter, base_url=base_url)
        verdict, printed = gate_model(baseline, given, policy, candidate=candidate, **common)
    elif candidate is None:
        raise UsageError("nothing to judge", hint="--candidate RUN, or --model MODEL to run it first")
    elif adapter or base_url or config:
        raise UsageError("--adapter, --base-url and --config belong to --model", hint="add --model MODEL")
    else:
        verdict, printed = run_gate(baseline, candidate, policy, **common)
    click.echo(printed)
    return verdict.exit_code


def settings(config: Path | None, **given: str | None) -> dict[str, Any]:
    """Settings of `harness run` for a candidate: the file's, under those given."""
    from harness.config import read_yaml

    told = read_yaml(config) if config else {}
    return told | {name: value for name, value in given.items() if value is not None}


@click.command()
@click.argument("baseline", type=FOLDER)
@click.argument("candidate", type=FOLDER)
@click.option("--baseline-model", help="model of a baseline run that holds several")
@click.option("--candidate-model", help="model of a candidate run that holds several")
def compare(baseline: Path, candidate: Path, baseline_model: str | None, candidate_model: str | None) -> None:
    """What differs between two runs, on what they share: numbers with intervals, no verdict."""
    from harness.gate.command import compare as compare_runs

    click.echo(
        compare_runs(baseline, candidate, baseline_model=baseline_model, candidate_model=candidate_model), nl=False
    )


@click.group()
def baseline() -> None:
    """Keep the run that later ones are gated against: records and metrics, never transcripts."""


@baseline.command("set")
@click.argument("run", type=FOLDER)
def set_(run: Path) -> None:
    """Make a finished run the baseline."""
    from harness.gate.command import set_baseline

    click.echo(str(set_baseline(run)))


@baseline.command()
def show() -> None:
    """Show the baseline's numbers."""
    from harness.gate.command import show_baseline

    click.echo(show_baseline())
