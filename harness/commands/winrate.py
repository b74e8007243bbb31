"""`harness winrate`: two files of recorded replies compared by a language model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from harness import progress
from harness.types import Metric, Record


@click.command()
@click.argument("replies", type=click.Path(path_type=Path))
@click.argument("reference", type=click.Path(path_type=Path))
@click.option("--judge-model", required=True, help="the model that compares: a checkpoint, or a served name")
@click.option("--judge-base-url", default="", help="endpoint that serves it")
@click.option("--api-key-env", default="OPENAI_API_KEY", help="environment variable that holds the endpoint's key")
@click.option("--seed", type=int, default=0, help="seed of repeated tries [0]")
@click.option("--out", type=click.Path(path_type=Path), help="run folder to write, with reports like any other")
@click.option(
    "--json", "to", default="", metavar="-|FILE", help="write one JSON object: win_rate, length_controlled, ..."
)
@click.option("--quiet", is_flag=True, help="no progress on the terminal")
def winrate(
    replies: Path,
    reference: Path,
    judge_model: str,
    judge_base_url: str,
    api_key_env: str,
    seed: int,
    out: Path | None,
    to: str,
    quiet: bool,
) -> None:
    """Say how often REPLIES are preferred to REFERENCE, as in AlpacaEval, with both orders and length control.

    Both files hold requests and replies (instruction and output, question and response, ...); those with the same
    request are compared. Each pair is shown in both orders, and a preference that follows the order is a tie.

    \b
    harness winrate derta.json text_davinci_003.json --judge-model my-judge --judge-base-url http://localhost:8000/v1
    """
    progress.quiet = quiet or to == "-"
    from harness.judges.pairwise import Pairwise
    from harness.metrics import compute
    from harness.models.open import open_models
    from harness.models.options import ModelOptions
    from harness.winrate import recorded

    async def compared() -> tuple[Any, Any]:
        options = ModelOptions(base_url=judge_base_url or None, api_key_env=api_key_env)
        [model] = await open_models(judge_model, options)
        try:
            judge = Pairwise(model=model, seed=seed)
            return judge.describe(), await recorded(replies, reference, judge)
        finally:
            await model.close()

    described, records = asyncio.run(compared())
    metrics = compute(records)
    if out is not None:
        write(out, replies, {"pairwise": described}, records, metrics)
    told = summary(records, metrics)
    if to and to != "-":
        Path(to).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(told, indent=None if to == "-" else 2))


def summary(records: list[Any], metrics: tuple[Any, ...]) -> dict[str, Any]:
    """One object: the plain and the length-controlled rate with their intervals, and how often the order decided."""
    from harness.winrate import plain_counts

    by = {m.name: m for m in metrics if set(m.group) == {"model", "task"}}
    plain, controlled = by.get("helpfulness"), by.get("win_rate_lc")
    told: dict[str, Any] = {"win_rate": plain.value if plain else None}
    told |= {key: getattr(plain, key) if plain else None for key in ("low", "high")}
    told |= {
        "n": plain.n if plain else 0,
        "n_error": sum(r.error is not None for r in records),
        "n_unscored": sum(r.label == "unscored" for r in records),
        "floor": plain.floor if plain else None,
        "ceiling": plain.ceiling if plain else None,
        "length_controlled": {key: getattr(controlled, key) for key in ("value", "low", "high")}
        if controlled
        else None,
        "order_decided": {
            place: by[f"{place}_preferred"].value for place in ("first", "second") if f"{place}_preferred" in by
        },
        "outcomes": dict(plain_counts(records)),
    }
    return told


def write(out: Path, file: Path, judges: dict[str, Any], records: Sequence[Record], metrics: Sequence[Metric]) -> None:
    """A run folder with the records of what was compared. Raises DataError when it holds a run."""
    from dataclasses import asdict

    from harness.engine import write_reports
    from harness.errors import DataError
    from harness.manifest import now, versions
    from harness.store import Store, load, write_json

    if (out / "run.json").exists():
        raise DataError(f"{out} already holds a run", hint="name another folder with --out")
    with Store(out) as store:
        for record in records:
            store.put_record(record)
    info = {
        "status": "complete",
        "command": f"harness winrate {file.name}",
        "spec": {"model": file.stem, "judge": list(judges)},
        "started": now(),
        "finished": now(),
        "versions": versions(),
        "judges": judges,
        "notes": [f"compared from {file.name}: nothing was asked of a model under attack"],
    }
    write_json(out / "run.json", info)
    write_json(out / "metrics.json", [asdict(m) for m in metrics])
    write_reports(load(out))
