"""From what a user types after `--model` to models that answer."""

from __future__ import annotations

from pathlib import Path

from harness.errors import DataError, UnknownName, UsageError
from harness.models import embedded
from harness.models.libraries import hush
from harness.models.options import ModelOptions
from harness.models.scripted import POLICIES, Scripted
from harness.types import Model


async def open_models(reference: str, options: ModelOptions, adapters: dict[str, Path] | None = None) -> list[Model]:
    """The model and, after it, one model for each adapter; those of a checkpoint share one load.

    Raises UsageError or DataError with what to type next when it can't be had.
    """
    adapters = adapters or {}
    if reference.startswith("scripted:"):
        refuse_adapters(reference, adapters)
        return [Scripted.parse(reference)]
    if options.base_url or reference.startswith("openai/"):
        from harness.models.openai import OpenAI

        refuse_adapters(reference, adapters)
        return [await OpenAI.open(reference.removeprefix("openai/"), options)]
    path = locate(reference)
    from harness.models.vllm import Vllm

    return list(Vllm.open(Path(reference).name or reference, path, options, adapters))


def refuse_adapters(reference: str, adapters: dict[str, Path]) -> None:
    """Raises UsageError when adapters are asked of something that has no weights here."""
    if adapters:
        raise UsageError(f"{reference} can't take an adapter", hint="--adapter needs a checkpoint on this machine")


def locate(reference: str) -> str:
    """The local folder of a checkpoint: the embedded one, a folder, or a hub id (downloaded when it is missing)."""
    if reference == embedded.NAME:
        return str(embedded.ensure())
    folder = Path(reference).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise DataError(f"{folder} holds no config.json: not a checkpoint")
        return str(folder)
    if reference.count("/") != 1 or reference.startswith((".", "/", "~")):
        known = [embedded.NAME, *(f"scripted:{policy}" for policy in POLICIES)]
        raise UnknownName(
            "model", reference, known, hint="a hub id (owner/name), a folder, or one of: " + ", ".join(known)
        )
    return from_hub(reference)


def from_hub(repo: str) -> str:
    """Downloads a checkpoint from the model hub, or finds it in its cache. Raises DataError when it can't."""
    hush()
    from huggingface_hub import errors, snapshot_download

    try:
        return str(snapshot_download(repo, ignore_patterns=["*.pth", "*.gguf", "original/*", "*.msgpack", "*.h5"]))
    except errors.GatedRepoError as err:
        raise DataError(f"{repo} is gated", hint="ask for access on its page, then: export HF_TOKEN=...") from err
    except errors.RepositoryNotFoundError as err:
        raise DataError(f"the hub knows no model {repo!r}", hint="private? export HF_TOKEN=...") from err
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as err:
        hint = f"without the hub: --model {embedded.NAME}, or a folder with the checkpoint"
        raise DataError(f"{repo} is not in the local cache and the hub can't be reached", hint=hint) from err
