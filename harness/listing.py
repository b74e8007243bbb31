"""What `harness ls` shows: every name that can be typed, with a line on each."""

from __future__ import annotations

from collections.abc import Iterator

from harness import registry
from harness.errors import UnknownName
from harness.models import embedded
from harness.models.checkpoints import checkpoints
from harness.models.providers import providers
from harness.models.scripted import POLICIES

KINDS: dict[str, registry.Kind] = {"attacks": "attack", "judges": "judge", "tasks": "task"}


def listing(what: str | None) -> Iterator[str]:
    """Lines to print; everything when nothing is named. Raises UnknownName."""
    kinds = [*KINDS, "models", "recipes"]
    if what is not None and what not in kinds:
        raise UnknownName("list", what, kinds)
    for kind in [what] if what else kinds:
        if what is None:
            yield f"{kind}:"
        rows = {"models": models, "recipes": recipes}[kind]() if kind not in KINDS else plugins(KINDS[kind])
        for name, line in rows:
            yield f"  {name:<22} {line}"


def plugins(kind: registry.Kind) -> Iterator[tuple[str, str]]:
    """Name and first line of every plugin of a kind."""
    for name in sorted(registry.table(kind)):
        yield name, registry.summary(kind, name)


def recipes() -> Iterator[tuple[str, str]]:
    """Every bundled training recipe and what it is for."""
    from harness.train.recipe import names, summary

    for name in names():
        yield name, summary(name)


def models() -> Iterator[tuple[str, str]]:
    """What `--model` takes."""
    yield embedded.NAME, "SmolLM2-135M-Instruct, embedded: runs on any CPU, no hub needed"
    for policy in POLICIES:
        yield f"scripted:{policy}", "a script with a known truth, for tests and for checking statistics"
    for id, row in checkpoints().items():
        base = f" on {row.base}" if row.kind == "lora" else ""
        gpus = f"{row.gpus} x 80 GB" + (", gated" if row.gated else "")
        yield id, f"{row.kind}{base} · {row.format or 'own'} format · {gpus} · {row.note} · {row.licence}"
    yield (
        "OWNER/NAME",
        "any other checkpoint or LoRA adapter of the hub; also OWNER/NAME@REVISION, OWNER/NAME:FILE.gguf",
    )
    yield "FOLDER, FILE.gguf, URL", "a checkpoint or LoRA adapter on this machine, or to be fetched"
    for name, host in providers().items():
        yield f"{name}/NAME", f"an API model; its key in {host.key}"
    yield "NAME --base-url URL", "a model behind any OpenAI-compatible endpoint"
