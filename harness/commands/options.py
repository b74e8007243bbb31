"""What commands that do a run share: one option for each field of RunSpec, and the tables at the end."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from harness.config import RunSpec
from harness.errors import UsageError

F = typing.TypeVar("F", bound=Callable[..., Any])


def settings_as_options(command: F) -> F:
    """Adds the options to a command; those that were not given arrive as None or an empty tuple."""
    for f in reversed(fields(RunSpec)):
        flag = "--" + f.name.replace("_", "-")
        default = ",".join(f.default) if isinstance(f.default, tuple) else f.default
        shown = f" [{default}]" if default not in ("", 0, False) else ""
        help_text = f.metadata["help"] + shown
        many = f.name in ("adapter", "set")
        if isinstance(f.default, bool):
            command = click.option(flag, f.name, is_flag=True, default=None, help=help_text)(command)
        else:
            command = click.option(flag, f.name, multiple=many, default=None, metavar="TEXT", help=help_text)(command)
    return command


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The settings that were typed."""
    return {k: v for k, v in flags.items() if v is not None and v != ()}


def check_json(to: str) -> None:
    """Raises UsageError when the file of --json can't be written: said before anything is asked."""
    if to and to != "-" and (Path(to).is_dir() or not Path(to).parent.is_dir()):
        why = "is a folder" if Path(to).is_dir() else "is in no folder that exists"
        raise UsageError(f"--json {to} {why}", hint="name a file in a folder that exists, or - for the terminal")


def show(done: Any) -> None:
    """The tables of a run on the terminal."""
    from harness import registry

    registry.load("report", "terminal")(done)
