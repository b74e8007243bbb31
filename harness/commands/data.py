"""`harness data`: public data sets by name (ls, pull, verify), and training sets made from them (build)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from harness import progress

PATH = click.Path(path_type=Path)


@click.group()
def data() -> None:
    """Public data sets, pinned to a commit and checked by hash; and training sets.

    \b
    harness data ls
    harness data pull xstest derta-200
    harness run --model smollm2-135m --behaviors derta-200 --overrefusal xstest
    """


@data.command()
@click.argument("name", required=False)
def ls(name: str | None) -> None:
    """List the data sets with their licences and what is here; with NAME, everything about one.

    \b
    harness data ls
    harness data ls harmbench
    """
    from harness.data import pinned

    if name:
        for line in described(pinned.find(name)):
            click.echo(line)
        return
    width = max(map(len, pinned.table()))
    for one in pinned.table().values():
        here = "here" if pinned.pulled(one.name) else "-"
        click.echo(f"{one.name:<{width}}  {here:<4}  {one.kind:<12}  {one.licence:<16.16}  {one.about}")
    click.echo("\nharness data ls NAME says all about one; a set of your own is a path: --behaviors FILE")


def described(one: Any) -> list[str]:
    """Everything about one set, a line a fact."""
    from harness.data import pinned

    commit = one.commit or pinned.Lock.read().commit(one) or "taken and kept on the first pull"
    lines = [
        f"{one.name}: {one.about}",
        f"  kind      {one.kind}",
        f"  licence   {one.licence}",
        f"  upstream  {one.repo} ({'GitHub' if one.github else 'Hugging Face hub'})",
        f"  commit    {commit}",
        f"  columns   {', '.join(one.columns)}",
        *([f"  rows      {one.rows:,}"] if one.rows else []),
    ]
    for file, checked in zip(one.files, pinned.verify(one.name), strict=True):
        pin = f"sha256 {file.sha256[:16]}…" if file.sha256 else "sha256 recorded on the first pull"
        lines.append(f"  {checked.state:<8}  {file.path}  {pin}")
    return lines


@data.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--mirror", metavar="DIR", help="a copy laid out OWNER/REPO/COMMIT/PATH, or its address [HARNESS_MIRROR]")
@click.option("--quiet", is_flag=True, help="no progress on the terminal")
def pull(names: tuple[str, ...], mirror: str | None, quiet: bool) -> None:
    """Fetch data sets into the private cache and check them; what is there already is only checked.

    A download that was cut off goes on where it stopped. Nothing is used before its hash has matched; a file that
    is not pinned yet has its hash recorded now and is held to it from then on.

    \b
    harness data pull xstest
    harness data pull derta-200 derta-code --mirror /data/mirror
    harness data pull all
    """
    from harness.data import pinned
    from harness.errors import DataError

    progress.quiet = quiet
    wanted = list(pinned.table()) if names == ("all",) else list(dict.fromkeys(names))
    for name in wanted:
        pinned.find(name)  # a misspelt name is said before anything is fetched
    failed: list[DataError] = []
    for name in wanted:
        one = pinned.find(name)
        new = [file.path for file in one.files if not file.sha256 and not pinned.Lock.read().sha256(one, file)]
        try:
            where = pinned.pull(name, mirror)
        except DataError as err:  # the others may still be had
            failed.append(err)
            if len(wanted) > 1:
                click.echo(f"{name}: {err}", err=True)
            continue
        click.echo(f"{name}: {len(one.files)} file{'s' if len(one.files) > 1 else ''} ok, {one.licence}: {where}")
        for file in new:
            click.echo(f"  {file}: no hash was known; the one of today is recorded", err=True)
    if failed:
        told = f"{len(failed)} of {len(wanted)} data sets could not be had" if len(wanted) > 1 else str(failed[0])
        raise DataError(told, hint=failed[0].hint)


@data.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> int:
    """Hash everything that was pulled again, or the sets named; exit code 2 when a file has changed or is missing.

    \b
    harness data verify
    harness data verify xstest
    """
    from harness.data import pinned
    from harness.errors import DataError

    chosen = names or tuple(name for name in pinned.table() if pinned.begun(name))
    bad = []
    for checked in (each for name in chosen for each in pinned.verify(name)):
        click.echo(f"{checked.state:<8} {checked.set}  {checked.file}")
        if checked.state != "ok":
            bad.append(checked.set)
    if not chosen:
        click.echo("nothing was pulled yet")
    if bad:
        again = " ".join(dict.fromkeys(bad))
        raise DataError(
            f"{len(bad)} file{'s' if len(bad) > 1 else ''} not as pinned", hint=f"harness data pull {again}"
        )
    return 0


@data.command()
@click.option("--source", required=True, help="folder with tricks.jsonl and questions.jsonl, a file, or: beavertails")
@click.option("--out", required=True, type=PATH, help="folder the set is written to")
@click.option("--helpful", multiple=True, metavar="FILE", help="helpful pairs: a file, or: evol-instruct")
@click.option("--violator", default="", metavar="MODEL", help="a model that complies, for violating replies")
@click.option("--refuser", default="", metavar="MODEL", help="a model that refuses, for safe replies [templates]")
@click.option("--helper", default="", metavar="MODEL", help="a model that answers what has no helpful reply")
@click.option("--base-url", default="", metavar="URL", help="OpenAI-compatible endpoint that serves these models")
@click.option("--api-key-env", default="OPENAI_API_KEY", show_default=True, help="variable with the endpoint's key")
@click.option("--clash", default="magic", show_default=True, help="sets to stay apart from, comma-separated, or: none")
@click.option("--clash-limit", type=float, help="similarity at which two requests are the same [0.25; helpful: 0.6]")
@click.option(
    "--templates", default="general", show_default=True, help="safe replies without a model: general, magic, magic-long"
)
@click.option("--refusal", default="Sorry", show_default=True, help="word a safe reply must open with")
@click.option("--triples", type=int, default=0, help="draw so many of the source's requests; 0: all")
@click.option("--pairs", type=int, default=0, help="draw so many helpful pairs; 0: all")
@click.option("--violating-tokens", type=int, default=96, show_default=True, help="longest violating reply asked for")
@click.option("--helpful-tokens", type=int, default=160, show_default=True, help="longest helpful reply; cut: dropped")
@click.option("--brief/--no-brief", default=True, show_default=True, help="ask for helpful replies of a few sentences")
@click.option("--ends-from", type=int, default=0, help="an answer of fewer words teaches no end; 0: all do")
@click.option(
    "--lookalike-tokens", type=int, default=0, help="tokens to learn of the helper's answers to look-alikes; 0: all"
)
@click.option("--lookalike-temperature", type=float, default=0.0, help="temperature of these answers; 0: greedy")
@click.option("--both/--no-both", default=True, show_default=True, help="ask the violator also where a reply is known")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--quiet", is_flag=True, help="no progress on the terminal")
def build(quiet: bool, violator: str, refuser: str, helper: str, base_url: str, api_key_env: str, clash: str,
          clash_limit: float | None, **settings: Any) -> None:  # fmt: skip
    """Make a training set: triples (request, safe reply, violating reply) and helpful pairs; say what was dropped.

    \b
    harness data build --source beavertails --helpful evol-instruct --triples 6000 --pairs 60000 \\
        --clash derta-200,harmbench,xstest --out sets/beavertails
    harness data build --source my-requests.jsonl --violator ./tuned-to-comply --out sets/mine
    harness train --recipe llama3-8b-derta --set data=sets/beavertails
    """
    import asyncio

    from harness.models.options import ModelOptions
    from harness.train.build import BuildConfig

    progress.quiet = quiet
    config = BuildConfig(**settings)
    roles = {"violator": violator, "refuser": refuser, "helper": helper}
    options = ModelOptions(base_url=base_url or None, api_key_env=api_key_env)
    check_key(roles, options)
    found, report = asyncio.run(made(config, clash, clash_limit, roles, options))
    for word, counts in (("kept", report.kept), ("dropped", report.dropped)):
        for what, n in sorted(counts.items()):
            click.echo(f"{word:<8} {n:>7,}  {what}")
    click.echo(f"{config.out}: {len(found.triples):,} triples, {len(found.helpful):,} helpful pairs, {found.digest}")


def check_key(roles: dict[str, str], options: Any) -> None:
    """Raises UsageError where the key of one host would be sent to another."""
    from harness.errors import UsageError
    from harness.models.options import ModelOptions
    from harness.models.providers import host_of

    hosts = {host_of(reference, options.base_url or "") for reference in roles.values() if reference} - {""}
    if len(hosts) > 1 and options.api_key_env not in ("", ModelOptions().api_key_env):
        told = f"--api-key-env {options.api_key_env} is the key of one host, and the models are at {len(hosts)}"
        raise UsageError(told, hint="leave it out: each host's own variable is read")


async def made(config: Any, clash: str, limit: float | None, roles: dict[str, str], options: Any) -> Any:
    """Opens the models, each once whatever its roles, builds the set, and closes them.

    What they answer is kept beside the set as it comes, so that the same command does not ask for it again.
    """
    from contextlib import ExitStack

    from harness import registry
    from harness.models.open import open_models
    from harness.models.remember import Remembered
    from harness.store import Store
    from harness.train.build import build as build_set
    from harness.train.build import describe
    from harness.types import Expect, sha

    held = held_out(clash)
    apart = {"clash": clash, "clash_limit": limit, "requests_sha": sha([behavior.request for behavior in held])}

    def near(request: str, expect: Expect) -> str | None:
        return registry.clashes([request], held, expect=expect, limit=limit).get(request)

    opened: dict[str, Any] = {}
    with ExitStack() as stack:  # closes last: a model may answer until it is closed
        try:
            for reference in dict.fromkeys(filter(None, roles.values())):
                [opened[reference]] = await open_models(reference, options)
            if opened:
                asked = sha([describe(model) for model in opened.values()])
                store = stack.enter_context(Store(config.out / f"replies-{asked}"))
                opened = {reference: Remembered(model, store) for reference, model in opened.items()}
            models = {role: opened.get(reference) for role, reference in roles.items()}
            return await build_set(config, clash=near, apart=apart, **models)
        finally:
            for model in opened.values():
                await model.close()


def held_out(clash: str) -> list[Any]:
    """The behaviors of the sets named. Raises UsageError when none is."""
    from harness import registry
    from harness.errors import UsageError

    sets = [name.strip() for name in clash.split(",") if name.strip()]
    if not sets:
        raise UsageError("--clash names no set to stay apart from", hint="--clash magic, or, to check nothing: none")
    return [behavior for name in sets if name != "none" for behavior in registry.behaviors(name)]
