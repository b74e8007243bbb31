"""An adapter folded into its base: a checkpoint of its own, for engines and tools that take no adapter."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError, UsageError
from harness.models.libraries import hush
from harness.models.source import locate
from harness.progress import step


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """A merged checkpoint: its folder and its manifest (also in `manifest.json`)."""

    folder: Path
    manifest: dict[str, Any]


def merge(adapter: Path, out: Path, base: str = "") -> Merged:
    """Writes base + adapter as one checkpoint in the base's precision; the sum is made in fp32.

    `base` defaults to the one the adapter names. A folder is whole or not there. Raises UsageError or DataError.
    """
    settings = read_settings(adapter)
    if out.exists():
        raise UsageError(f"{out} is there already", hint="name another folder with --out")
    name = base or str(settings.get("base_model_name_or_path") or "")
    if not name:
        raise UsageError(f"{adapter} does not name its base", hint="name it with --base")
    path = Path(locate(name))
    from harness.models.weights import fingerprint

    manifest = {
        "base": name,
        "base_sha": fingerprint(path),
        "adapter": adapter.resolve().name,
        "adapter_sha": fingerprint(adapter),
        "trained": trained(adapter),
    }
    check_base(manifest)
    with step(f"merging {adapter.resolve().name} into {name}"):
        write(path, adapter, out, manifest)
    return Merged(folder=out, manifest=manifest)


def read_settings(adapter: Path) -> dict[str, Any]:
    """What `adapter_config.json` says. Raises UsageError when the folder is no LoRA adapter."""
    try:
        settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        hint = "name a folder with adapter_config.json and adapter_model.safetensors"
        raise UsageError(f"{adapter} is not a LoRA adapter: {err}", hint=hint) from err
    return dict(settings)


def trained(adapter: Path) -> dict[str, Any]:
    """The adapter's own manifest, where our trainer made it; empty for one from elsewhere."""
    path = adapter / "manifest.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def check_base(manifest: dict[str, Any]) -> None:
    """Raises DataError when the adapter was trained on other weights than it would be merged into."""
    wanted = manifest["trained"].get("base_sha")
    if wanted and wanted != manifest["base_sha"]:
        raise DataError(
            f"{manifest['adapter']} was trained on weights {wanted}, {manifest['base']} holds {manifest['base_sha']}",
            hint="name the base it was trained on with --base",
        )


def write(base: Path, adapter: Path, out: Path, manifest: dict[str, Any]) -> None:
    """Loads in fp32, folds the adapter in, and saves beside `out` before it is moved there."""
    hush()
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    kept = AutoConfig.from_pretrained(base).dtype or torch.float32
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    whole = PeftModel.from_pretrained(plain, str(adapter)).merge_and_unload().to(kept)
    scratch = out.with_name(f".{out.name}.writing")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        whole.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(base).save_pretrained(scratch)
        (scratch / "manifest.json").write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
        scratch.rename(out)
    except OSError as err:
        raise UsageError(f"{out} can't be written: {err.strerror}", hint="name another folder with --out") from err
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
