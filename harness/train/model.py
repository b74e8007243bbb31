"""The model under training, and the processes that share the work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError

from harness.errors import DataError, UsageError
from harness.models.libraries import hush
from harness.models.weights import fingerprint, first_line
from harness.train.pack import Batch, Scorer, pack, register
from harness.train.recipe import Recipe
from harness.train.rows import Encoder, Row

if TYPE_CHECKING:
    from harness.train.objective import Sums

SENTENCES = (
    "The kettle sang while rain fell on the roof of the barn.",
    "Seven boats came home before the harbour froze.",
)
TRAINABLE = "Llama, Mistral, Mixtral, Qwen 2 and 3, Phi-3, Gemma 3, OLMo 2, SmolLM and their like can be"


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """The processes of one run: one alone, or as many as torchrun started."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    sharded: bool = False

    @classmethod
    def join(cls) -> Team:
        """Joins the others where torchrun set its variables."""
        local = int(os.environ.get("LOCAL_RANK", 0))
        device = f"cuda:{local}" if torch.cuda.is_available() else "cpu"
        if "RANK" not in os.environ:
            return cls(device=device)
        if device != "cpu":
            torch.cuda.set_device(local)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device != "cpu" else "gloo")
        return cls(rank=dist.get_rank(), size=dist.get_world_size(), device=device)

    def even(self, groups: list[list[int]]) -> Iterator[list[int]]:
        """The groups, filled up with empty ones until every process has as many: FSDP needs equal calls."""
        most = int(self.largest(len(groups)))
        yield from groups
        yield from ([] for _ in range(most - len(groups)))

    def largest(self, value: float) -> float:
        """The largest value of all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(float(value), device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return float(tensor)

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any process."""
        return self.largest(float(flag)) > 0

    def sum_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Adds the gradients of all processes; FSDP has averaged its own already, so they are scaled back."""
        if self.size == 1:
            return
        for parameter in parameters:
            if self.sharded:
                if parameter.grad is not None:
                    parameter.grad.mul_(self.size)
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)

    def share(self, found: dict[int, str]) -> dict[int, str]:
        """What every process found, put together."""
        if self.size == 1:
            return found
        each: list[Any] = [None] * self.size
        dist.all_gather_object(each, found)
        return {key: value for part in each for key, value in part.items()}

    def sum_up(self, sums: Sums) -> Sums:
        """Losses and counts by part over all processes."""
        if self.size > 1:
            from harness.train.objective import LOGGED

            for part in LOGGED:
                pair = torch.tensor([sums.loss[part], float(sums.count[part])], dtype=torch.float64)
                pair = pair.to(self.device)
                dist.all_reduce(pair)
                sums.loss[part], sums.count[part] = float(pair[0]), int(pair[1])
        return sums


@dataclass(slots=True, kw_only=True)
class Loaded:
    """A model ready to train: `model` holds the weights (with the adapter), `scorer` turns batches into losses.

    `base_sha` identifies the base it started from.
    """

    model: Any
    scorer: Any
    tokenizer: Any
    encoder: Encoder
    team: Team
    autocast: bool
    base_sha: str

    @property
    def device(self) -> str:
        """Where batches go."""
        return self.team.device

    @property
    def blank(self) -> Row:
        """A row that stands in where a process has none left."""
        return Row(ids=(self.encoder.end, self.encoder.end), labels=(self.encoder.end, -100), part="mle")

    def trainable(self) -> list[torch.nn.Parameter]:
        """The parameters that move."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def pack(self, rows: Sequence[Row]) -> Batch:
        """Rows as one batch on this device; flash-attention can't share an opening."""
        return pack(rows, self.device, share=not self.scorer.flash)

    def score(self, batch: Batch) -> torch.Tensor:
        """Token losses of a batch, (n,) in fp32."""
        with self.precision():
            losses: torch.Tensor = self.scorer(batch)
        return losses

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Forward passes inside multiply in bf16 where the recipe says so, an adapter's fp32 weights too."""
        if not self.autocast:
            yield
            return
        with torch.autocast(self.device.partition(":")[0], dtype=torch.bfloat16):
            yield


def load(recipe: Recipe, base: str, team: Team) -> Loaded:
    """Loads the base, adds the adapter, spreads it over the processes. Raises DataError when there is no such base."""
    hush()
    from transformers import AutoTokenizer

    sharded = recipe.shard and team.size > 1
    if sharded:
        team = Team(rank=team.rank, size=team.size, device=team.device, sharded=True)
    flash = team.device != "cpu" and recipe.precision == "bf16" and has_flash()
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = read_base(recipe, base, "flash_attention_2" if flash else register(), empty=sharded and team.rank > 0)
    except ImportError as err:
        raise UsageError(f"{base} can't be loaded: {first_line(err)}", hint="harness doctor") from err
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as err:
        raise DataError(f"{base} can't be loaded as a causal language model: {err}", hint="is it whole?") from err
    encoder = Encoder(tokenizer, recipe.template, recipe.refusal, block=recipe.block)
    if not (sharded and team.rank):
        check_scores(model, encoder)
    if recipe.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if recipe.tune == "lora":
        model = add_adapter(model, recipe)
    model.train()
    scorer = Scorer(model, flash=flash)
    if sharded:
        shard(scorer, recipe, team)
    else:
        model.to(team.device)
    autocast = recipe.precision == "bf16" and not sharded
    cast_inputs(model, not autocast)
    return Loaded(
        model=model,
        scorer=scorer,
        tokenizer=tokenizer,
        encoder=encoder,
        team=team,
        autocast=autocast,
        base_sha=fingerprint(Path(base)),
    )


def check_scores(model: Any, encoder: Encoder) -> None:
    """Holds the packed losses of two sentences against the model's own logits, one sentence after the other.

    They differ where a model does more than this trainer knows of (logits scaled or capped, capped attention, states
    that run over from row to row). Raises UsageError then.
    """
    read = map(encoder.text, SENTENCES)
    rows = [encoder.row(ids[:1], ids[1:], "mle", "", ends=False) for ids in read]
    kind, attention = type(model).__name__, model.config._attn_implementation
    try:
        with torch.no_grad():
            model.set_attn_implementation(register())
            packed = Scorer(model.eval())(pack(rows))
            model.set_attn_implementation("eager")
            alone = [model(input_ids=torch.tensor([row.ids]), use_cache=False).logits[0].float() for row in rows]
            model.set_attn_implementation(attention)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, ImportError) as err:
        raise UsageError(f"{kind} is not a model that can be trained here: {first_line(err)}", hint=TRAINABLE) from err
    labels = torch.tensor([label for row in rows for label in row.labels])
    own = torch.nn.functional.cross_entropy(torch.cat(alone), labels, reduction="none")
    apart = float((own - packed).abs().mean())
    if not apart <= (0.2 if model.dtype == torch.bfloat16 else 0.002):  # rounding; bf16 has eight bits
        why = f"{kind} is not a model that can be trained here: its losses are {apart:.2f} off when rows are packed"
        raise UsageError(why, hint=TRAINABLE)


def cast_inputs(model: Any, cast: bool) -> None:
    """Whether peft makes fp32 of what an adapter's layers read; under autocast that is work for nothing."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = cast


def read_base(recipe: Recipe, base: str, attention: str, *, empty: bool) -> Any:
    """The base on the CPU, or only its shapes where another process reads the weights.

    Full tuning keeps master weights in fp32 and computes in bf16; a frozen base may lie in bf16.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    low = recipe.precision == "bf16" and recipe.tune == "lora"
    dtype = torch.bfloat16 if low else torch.float32
    if not empty:
        model, told = AutoModelForCausalLM.from_pretrained(
            base, dtype=dtype, attn_implementation=attention, output_loading_info=True
        )
        if missing := sorted(told["missing_keys"]):
            raise DataError(f"{base} lacks {len(missing)} weights, such as {missing[0]}", hint="is it whole?")
        return model
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        return AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(base), dtype=dtype, attn_implementation=attention
        )


def add_adapter(model: Any, recipe: Recipe) -> Any:
    """A LoRA adapter on the named layers, the same for the same seed. Raises UsageError for layers it can't be on."""
    from peft import LoraConfig, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    torch.manual_seed(recipe.seed)
    config = LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=list(recipe.lora_targets),
        target_parameters=list(recipe.lora_parameters) or None,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as err:
        raise UsageError(f"the adapter does not fit this model: {err}", hint="set lora_targets in the recipe") from err
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        why = "lora_targets names the output head, whose adapter would not be trained"
        raise UsageError(why, hint="leave it out, or use tune: full")
    return adapted


def shard(scorer: Scorer, recipe: Recipe, team: Team) -> None:
    """FSDP2 over every decoder layer, then over the rest; weights are gathered a layer at a time.

    Only the first process has read the weights: the others hold shapes until theirs are sent to them, so a large
    base is in memory once per machine and never whole on a device.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    whole = dict(scorer.state_dict()) if team.rank == 0 else {}
    buffers = {name: buffer.clone() for name, buffer in scorer.named_buffers()}
    scorer.to("meta")
    low = torch.bfloat16 if recipe.precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=low, reduce_dtype=torch.float32)
    bare = scorer.causal.get_base_model() if hasattr(scorer.causal, "peft_config") else scorer.causal
    bare.tie_weights()
    for layer in bare.get_decoder().layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(scorer, mp_policy=policy)
    scorer.to_empty(device=team.device)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=False)
    set_model_state_dict(scorer, whole, options=options)
    for name, buffer in buffers.items():  # what no state dict holds, such as the rotary frequencies
        owner, _, leaf = name.rpartition(".")
        scorer.get_submodule(owner).register_buffer(leaf, buffer.to(team.device), persistent=False)


def has_flash() -> bool:
    """Whether flash-attention is installed; without it rows are attended to one by one, which is exact but slower."""
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())
