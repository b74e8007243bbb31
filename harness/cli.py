"""The command line: commands, their options made from the settings they set, and exit codes."""

from __future__ import annotations

import io
import os
import sys
import traceback
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from harness import __version__, progress
from harness.commands.data import data
from harness.commands.gate import baseline, compare, gate
from harness.commands.judge import judge
from harness.commands.lab import lab
from harness.commands.merge import merge
from harness.commands.options import ENDS, given, settings_as_options, show
from harness.commands.paper import paper
from harness.commands.score import score
from harness.commands.train import train
from harness.commands.winrate import winrate
from harness.config import make_spec, read_yaml
from harness.errors import HarnessError
from harness.models.hub import bare

EXIT_CODES = f"Exit codes: 0 done, 1 gate failed, 2 usage or data, 3 inconclusive, 4 incomplete, {ENDS}"


class Commands(click.Group):
    """Shows our own errors in one line and exits 2; a misspelt command gets a suggestion."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Finds the command, or says which one was meant."""
        from harness.errors import UnknownName

        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise UnknownName("command", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Reads the command line, which may print help."""
        with nobody_reads():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        with nobody_reads():
            return super().invoke(ctx)


class Unread(Exception):
    """Nobody reads the output any more."""


@contextmanager
def nobody_reads() -> Iterator[None]:
    """Turns a closed pipe into Unread: click would exit 1, which is the gate's."""
    try:
        yield
    except BrokenPipeError as err:
        raise Unread from err


def main() -> None:
    """Entry point of the console script. Exits 1 for a gate's verdict alone."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter is no reason to stop
    try:
        code = ended()
    except (Unread, BrokenPipeError):
        with Path(os.devnull).open("w") as nowhere:  # takes what is left in the buffers
            for stream in (sys.stdout, sys.stderr):
                os.dup2(nowhere.fileno(), stream.fileno())
        code = 141  # as a shell says it
    sys.exit(code)


def ended() -> int:
    """Runs the command and gives its exit code; what is a user's to mend ends in `fail`."""
    try:
        code = cli.main(standalone_mode=False)
    except SystemExit as err:
        if isinstance(err.code, str):  # a library's last words
            fail(err.code, "")
        return 70 if err.code == 1 else int(err.code or 0)
    except HarnessError as err:
        fail(str(err), err.hint)
    except click.ClickException as err:
        context = getattr(err, "ctx", None)
        fail(err.format_message(), f"see: {context.command_path} --help" if context else "")
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: type the same command again to go on from here", err=True)
        return 130
    except (Unread, BrokenPipeError):
        raise
    except OSError as err:
        fail(f"{err.filename}: {err.strerror}" if err.filename else str(err), "")
    except UnicodeError as err:
        fail(f"text that can't be read: {err}", "is every file UTF-8?")
    except Exception:
        traceback.print_exc()
        return 70
    return code if isinstance(code, int) else 0


def fail(message: str, hint: str) -> typing.NoReturn:
    """One line of what is wrong, one of what to type next, exit 2. Neither tells the secrets of a URL."""
    click.secho(f"error: {printable(bare(message))}", fg="red", err=True)
    if hint:
        click.echo(f"  {printable(bare(hint))}", err=True)
    sys.exit(2)


def printable(text: str) -> str:
    """Without control characters: part of a message may come from a file or a server."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


@click.group(cls=Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Attack a language model, judge what it gave away, measure what it still does well, and report.

    \b
    harness run --model smollm2-135m --profile demo     a first run, on the CPU
    harness run --model Youliang/llama3-8b-derta         the same on a GPU machine
    harness ls attacks                                   what there is
    """


@cli.command(epilog=EXIT_CODES)
@click.option("--config", type=click.Path(path_type=Path), help="YAML file of settings; flags win over it")
@click.option("--out", type=click.Path(path_type=Path), help="run folder [runs/MODEL-HASH]")
@click.option("--fresh", is_flag=True, help="forget what the run folder holds and start over")
@click.option("--quiet", is_flag=True, help="no progress on the terminal")
@settings_as_options()
def run(config: Path | None, out: Path | None, fresh: bool, quiet: bool, **flags: Any) -> None:
    """Attack, judge and measure a model; write records, metrics and a report.

    The same command goes on where it stopped. Settings of a YAML file (--config) carry the flags' names.

    \b
    harness run --model smollm2-135m --limit 8 --attacks direct,prefill
    harness run --model smollm2-135m --adapter derta --adapter vanilla
    harness run --model my-model --base-url http://localhost:8000/v1 --judge llm
    harness run --model smollm2-135m --set prefill.depths=0,20,80
    harness run --model my-model --attacks pair,tap --budget queries=60,tokens=40000
    harness run --model my-model --attacks replay --from-run runs/other-1a2b3c4d
    """
    progress.quiet = quiet
    spec = make_spec({**(read_yaml(config) if config else {}), **given(flags)})
    from harness.engine import run as run_spec

    done = run_spec(spec, out, fresh=fresh)
    if not quiet:
        show(done)
    click.echo(str(done.folder / "report.pdf"))
    if done.info["status"] != "complete":
        sys.exit(4)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--labels", type=click.Path(path_type=Path), help="people's labels to correct the rates by; kept in FOLDER"
)
@click.option(
    "--method",
    type=click.Choice(["ppi", "rogan-gladen"]),
    default="ppi",
    show_default=True,
    help="ppi: a random sample of this run's replies; rogan-gladen: labels of other replies",
)
@click.option("--quiet", is_flag=True, help="no tables on the terminal")
def report(folder: Path, labels: Path | None, method: typing.Literal["ppi", "rogan-gladen"], quiet: bool) -> None:
    """Write the reports of a run folder again, from its records and labels alone.

    \b
    harness report runs/smollm2-135m-1a2b3c4d
    harness report runs/smollm2-135m-1a2b3c4d --labels sheet.csv
    harness report runs/smollm2-135m-1a2b3c4d --labels other.csv --method rogan-gladen
    """
    from harness.engine import rewrite

    if labels is not None:
        from harness.scoring import take_labels

        take_labels(folder, labels, method=method)
    done = rewrite(folder)
    if not quiet:
        show(done)
    click.echo(str(done.folder / "report.pdf"))


@cli.command()
@click.argument("what", required=False)
def ls(what: str | None) -> None:
    """List attacks, judges, tasks, models or recipes, with a line on each.

    \b
    harness ls
    harness ls attacks
    """
    from harness.listing import listing

    for line in listing(what):
        click.echo(line)


@cli.command()
def doctor() -> None:
    """Say what is installed, which device and engine will be used, and what to type to mend what is missing."""
    from harness.doctor import examine

    healthy = True
    for check in examine():
        mark = click.style("ok  ", fg="green") if check.ok else click.style("miss", fg="red")
        click.echo(f"{mark} {check.name}: {printable(check.found)}")
        if not check.ok:
            click.echo(f"     {check.mend}")
        healthy = healthy and (check.ok or not check.needed)
    sys.exit(0 if healthy else 2)


for command in (gate, compare, baseline, score, judge, data, train, merge, lab, paper, winrate):
    cli.add_command(command)
