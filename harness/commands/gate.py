"""`harness gate`, `harness compare` and `harness baseline`."""

from __future__ import annotations

from pathlib import Path

import click

FOLDER = click.Path(path_type=Path)
EXIT_CODES = "Exit codes: 0 pass, 1 fail, 2 usage or data, 3 inconclusive, 4 incomplete, 130 interrupted."


@click.command(epilog=EXIT_CODES)
@click.option("--baseline", type=FOLDER, help="run folder to compare with [what `harness baseline set` kept]")
@click.option("--candidate", type=FOLDER, required=True, help="run folder to judge")
@click.option("--policy", type=FOLDER, help="YAML file of limits [the one that comes with the package]")
@click.option(
    "--out", type=FOLDER, help="where gate.json, .md, .sarif, .svg and .junit.xml go [the candidate's folder]"
)
@click.option("--intersect", is_flag=True, help="compare what two unlike runs share")
@click.option("--baseline-model", help="model of a baseline run that holds several")
@click.option("--candidate-model", help="model of a candidate run that holds several")
def gate(
    baseline: Path | None,
    candidate: Path,
    policy: Path | None,
    out: Path | None,
    intersect: bool,
    baseline_model: str | None,
    candidate_model: str | None,
) -> int:
    """Did this change make the model less safe, or less useful, beyond what chance explains?

    \b
    harness gate --baseline runs/old --candidate runs/new
    harness gate --candidate runs/new --policy gate.yaml
    """
    from harness.gate.command import run_gate

    verdict, printed = run_gate(
        baseline,
        candidate,
        policy,
        out=out,
        intersect=intersect,
        baseline_model=baseline_model,
        candidate_model=candidate_model,
    )
    click.echo(printed)
    return verdict.exit_code


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
