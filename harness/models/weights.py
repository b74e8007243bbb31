"""Checkpoints as files: their identity, and their weights as a torch module."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError, UsageError
from harness.models.formats import with_bos
from harness.models.libraries import hush, silence

if TYPE_CHECKING:
    from harness.models.options import ModelOptions

CPUINFO = Path("/proc/cpuinfo")
SAMPLE = 8 * 2**20  # bytes hashed at each end of a weights file


def fingerprint(checkpoint: Path) -> str:
    """Identifies a checkpoint: sha256 over its files' names, sizes, and both ends of each (8 MiB a file).

    A folder, or a single GGUF file; hidden files and folders don't count. Whole files of a 70B would take minutes to
    read; an edit that keeps size and both ends is not seen.
    """
    digest = hashlib.sha256()
    inside = [checkpoint] if checkpoint.is_file() else checkpoint.rglob("*")
    home = checkpoint.parent if checkpoint.is_file() else checkpoint
    shown = (p for p in inside if not any(part.startswith(".") for part in p.relative_to(home).parts))
    for path in sorted(p for p in shown if p.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(home)}:{size}:".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE))
            if size > 2 * SAMPLE:
                file.seek(-SAMPLE, 2)
            digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:16]


def parameters(folder: Path) -> int:
    """How many parameters the safetensors files of a folder hold; 0 where there are none.

    bitsandbytes packs two 4-bit weights into a byte and keeps its scales beside them, which are not parameters.
    """
    from math import prod

    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                if ".weight." not in name and not name.endswith((".SCB", ".weight_format")):
                    total += prod(part.get_shape()) * (2 if part.get_dtype() == "U8" else 1)
    return total


def load_tokenizer(path: Path, options: ModelOptions) -> Any:
    """The tokenizer of a checkpoint: a folder, or a GGUF file. Raises DataError when there is none."""
    hush()
    from transformers import AutoTokenizer

    home, inside = (path.parent, {"gguf_file": path.name}) if path.is_file() else (path, {})
    try:
        return AutoTokenizer.from_pretrained(home, trust_remote_code=options.trust_remote_code, **inside)
    except (OSError, ValueError, KeyError, ImportError) as err:
        hint = "copy the tokenizer's files of its base beside the weights"
        raise DataError(f"{path.name} has no tokenizer that can be read: {first_line(err)}", hint=hint) from err


def load_module(path: Path, options: ModelOptions, *, steady: bool = False) -> Any:
    """The torch module in eval mode, its parameters frozen, on the accelerator if there is one.

    `steady` asks for float32 on a CPU where no precision is named: in bf16 a row's arithmetic changes with the size of
    its batch by enough to turn near ties. Quantised weights stay as they are; a GGUF is dequantised.
    Raises UsageError or DataError: what to install, or what is wrong with the file.
    """
    hush()
    import torch
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    home = path.parent if path.is_file() else path
    inside: dict[str, Any] = {"gguf_file": path.name} if path.is_file() else {}
    if on_gpu and torch.cuda.device_count() > 1 and options.tensor_parallel > 1:
        inside |= {"device_map": "auto", "max_memory": shares(options)}
    elif on_gpu:
        inside |= {"device_map": "cuda"}
    try:
        with silence():
            module = AutoModelForCausalLM.from_pretrained(
                home,
                dtype=precision(options, steady=steady and not on_gpu),
                trust_remote_code=options.trust_remote_code,
                **inside,
            )
    except ImportError as err:
        package = next((p for p in ("bitsandbytes", "gguf", "accelerate") if p in str(err)), "")
        hint = f"pip install {package}" if package else "harness doctor"
        raise UsageError(f"{path.name} can't be opened: {first_line(err)}", hint=hint) from err
    except (OSError, ValueError, RuntimeError, KeyError, NotImplementedError) as err:
        raise DataError(f"transformers can't open {path.name}: {first_line(err)}", hint="is it whole?") from err
    return module.eval().requires_grad_(False)


def shares(options: ModelOptions) -> dict[int, int]:
    """Bytes that each of the GPUs asked for may hold; layers are spread over them, one after another."""
    import torch

    found = range(min(options.tensor_parallel, torch.cuda.device_count()))
    return {i: int(torch.cuda.get_device_properties(i).total_memory * options.gpu_memory) for i in found}


def precision(options: ModelOptions, *, steady: bool) -> Any:
    """The dtype asked for; `auto` is the checkpoint's own, or float32. Raises UsageError for a name that is none."""
    import torch

    if options.dtype != "auto":
        found = getattr(torch, options.dtype, None)
        if not isinstance(found, torch.dtype):
            raise UsageError(f"--dtype {options.dtype} is no precision", hint="auto, float32, bfloat16 or float16")
        return found
    return torch.float32 if steady else "auto"


def bf16_in_hardware() -> bool:
    """Whether this CPU multiplies bf16 faster than float32.

    With neither instruction it is several times slower. Intel's avx512_bf16 alone (a virtual machine may hide AMX)
    takes 1.4 to 1.8 times as long as float32 (benchmarks/bf16.py); AMD's was not measured.
    """
    info = CPUINFO.read_text(errors="replace") if CPUINFO.exists() else ""
    return "amx_bf16" in info or ("avx512_bf16" in info and "AuthenticAMD" in info)


def first_line(err: BaseException) -> str:
    """The first line of what a library said."""
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:300]


def load_weights(path: str, adapter: Path | None, options: ModelOptions) -> tuple[Any, Any]:
    """The torch module and its tokenizer, which carries the run's chat format; the adapter merged in.

    Where no precision is named, a CPU that does not multiply bf16 itself gets float32, as the engine does.
    """
    tokenizer = load_tokenizer(Path(path), options)
    module = load_module(Path(path), options, steady=not bf16_in_hardware())
    if adapter is not None:
        module = folded(with_adapters(module, {"default": adapter})).eval().requires_grad_(False)
    return module, dressed(tokenizer, options)


def dressed(tokenizer: Any, options: ModelOptions) -> Any:
    """The tokenizer with the chat format that the run uses, for code that renders its template itself."""
    if options.chat is not None:
        tokenizer.chat_template = with_bos(options.chat, tokenizer)
    return tokenizer


def with_adapters(module: Any, adapters: Mapping[str, Path]) -> Any:
    """A module with LoRA adapters on it, by name. Raises UsageError when one does not fit.

    An adapter that saved embeddings for a tokenizer that had grown needs as many rows in the module.
    """
    from peft import PeftModel

    from harness.models.adapters import grown_to

    if rows := max((grown_to(folder) for folder in adapters.values()), default=0):
        module.resize_token_embeddings(max(rows, module.get_input_embeddings().weight.shape[0]))
    placed = None
    for name, folder in adapters.items():
        try:
            if placed is None:
                placed = PeftModel.from_pretrained(module, str(folder), adapter_name=name)
            else:
                placed.load_adapter(str(folder), adapter_name=name)
        except (RuntimeError, ValueError, KeyError, OSError) as err:
            hint = "is it the base that the adapter was trained on?"
            raise UsageError(f"{folder.name} can't be put on its base: {first_line(err)}", hint=hint) from err
    return placed.eval().requires_grad_(False) if placed is not None else module


def folded(placed: Any) -> Any:
    """The module of `with_adapters` with its one adapter merged in.

    Where it changes one of two tied ends, embeddings or output layer, they are untied: else the other would change too.
    """
    import torch

    module = placed.get_base_model()
    ends = module.get_input_embeddings(), module.get_output_embeddings()
    first, last = (getattr(end, "base_layer", end) for end in ends)
    if (first, last) != ends and last is not None and first.weight is last.weight:
        last.weight = torch.nn.Parameter(last.weight.detach().clone(), requires_grad=False)
        module.config.get_text_config().tie_word_embeddings = module.config.tie_word_embeddings = False
    return placed.merge_and_unload()
