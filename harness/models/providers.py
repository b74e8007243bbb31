"""Hosts of API models by prefix: `--model anthropic/NAME` needs no address and knows where the key is."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One row of providers.yaml, whose head says what each field means."""

    name: str
    base_url: str
    key: str
    ignores: tuple[str, ...] = ()


@functools.cache
def providers() -> dict[str, Provider]:
    """Every known host by its prefix."""
    import yaml

    told = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return {n: Provider(name=n, **{**row, "ignores": tuple(row.get("ignores", ()))}) for n, row in told.items()}


def provider(reference: str) -> Provider | None:
    """The host a reference names, or None: `openai/gpt-4.1` does, a hub id does not."""
    prefix, slash, name = reference.partition("/")
    return providers().get(prefix) if slash and name else None


def host_of(reference: str, base_url: str) -> str:
    """Where a model's requests go, and its key with them, less any login; empty for weights on this machine."""
    host = provider(reference)
    at = urlsplit(base_url or (host.base_url or host.name if host else ""))
    return f"{at.scheme}://{at.netloc.rpartition('@')[2]}" if at.netloc else at.path
