"""`harness paper`: the DeRTa paper's protocol for any checkpoint, and its table beside the published one."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from harness import progress
from harness.commands.options import ENDS, check_json, given, settings_as_options, show
from harness.errors import UsageError

EXIT_CODES = f"Exit codes: 0 done, 2 usage or data, 4 incomplete, {ENDS}"


@click.command(epilog=EXIT_CODES)
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@click.option("--stand-in", is_flag=True, help="ask about the harmless stand-in policy, with nothing to pull")
@click.option("--estimate", is_flag=True, help="say tokens, hours and cost, and stop; loads nothing")
@click.option("--machine", default="", help="for --estimate: h100, h200, a100 or cpu [h100; cpu below 1 billion]")
@click.option("--gpus", type=int, default=0, help="for --estimate: how many of them [as many as the weights need]")
@click.option("--price", type=float, default=0.0, help="for --estimate: dollars an hour for each of them")
@click.option("--billions", type=float, default=0.0, help="for --estimate: parameters, where the name does not say")
@click.option(
    "--merge", "merging", is_flag=True, help="join the FOLDERS of a sharded run, or of several models, in --out"
)
@click.option("--out", type=click.Path(path_type=Path), help="run folder [runs/MODEL-HASH]")
@click.option("--fresh", is_flag=True, help="forget what the run folder holds and start over")
@click.option("--json", "to", default="", metavar="-|FILE", help="write the table (or the estimate) as one JSON object")
@click.option("--quiet", is_flag=True, help="no progress and no tables on the terminal")
@settings_as_options("paper")
def paper(
    folders: tuple[Path, ...],
    stand_in: bool,
    estimate: bool,
    machine: str,
    gpus: int,
    price: float,
    billions: float,
    merging: bool,
    out: Path | None,
    fresh: bool,
    to: str,
    quiet: bool,
    **flags: Any,
) -> None:
    """Run the protocol of the DeRTa paper and set its numbers beside the published ones.

    200 questions (50 for PAIR and AutoDAN), six attacks, greedy, 1,024 tokens, GSM8K, MMLU and AlpacaEval. Every
    setting of `harness run` may be given and wins. With --limit it is a trial: the searches are cut as well.

    \b
    harness paper --model Youliang/llama3-8b-derta --estimate
    harness paper --model Youliang/llama3-8b-derta
    harness paper --model Youliang/llama3-8b-derta --shard 2/8 --out runs/part2
    harness paper --merge runs/part* --out runs/whole
    harness paper --model smollm2-135m --limit 4             a trial on the CPU, on harmless stand-ins
    """
    progress.quiet = quiet or to == "-"
    check_json(to)
    if folders and not merging:
        raise UsageError(
            f"unexpected {folders[0]}", hint="to join run folders: harness paper --merge FOLDERS --out FOLDER"
        )
    if merging:
        done = merged(folders, out)
    else:
        from harness.paper import protocol

        spec = protocol.make(given(flags), stand_in=stand_in)
        if estimate:
            from harness.paper.estimate import estimate as reckon

            found = reckon(spec, machine=machine, gpus=gpus, price=price, billions=billions)
            tell(asdict(found), to)
            if to != "-":
                click.echo("\n".join(lines(found)))
            return
        protocol.check_data(spec)
        from harness.engine import run

        done = run(spec, out, fresh=fresh)
    finish(done, to, quiet=quiet)


def merged(folders: tuple[Path, ...], out: Path | None) -> Any:
    """The joined run. Raises UsageError without a folder to put it in."""
    from harness.merge import merge

    if out is None:
        raise UsageError("no folder for the joined run", hint="harness paper --merge runs/part* --out runs/whole")
    return merge(folders, out)


def finish(done: Any, to: str, *, quiet: bool) -> None:
    """Keeps the table as `paper.json`, shows it, names the report; exit 4 where the run is partial."""
    from harness.paper.compare import as_json, compare
    from harness.store import write_json

    table = as_json(compare(done))
    write_json(done.folder / "paper.json", table)
    tell({"folder": str(done.folder), "status": done.info.get("status"), "table": table}, to)
    if to != "-":
        if not quiet:
            show(done)
        click.echo(str(done.folder / "report.pdf"))
    if done.info.get("status") != "complete":
        sys.exit(4)


def tell(value: Any, to: str) -> None:
    """Writes one JSON object to the place asked for; nowhere when none is."""
    if to == "-":
        click.echo(json.dumps(value))
    elif to:
        Path(to).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def lines(found: Any) -> list[str]:
    """An estimate as a table for the terminal, with what it assumes."""
    rows: list[tuple[str, ...]] = [("", "calls", "tokens read", "at most", "written", "at most")]
    total = [0, 0, 0, 0, 0]
    for load in found.loads:
        read = load.tokens_in + load.scored
        amounts = (load.calls, read, max(read, load.most_in), load.expected, load.most)
        total = [a + b for a, b in zip(total, amounts, strict=True)]
        rows.append((f"{load.what} ({load.by})" if load.by else load.what, *(f"{n:,}" for n in amounts)))
    rows.append(("in all", *(f"{n:,}" for n in total)))
    first, *rest = (max(len(row[i]) for row in rows) for i in range(6))
    table = [
        f"{row[0]:<{first}}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], rest, strict=True))
        for row in rows
    ]
    where = f"{found.gpus} x {found.machine}, {found.billions:g} billion parameters"
    hours = f"{found.hours:.1f} hours (at most {found.hours_most:.1f}), "
    return [
        *table,
        "",
        (f"{where}: {hours}" if found.gpus else "At an endpoint, whose limits set the pace: ")
        + f"{found.dollars:.0f} dollars (at most {found.dollars_most:.0f})",
        "Assumed:",
        *(f"- {text}" for text in found.assumptions),
    ]
