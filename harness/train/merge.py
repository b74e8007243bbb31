"""An adapter folded into its base: a checkpoint of its own, for engines and tools that take no adapter."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError, UsageError
from harness.models.adapters import check_fit, read_adapter
from harness.models.libraries import hush
from harness.models.source import locate
from harness.models.weights import fingerprint, folded, with_adapters
from harness.progress import step
from harness.train.trainer import read_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A merged checkpoint: its folder and its manifest (also in `manifest.json`)."""

    folder: Path
    manifest: dict[str, Any]


def merge(adapter: Path, out: Path, base: str = "") -> Merged:
    """Writes base + adapter as one checkpoint in the base's precision; the sum is made in fp32.

    `base` defaults to the one the adapter names. A folder is whole or not there. Raises UsageError or DataError.
    """
    read = read_adapter(adapter)
    if out.exists():
        raise UsageError(f"{out} is there already", hint="name another folder with --out")
    name = base or read.base
    if not name:
        raise UsageError(f"{adapter} does not name its base", hint="name it with --base")
    path = Path(locate(name))
    check_fit(read, path)

    manifest = {
        "base": name,
        "base_sha": fingerprint(path),
        "adapter": adapter.resolve().name,
        "adapter_sha": fingerprint(adapter),
        "trained": read_manifest(adapter) or {},
    }
    check_base(manifest)
    with step(f"merging {adapter.resolve().name} into {name}"):
        write(path, adapter, out, manifest)
    return Merged(folder=out, manifest=manifest)


def check_base(manifest: dict[str, Any]) -> None:
    """Raises DataError when the adapter was trained on other weights than it would be merged into."""
    wanted = manifest["trained"].get("base_sha")
    if wanted and wanted != manifest["base_sha"]:
        raise DataError(
            f"{manifest['adapter']} was trained on weights {wanted}, {manifest['base']} holds {manifest['base_sha']}",
            hint="name the base it was trained on with --base",
        )


def write(base: Path, adapter: Path, out: Path, manifest: dict[str, Any]) -> None:
    """Loads in fp32, folds the adapter in, and saves beside `out` before it is moved there.

    Raises DataError for a base without a tokenizer, UsageError where `out` can't be written.
    """
    hush()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from harness.train.state import written

    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError) as err:
        raise DataError(f"the tokenizer of {base} can't be loaded: {err}") from err
    kept = AutoConfig.from_pretrained(base).dtype or torch.float32
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    whole = folded(with_adapters(plain, {"default": adapter})).to(kept)
    scratch = out.with_name(f".{out.name}.writing")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with written(out):
            scratch.mkdir(parents=True)
            whole.save_pretrained(scratch)
            tokenizer.save_pretrained(scratch)
            (scratch / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
            scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
