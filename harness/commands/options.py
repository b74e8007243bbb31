"""What commands that do a run share: one option for each field of RunSpec, and the tables at the end."""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from harness.config import PROFILES, RunSpec
from harness.errors import UsageError

F = typing.TypeVar("F", bound=Callable[..., Any])


def settings_as_options(profile: str = "") -> Callable[[F], F]:
    """Adds the options to a command; those that were not given arrive as None or an empty tuple.

    A command that is a profile shows that profile's defaults, and takes no other profile.
    """

    def with_options(command: F) -> F:
        for f in reversed(fields(RunSpec)):
            if profile and f.name == "profile":
                continue
            flag = "--" + f.name.replace("_", "-")
            default = PROFILES.get(profile, {}).get(f.name, f.default)
            default = ",".join(default) if isinstance(default, tuple) else default
            shown = f" [{default}]" if default not in ("", 0, False) else ""
            help_text = f.metadata["help"] + shown
            if isinstance(f.default, bool):
                command = click.option(flag, f.name, is_flag=True, default=None, help=help_text)(command)
            else:
                many = f.name in ("adapter", "set")
                option = click.option(flag, f.name, multiple=many, default=None, metavar="TEXT", help=help_text)
                command = option(command)
        return command

    return with_options


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The settings that were typed."""
    return {k: v for k, v in flags.items() if v is not None and v != ()}


ENDS = "70 a bug, 130 interrupted, 141 nobody reads the output."
"""Exit codes that any command may have."""


def check_json(to: str) -> None:
    """Raises UsageError when the file of --json can't be written: said before anything is asked."""
    if not to or to == "-":
        return
    path = Path(to)
    if path.is_dir():
        why = "is a folder"
    elif not path.parent.is_dir():
        why = "is in no folder that exists"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        why = "can't be written"
    else:
        return
    raise UsageError(f"--json {to} {why}", hint="name a file in a folder that can be written, or - for the terminal")


@contextmanager
def told_what_is_kept(out: Path | None) -> Iterator[None]:
    """Where no folder keeps anything, an interrupt says so, and not that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt:
        if out is not None:
            raise
        click.echo("interrupted, and nothing was kept: with --out FOLDER the same command goes on", err=True)
        raise click.exceptions.Exit(130) from None


def show(done: Any) -> None:
    """The tables of a run on the terminal."""
    from harness import registry

    registry.load("report", "terminal")(done)
