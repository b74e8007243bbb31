"""LoRA adapters: does one fit its base, what rank does an engine need, and can vLLM take it as it is."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError, UsageError
from harness.models import embedded
from harness.models.weights import fingerprint

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM allows as max_lora_rank
WHOLE = re.compile(r"(?:^|\.)(embed_tokens|lm_head)\.(?:weight|base_layer\.weight)$")
FACTOR = re.compile(r"^(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])\.(?:[^.]+\.)?weight$")
CHANGED = re.compile(r"^(?P<module>.+)\.lora_(?:embedding_)?[AB](?:\.|$)")  # FACTOR, and those of embeddings
REFUSED = (
    "use_dora", "lora_bias", "modules_to_save", "alora_invocation_tokens", "trainable_token_indices",
    "layer_replication", "use_qalora", "use_bdlora",
)  # fmt: skip
"""Keys of a config that vLLM refuses at the first request, which on a CPU ends the engine."""
PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")  # the others take their start out of the base


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An adapter's folder and what its adapter_config.json says."""

    folder: Path
    settings: Mapping[str, Any]

    @property
    def base(self) -> str:
        """The base it was trained on, as its config names it; may be a path of another machine."""
        return str(self.settings.get("base_model_name_or_path") or "")

    @property
    def rank(self) -> int:
        """The largest rank of any of its modules."""
        return max([int(self.settings["r"]), *map(int, (self.settings.get("rank_pattern") or {}).values())])

    def weights(self) -> AbstractContextManager[_Safe | _Pickled]:
        """Its weights file, opened. Raises DataError when it can't be read."""
        return opened(weights_file(self.folder) or self.folder)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers it changes, as its tensors say: its config may hold a pattern instead."""
        with self.weights() as file:
            modules = {found["module"] for name in file.shapes() if (found := CHANGED.match(name))}
        return tuple(sorted({"experts" if ".experts" in m else m.rpartition(".")[2] for m in modules}))

    @property
    def init(self) -> str:
        """The way its weights began, where that took part of the base's own away (PiSSA and its kind); else empty."""
        told = self.settings.get("init_lora_weights")
        return told if isinstance(told, str) and told.lower() not in PLAIN_INITS else ""

    @property
    def max_lora_rank(self) -> int:
        """The smallest rank vLLM allows that holds it: 96 needs 128. Raises UsageError when none does."""
        found = next((allowed for allowed in LORA_RANKS if allowed >= self.rank), None)
        if found is None:
            hint = "--engine transformers takes any rank"
            raise UsageError(f"{self.folder.name} has rank {self.rank}: vLLM takes {LORA_RANKS[-1]}", hint=hint)
        return found


def read_adapter(folder: Path) -> Adapter:
    """An adapter by its folder. Raises UsageError when it is none."""
    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        found = Adapter(folder=folder, settings=settings)
        _ = found.rank
    except (OSError, ValueError, KeyError, TypeError) as err:
        hint = "name a folder with adapter_config.json"
        raise UsageError(f"{folder} is not a LoRA adapter: {err}", hint=hint) from err
    if not weights_file(folder):
        raise DataError(f"{folder} holds no adapter_model.safetensors", hint="is the download whole?")
    return found


def weights_file(folder: Path) -> Path | None:
    """The adapter's weights, in the newer or the older form."""
    return next((p for n in ("safetensors", "bin") if (p := folder / f"adapter_model.{n}").exists()), None)


def check_fit(adapter: Adapter, base: Path) -> tuple[str, ...]:
    """Notes on an adapter and its base: raises UsageError when shapes or tokenizers don't fit.

    Only headers are read, so a 70B takes no longer. A quantised base has other shapes: only tokenizers count there.
    """
    notes = [*check_tokenizer(adapter.folder, base)]
    with adapter.weights() as file:
        wanted = {name: tuple(shape) for name, shape in file.shapes().items()}
    have = shapes_of(base)
    if not have or "quantization_config" in object_in(base / "config.json"):
        return tuple(notes)
    for name, shape in wanted.items():
        if (found := FACTOR.match(name)) is None or len(shape) != 2:
            continue
        side, module = found["side"], found["module"]
        there = have.get(f"{module}.weight")
        if there is None and module == "lm_head" and tied(base):
            there = next((found for name, found in have.items() if name.endswith("embed_tokens.weight")), None)
        fits = there is not None and shape[side == "A"] == there[side == "A"]
        if not fits:
            why = f"{shape[side == 'A']} wide, the base's {there[side == 'A']}" if there else "missing in the base"
            hint = f"its config names {adapter.base}: --model {adapter.base}" if adapter.base else "name its own base"
            raise UsageError(f"{adapter.folder.name} was not trained on {base.name}: {module} is {why}", hint=hint)
    return tuple(notes)


def check_tokenizer(folder: Path, base: Path) -> Iterator[str]:
    """Notes on an adapter's own tokenizer. Raises UsageError where it gives the base's tokens other numbers."""
    ours, theirs = vocabulary(folder), vocabulary(base)
    if not ours or not theirs:
        return
    moved = [token for token, number in theirs.items() if ours.get(token, number) != number]
    lost = [token for token in theirs if token not in ours]
    if moved or len(lost) > len(theirs) // 100:
        n = len(moved) + len(lost)
        why = f"{folder.name} has another tokenizer than {base.name}: {n:,} tokens differ"
        raise UsageError(why, hint="is it the base that the adapter was trained on?")
    if added := [token for token in ours if token not in theirs]:
        shown = ", ".join(added[:3])
        yield f"{folder.name} adds {len(added)} tokens to its base's ({shown}); prompts are built with the base's"


def vocabulary(folder: Path) -> dict[str, int]:
    """Every token and its number out of a tokenizer.json; empty where there is none."""
    told = object_in(folder / "tokenizer.json")
    model = told.get("model", {}).get("vocab") or {}
    if isinstance(model, list):  # unigram: pairs of token and score
        model = {token: number for number, (token, _) in enumerate(model)}
    return {**model, **{t["content"]: t["id"] for t in told.get("added_tokens") or ()}}


def object_in(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def for_vllm(adapter: Adapter, base: Path, *, on_cpu: bool = False) -> tuple[Path | None, str]:
    """A folder that vLLM can open, and a note; None where it can't take this adapter at all.

    peft saves whole embeddings into an adapter whose tokenizer had grown (a padding token does it), and vLLM
    refuses such a file. Where these are the base's own rows plus new ones, a copy without them says the same.
    """
    if key := beyond_vllm(adapter, on_cpu=on_cpu):
        return None, f"vLLM takes no adapter with {key}: {adapter.folder.name} runs in transformers, which is slower"
    file = weights_file(adapter.folder)
    assert file is not None
    with opened(file) as read:
        whole = {name: found[1] for name in read.shapes() if (found := WHOLE.search(name))}
        if not whole:
            return adapter.folder, ""
        for name, module in whole.items():
            if not same_rows(read.tensor(name), base, module):
                return None, (
                    f"{adapter.folder.name} retrains {module}, which vLLM can't take: it runs in transformers, "
                    "which is slower"
                )
        kept = {name: read.tensor(name) for name in read.shapes() if name not in whole}
    return stripped(adapter, kept), f"{adapter.folder.name}: the base's embeddings it carries are left out for vLLM"


def beyond_vllm(adapter: Adapter, *, on_cpu: bool) -> str:
    """What an adapter has that vLLM can't do; empty where there is nothing."""
    settings = adapter.settings
    if found := next((key for key in REFUSED if settings.get(key)), ""):
        return found
    if settings.get("bias", "none") != "none":
        return f"bias={settings['bias']!r}"
    if adapter.init:
        return f"init_lora_weights={adapter.init!r}"
    return "factors of lm_head on a CPU" if on_cpu and "lm_head" in adapter.layers else ""


def rewrites(adapter: Adapter, base: Path) -> str:
    """What peft would write into the base itself to load this adapter, in words; empty where it leaves it alone.

    Switching the adapter off does not undo it, so that the base and other adapters would answer with it as well.
    """
    if adapter.init:
        return f"was begun with init_lora_weights={adapter.init!r}, and peft takes that start out of the base's weights"
    if adapter.settings.get("layer_replication"):
        return "repeats layers of the base"
    apart = [f".{name}." for name in adapter.settings.get("modules_to_save") or ()]  # each adapter has its own
    with adapter.weights() as file:
        for name in file.shapes():
            if CHANGED.match(name) or any(module in name for module in apart):
                continue
            if name.endswith(".bias"):
                return "retrains biases of the base"
            whole = WHOLE.search(name)
            if whole and not same_rows(file.tensor(name), base, whole[1]):
                return f"carries other {whole[1]} than the base's"
    return ""


def grown_to(folder: Path) -> int:
    """How many rows the embeddings have that an adapter carries whole; 0 where it carries none."""
    file = weights_file(folder)
    if file is None:
        return 0
    with opened(file) as read:
        return max((shape[0] for name, shape in read.shapes().items() if WHOLE.search(name)), default=0)


def stripped(adapter: Adapter, tensors: Mapping[str, Any]) -> Path:
    """A copy of an adapter with these tensors only, kept in the cache under the adapter's own name."""
    from safetensors.torch import save_file

    home = embedded.cache_dir() / "adapters" / fingerprint(adapter.folder)
    folder = home / adapter.folder.name
    if not folder.exists():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as scratch:
            fresh = Path(scratch) / "fresh"
            fresh.mkdir()
            shutil.copy(adapter.folder / "adapter_config.json", fresh)
            save_file({k: v.contiguous() for k, v in tensors.items()}, fresh / "adapter_model.safetensors")
            fresh.rename(folder)
    return folder


def same_rows(tensor: Any, base: Path, module: str) -> bool:
    """Whether a saved embedding begins with the base's own, to the precision it was saved in."""
    import torch

    files = sorted(base.glob("*.safetensors")) or sorted(base.glob("pytorch_model*.bin"))
    for path in files:
        with opened(path) as file:
            names = [name for name in file.shapes() if name.split(".")[-2:] == [module, "weight"]]
            if names:
                own = file.tensor(names[0])
                rows = tensor[: own.shape[0]]
                return rows.shape == own.shape and bool(torch.equal(rows, own.to(rows.dtype)))
    if module == "lm_head" and tied(base):
        return same_rows(tensor, base, "embed_tokens")
    return False  # a GGUF file: not shown to be the same


def tied(base: Path) -> bool:
    """Whether a checkpoint without an lm_head of its own uses its embeddings as one."""
    return bool(object_in(base / "config.json").get("tie_word_embeddings", True))


def shapes_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a folder's safetensors files; empty where there are none."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with opened(path) as file:
            found |= file.shapes()
    return found


@dataclass(frozen=True, slots=True)
class _Safe:
    """A safetensors file, opened: headers without reading weights."""

    file: Any

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor."""
        return {name: tuple(self.file.get_slice(name).get_shape()) for name in self.file.keys()}  # noqa: SIM118

    def tensor(self, name: str) -> Any:
        """One tensor."""
        return self.file.get_tensor(name)


@dataclass(frozen=True, slots=True)
class _Pickled:
    """An older .bin file, read as weights only."""

    tensors: Mapping[str, Any]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def tensor(self, name: str) -> Any:
        """One tensor."""
        return self.tensors[name]


@contextmanager
def opened(path: Path) -> Iterator[_Safe | _Pickled]:
    """A weights file of either form. Raises DataError when it can't be read."""
    if path.suffix == ".bin":
        import torch

        yield _Pickled(torch.load(path, map_location="cpu", weights_only=True))
        return
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield _Safe(file)
    except (SafetensorError, OSError) as err:
        raise DataError(f"{path.name} in {path.parent} can't be read: {err}", hint="is the download whole?") from err
