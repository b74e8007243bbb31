"""Checkpoints as files: their identity, and their weights as a torch module."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.models.libraries import hush

if TYPE_CHECKING:
    from harness.models.options import ModelOptions

SAMPLE = 8 * 2**20  # bytes hashed at each end of a weights file


def fingerprint(folder: Path) -> str:
    """Identifies a checkpoint: sha256 over its files' names, sizes, and both ends of each (8 MiB a file).

    Whole files of a 70B would take minutes to read; an edit that keeps size and both ends is not seen.
    """
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}:{size}:".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE))
            if size > 2 * SAMPLE:
                file.seek(-SAMPLE, 2)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:16]


def parameters(folder: Path) -> int:
    """How many parameters the safetensors files of a folder hold; 0 where there are none."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def load_weights(path: str, adapter: Path | None, options: ModelOptions) -> tuple[Any, Any]:
    """The torch module in eval mode, its parameters frozen, and its tokenizer; the adapter merged in."""
    hush()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trust = options.trust_remote_code
    dtype = "auto" if options.dtype == "auto" else getattr(torch, options.dtype)
    module = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, trust_remote_code=trust)
    if adapter is not None:
        from peft import PeftModel

        module = PeftModel.from_pretrained(module, str(adapter)).merge_and_unload()
    module = module.to("cuda" if torch.cuda.is_available() else "cpu").eval().requires_grad_(False)
    return module, AutoTokenizer.from_pretrained(path, trust_remote_code=trust)
