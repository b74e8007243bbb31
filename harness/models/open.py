"""From what a user types after `--model` to models that answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness import progress
from harness.errors import UsageError
from harness.models.options import ModelOptions
from harness.models.providers import provider
from harness.models.scripted import Scripted
from harness.models.source import find, plan_opening
from harness.types import Model


async def open_models(reference: str, options: ModelOptions, adapters: Mapping[str, Path] | None = None) -> list[Model]:
    """The model and, after it, one model for each adapter; those of a checkpoint share one load.

    A reference that is itself an adapter opens its base and gives the adapter alone. Raises UsageError or DataError
    with what to type next when it can't be had.
    """
    adapters = adapters or {}
    if reference.startswith("scripted:"):
        refuse_adapters(reference, adapters)
        return [Scripted.parse(reference)]
    if options.base_url or provider(reference):
        from harness.models.openai import OpenAI

        refuse_adapters(reference, adapters)
        return [await OpenAI.open(reference, options)]
    return open_checkpoint(reference, options, adapters)


def open_checkpoint(reference: str, options: ModelOptions, adapters: Mapping[str, Path]) -> list[Model]:
    """Weights on this machine, in vLLM or, where that can't take them, in transformers, which is said aloud."""
    source = find(reference, options)
    options = source.settled(options)
    if source.label in adapters:
        raise UsageError(f"two models are called {source.label!r}", hint="rename a folder: its name is its label")
    folders = {**({source.label: source.adapter} if source.adapter else {}), **adapters}
    way = plan_opening(source, folders, options)
    for note in way.notes:
        progress.say(note)
    base = f"{source.label} (base)" if source.adapter else source.label
    if way.engine == "vllm":
        from harness.models.vllm import Vllm

        models: list[Model] = [*Vllm.open(base, str(source.path), options, way.adapters, way.notes)]
    else:
        from harness.models.hf import Transformers

        models = [*Transformers.open(base, source.path, options, way.adapters, way.notes)]
    return models[1:] if source.adapter else models


def refuse_adapters(reference: str, adapters: Mapping[str, Path]) -> None:
    """Raises UsageError when adapters are asked of something that has no weights here."""
    if adapters:
        raise UsageError(f"{reference} can't take an adapter", hint="--adapter needs a checkpoint on this machine")
