"""`harness winrate`: two files of recorded replies compared by a language model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from harness import progress
from harness.commands.options import check_json, told_what_is_kept
from harness.types import Metric, Record

HINT = "a file of requests and replies: instruction and output, question and response, ..."


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
    request are compared, and those left out are counted. Each pair is shown in both orders, and a preference that
    follows the order is a tie.
    With --out the same command goes on where it stopped, and asks nothing twice.

    \b
    harness winrate derta.json text_davinci_003.json --judge-model my-judge --judge-base-url http://localhost:8000/v1
    """
    progress.quiet = quiet or to == "-"
    from harness.data.recorded import located
    from harness.engine import mostly_failed
    from harness.judges.pairwise import PRESET, Pairwise
    from harness.metrics import compute
    from harness.models.hub import bare
    from harness.models.open import open_models
    from harness.models.options import ModelOptions
    from harness.models.remember import Remembered
    from harness.scoring import digest
    from harness.store import Store
    from harness.types import sha
    from harness.winrate import recorded

    check_json(to)
    files = [digest(located(file, HINT)) for file in (replies, reference)]
    identity = sha([*files, judge_model, bare(judge_base_url), seed, PRESET.digest])[:8]
    check(out, identity)

    async def compared(store: Store | None) -> tuple[list[Record], dict[str, int]]:
        options = ModelOptions(base_url=judge_base_url or None, api_key_env=api_key_env)
        [model] = await open_models(judge_model, options)
        try:
            if store is None:
                return await recorded(replies, reference, Pairwise(model=model, seed=seed))
            judge = Pairwise(model=Remembered(model, store), seed=seed)
            begin(store.folder, replies, identity, judge.describe())
            return await recorded(replies, reference, judge)
        finally:
            await model.close()

    if out is None:
        with told_what_is_kept(out):
            records, left = asyncio.run(compared(None))
    else:
        with Store(out) as store:
            records, left = asyncio.run(compared(store))
            for record in records:
                if store.records.get(record.key) != record:
                    store.put_record(record)
    metrics = compute(records)
    rest, failing = left_out(left), mostly_failed(records)
    if out is not None:
        finish(out, metrics, notes=rest, failing=failing)
    told = summary(records, metrics) | left
    for line in rest:
        click.echo(line, err=True)
    if to and to != "-":
        Path(to).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    click.echo(json.dumps(told, indent=None if to == "-" else 2))
    if failing:
        click.echo("\n".join(failing), err=True)
        raise click.exceptions.Exit(4)


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


def check(out: Path | None, identity: str) -> None:
    """Raises DataError when the folder holds another run than these files compared by this model."""
    from harness.errors import DataError
    from harness.store import load

    if out is not None and (out / "run.json").exists() and load(out, metrics=False).info.get("identity") != identity:
        raise DataError(f"{out} already holds a run", hint="name another folder with --out")


def begin(out: Path, file: Path, identity: str, judge: dict[str, Any]) -> None:
    """Writes run.json as partial. Raises DataError when the folder's comparisons are of a model that has changed."""
    from harness.errors import DataError
    from harness.manifest import now, versions
    from harness.store import load, write_json

    earlier = load(out, metrics=False).info if (out / "run.json").exists() else {}
    judges = {"pairwise": json.loads(json.dumps(judge, default=str))}
    if earlier.get("judges", judges) != judges:
        raise DataError(f"{out} was compared by another model of this name", hint="name another folder with --out")
    info = {
        "status": "partial",
        "identity": identity,
        "command": f"harness winrate {file.name}",
        "spec": {"model": file.stem, "judge": list(judges)},
        "started": earlier.get("started") or now(),
        "finished": None,
        "versions": versions(),
        "judges": judges,
        "notes": [f"compared from {file.name}: nothing was asked of a model under attack"],
    }
    write_json(out / "run.json", info)


def left_out(left: Mapping[str, int]) -> list[str]:
    """What was not compared, in words."""
    told = {
        "n_no_reference": "replies not compared, as the reference file answers no such request",
        "n_repeated": "replies of the reference file not used, as a later one answers the same request",
    }
    return [f"{words}: {left[name]}" for name, words in told.items() if left[name]]


def finish(out: Path, metrics: Sequence[Metric], notes: Sequence[str], failing: Sequence[str]) -> None:
    """Metrics and reports of a folder whose comparisons are all there; `failing` says why it stays partial."""
    from dataclasses import asdict

    from harness.engine import write_reports
    from harness.manifest import now
    from harness.store import load, write_json

    info = load(out, metrics=False).info
    done = {} if failing else {"status": "complete", "finished": now()}
    write_json(out / "run.json", {**info, "notes": [*info["notes"], *notes, *failing], **done})
    write_json(out / "metrics.json", [asdict(m) for m in metrics])
    write_reports(load(out))
