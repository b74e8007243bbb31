"""What a reference names: the files of a checkpoint on this machine, their kind, and which engine can open them."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.errors import DataError, UnknownName, UsageError
from harness.models import embedded
from harness.models.adapters import Adapter, check_fit, for_vllm, object_in, read_adapter, rewrites
from harness.models.checkpoints import Checkpoint, Kind, checkpoints, known
from harness.models.hub import bare, from_hub, from_url, hub_id, is_url
from harness.models.options import ModelOptions
from harness.models.scripted import POLICIES

BUNDLED = Path(__file__).parents[1] / "train" / "adapters"
PLUGIN = "vllm_bnb_plugin"  # since 0.32 vLLM opens bitsandbytes checkpoints with it only
HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")  # owner/name, with a revision or without
SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A checkpoint on this machine. `path` is a folder, or a GGUF file; of a LoRA adapter, it is the base's."""

    label: str
    asked: str  # how the files at `path` were asked for
    path: Path
    kind: Kind = "full"
    adapter: Path | None = None
    row: Checkpoint | None = None

    def settled(self, options: ModelOptions) -> ModelOptions:
        """The options, with what is known of this checkpoint where the user named nothing."""
        row = self.row or Checkpoint(id=self.label)
        return replace(
            options,
            chat=options.chat or row.chat,
            stop=options.stop or (() if options.chat else row.stop),
            tensor_parallel=options.tensor_parallel or row.gpus,
        )


def find(reference: str, options: ModelOptions) -> Source:
    """The files a reference names, fetched when they are missing: a known checkpoint, hub id, folder, GGUF or URL.

    Raises UnknownName, UsageError or DataError with what to type next.
    """
    row = known(reference, options.checkpoints)
    if row is not None and row.kind == "lora":
        return on_base(label_of(row.id), locate(row.source), row.base, row, options)
    at = locate(row.source if row else reference)
    label = label_of(row.id if row else reference)
    if (at / "adapter_config.json").exists() and not (at / "config.json").exists():
        return on_base(label, at, read_adapter(at).base, row, options)
    kind = kind_of(at)
    if row is not None and row.kind != kind:
        raise DataError(f"{row.id} is known as {row.kind}, but what lies at {at} is {kind}", hint="correct its row")
    return Source(label=label, asked=row.id if row else reference, path=at, kind=kind, row=row)


def on_base(label: str, folder: Path, base: str, row: Checkpoint | None, options: ModelOptions) -> Source:
    """An adapter with its base, which is found in the same way. Raises UsageError when the base can't be had."""
    if not base:
        raise UsageError(f"{label} is an adapter that names no base", hint=f"--model BASE --adapter {folder}")
    try:
        below = find(base, options)
    except (UnknownName, DataError) as err:
        hint = f"{err.hint}; or name the base yourself: --model BASE --adapter {folder}"
        raise UsageError(f"{label} is an adapter on {base}: {err}", hint=hint) from err
    if below.adapter is not None:
        raise UsageError(
            f"{label} is an adapter on {base}, which is an adapter itself", hint="merge the lower one first"
        )
    return replace(below, label=label, adapter=folder, row=row or below.row)


def bundled() -> list[str]:
    """The adapters that ship, by name."""
    return sorted(path.name for path in BUNDLED.glob("*") if (path / "adapter_config.json").is_file())


def find_adapter(reference: str, options: ModelOptions) -> tuple[str, Path]:
    """Label and folder of what `--adapter` names: a folder, a bundled adapter, a known LoRA checkpoint or a hub id.

    Raises UnknownName.
    """
    if reference in bundled() and not Path(reference).is_dir():
        return reference, BUNDLED / reference
    row = known(reference, options.checkpoints)
    if row is not None:
        if row.kind != "lora":
            raise UsageError(f"{row.id} is no adapter: it is {row.kind}", hint=f"--model {row.id}")
        return label_of(row.id), locate(row.source)
    if not Path(reference).expanduser().is_dir() and not HUB.fullmatch(reference):
        names = bundled()
        lora = [id for id, row in checkpoints(options.checkpoints).items() if row.kind == "lora"]
        hint = f"a folder, a hub id, or one of: {', '.join([*names, *lora])}"
        raise UnknownName("adapter", reference, [*names, *lora], hint=hint)
    return label_of(reference), locate(reference)


def label_of(reference: str) -> str:
    """What a checkpoint is called in reports: the last part of its name, without a revision; of a URL, of its path."""
    if is_url(reference):
        return Path(urlsplit(reference).path).name or urlsplit(reference).hostname or ""
    if HUB.fullmatch(reference.partition(":")[0]) and not Path(reference).exists():  # a revision may hold a slash
        reference = reference.partition("@")[0]
    name = Path(reference).name
    return name.partition("@")[0] or name or reference


def locate(reference: str) -> Path:
    """The folder (or GGUF file) of a checkpoint: the embedded one, a path, a URL, or a hub id that is fetched."""
    if reference == embedded.NAME:
        return embedded.ensure()
    if is_url(reference):
        found = hub_id(reference)
        return locate(found) if found else inside(from_url(reference))
    path = Path(reference).expanduser()
    if path.is_dir() or path.is_file():
        return inside(path)
    repo, _, file = reference.partition(":")
    if not HUB.fullmatch(repo):
        names = [embedded.NAME, *checkpoints(), *(f"scripted:{policy}" for policy in POLICIES)]
        hint = "a hub id (owner/name), a folder, a .gguf file, a URL, or a name of: harness ls models"
        raise UnknownName("model", reference, names, hint=hint)
    return inside(from_hub(repo, file=file))


def inside(path: Path) -> Path:
    """A folder that holds a checkpoint or an adapter, or the one GGUF that it holds. Raises DataError."""
    if path.is_file():
        if path.suffix != ".gguf":
            raise DataError(f"{path} is no checkpoint", hint="name its folder, or a .gguf file")
    elif not (path / "config.json").exists() and not (path / "adapter_config.json").exists():
        found = sorted(path.glob("*.gguf"))
        if len(found) > 1:
            hint = f"name one: {', '.join(p.name for p in found[:6])}"
            raise DataError(f"{path} holds {len(found)} GGUF files", hint=hint)
        if not found:
            raise DataError(
                f"{path} holds no config.json: not a checkpoint", hint="GGUF on the hub: owner/name:FILE.gguf"
            )
        path = found[0]
    if SPLIT.search(path.name):
        raise DataError(f"{path.name} is one part of a split GGUF", hint="merge the parts first: gguf-split --merge")
    return path


def kind_of(path: Path) -> Kind:
    """What lies there, by its config."""
    if path.is_file():
        return "gguf"
    told: dict[str, Any] = object_in(path / "config.json").get("quantization_config") or {}
    if told.get("quant_method") == "bitsandbytes" or told.get("load_in_4bit") or told.get("load_in_8bit"):
        return "bnb-8bit" if told.get("load_in_8bit") else "bnb-4bit"
    return "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How a checkpoint will be opened, with which adapters, and what the report has to say about it."""

    engine: str  # vllm or transformers
    adapters: dict[str, Path]
    notes: tuple[str, ...] = ()


def plan_opening(source: Source, adapters: dict[str, Path], options: ModelOptions) -> Opening:
    """Chooses the engine and checks the adapters, before anything is loaded. Raises UsageError: what to install."""
    why = not_in_vllm(source)
    read = {label: read_adapter(folder) for label, folder in adapters.items()}
    notes = [note for one in read.values() for note in fits(one, source)]
    if options.engine == "transformers":
        check_alone(read, source)
        return Opening(engine="transformers", adapters=adapters, notes=tuple(notes))
    from harness.models.vllm import gpu_present

    prepared: dict[str, Path] = {}
    for label, one in read.items():
        folder, note = for_vllm(one, source.path, on_cpu=not gpu_present()) if not why else (one.folder, "")
        why = why or (note if folder is None else "")
        notes += [note] if note and folder is not None else []
        prepared[label] = folder or one.folder
    if why and options.engine == "vllm":
        raise UsageError(f"vLLM can't open this: {why}", hint="--engine transformers")
    if why:
        check_alone(read, source)
        return Opening(engine="transformers", adapters=adapters, notes=(why, *notes))
    return Opening(engine="vllm", adapters=prepared, notes=tuple(notes))


def check_alone(adapters: Mapping[str, Adapter], source: Source) -> None:
    """Raises UsageError where an adapter would change what the base, or another one, answers in transformers."""
    if len(adapters) == 1 and source.adapter is not None:  # nobody asks its base
        return
    for one in adapters.values():
        if found := rewrites(one, source.path):
            hint = f"evaluate it alone: --model {one.folder} (its adapter_config.json has to name its base)"
            if one.init:
                hint += "; or save it with peft's path_initial_model_for_weight_conversion"
            name = one.folder.name
            raise UsageError(f"{name} {found}: transformers can't have the base or others beside it", hint=hint)


def fits(adapter: Adapter, source: Source) -> tuple[str, ...]:
    """Notes on an adapter and the base it is put on. Raises UsageError when they don't belong together."""
    if source.path.is_file():
        return ()
    notes = check_fit(adapter, source.path)
    same = label_of(adapter.base).lower() in ("", label_of(source.asked).lower())
    if same or Path(adapter.base).is_absolute():  # a path of the machine it was trained on says nothing
        return notes
    return (
        *notes,
        f"{adapter.folder.name} names {adapter.base} as its base; its shapes fit {bare(source.asked)}, which it is on",
    )


def not_in_vllm(source: Source) -> str:
    """Why a checkpoint runs in transformers instead, in words for the report; empty when vLLM takes it."""
    if importlib.util.find_spec("vllm") is None:
        return "vLLM is not installed: transformers is used, which is slower"
    if source.kind == "gguf":
        return f"{source.path.name} is a GGUF: it is dequantised and runs in transformers, which is slower than vLLM"
    if not source.kind.startswith("bnb"):
        return ""
    if importlib.util.find_spec(PLUGIN) is None:
        return (
            f"vLLM opens bitsandbytes checkpoints through vllm-bnb-plugin, which is not installed: {source.label} runs "
            "in transformers, which is slower (pip install vllm-bnb-plugin)"
        )
    from harness.models.vllm import gpu_present

    return "" if gpu_present() else f"vLLM runs bitsandbytes on GPUs only: {source.label} runs in transformers"
