"""`harness gate`, `compare` and `baseline`: is this run worse than that one, beyond what chance explains?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

GATE_EXITS = "Exit codes: 0 pass, 1 fail, 2 usage, 3 inconclusive (says how many behaviors would decide), 4 incomplete."
FOLDER = click.Path(path_type=Path)


@click.command(epilog=GATE_EXITS)
@click.option("--baseline", type=FOLDER, help="run folder to hold against [the one `harness baseline set` kept]")
@click.option("--candidate", type=FOLDER, required=True, help="run folder to decide on")
@click.option("--policy", type=FOLDER, help="gate.yaml; without one, the bundled policy")
@click.option("--out", type=FOLDER, help="folder for gate.json, .md, .sarif, .svg and JUnit [the candidate's]")
@click.option("--intersect", is_flag=True, help="compare on what both runs share, instead of refusing")
@click.option("--baseline-model", help="which model of the baseline run")
@click.option("--candidate-model", help="which model of the candidate run")
def gate(**given: Any) -> None:
    """Did this change make the model less safe, or less useful, beyond what chance explains?

    \b
    harness gate --baseline runs/before --candidate runs/after
    harness gate --candidate runs/after --policy gate.yaml
    harness gate --baseline runs/both --baseline-model derta --candidate runs/both --candidate-model vanilla
    """
    from harness.gate.command import run_gate

    verdict, text = run_gate(given.pop("baseline"), given.pop("candidate"), given.pop("policy"), **given)
    click.echo(text)
    sys.exit(verdict.exit_code)


@click.command()
@click.argument("before", type=FOLDER)
@click.argument("after", type=FOLDER)
@click.option("--baseline-model", help="which model of the first run")
@click.option("--candidate-model", help="which model of the second run")
def compare(before: Path, after: Path, baseline_model: str | None, candidate_model: str | None) -> None:
    """Show what differs between two runs, on what they share, without a verdict.

    \b
    harness compare runs/before runs/after
    """
    from harness.gate.command import compare as compare_runs

    click.echo(compare_runs(before, after, baseline_model=baseline_model, candidate_model=candidate_model))


@click.group()
def baseline() -> None:
    """Keep the run that later ones are held against, or show it."""


@baseline.command("set")
@click.argument("run", type=FOLDER)
def set_(run: Path) -> None:
    """Keep a finished run as the baseline (records and metrics, never transcripts)."""
    from harness.gate.command import set_baseline

    click.echo(str(set_baseline(run)))


@baseline.command()
def show() -> None:
    """Show the baseline that is kept."""
    from harness.gate.command import show_baseline

    click.echo(show_baseline())
