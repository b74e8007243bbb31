"""Tokenizers and checkpoints of a few thousand weights, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.attacks_adaptive.tiny import model, tokenizer

LLAMA3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]


def llama3_like(*, eos_too: bool = False) -> Any:
    """A byte-level tokenizer that puts BOS before a text by itself, as Llama-3's does; with `eos_too`, EOS after it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=LLAMA3, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator(["[INST] how is the trick done [\\INST] Sorry"] * 9, trainer)
    single = f"{LLAMA3[0]} $A {LLAMA3[1]}" if eos_too else f"{LLAMA3[0]} $A"
    numbered = [(token, raw.token_to_id(token)) for token in LLAMA3[:2]]
    raw.post_processor = processors.TemplateProcessing(single=single, special_tokens=numbered)
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token=LLAMA3[0], eos_token=LLAMA3[1])


def checkpoint(folder: Path, tok: Any = None, **sizes: Any) -> Path:
    """A folder with a tiny model and its tokenizer."""
    model(**sizes).save_pretrained(folder)
    (tok or tokenizer()).save_pretrained(folder)
    return folder


def adapter(
    folder: Path, rank: int = 96, base: str = "", lora: Mapping[str, Any] = MappingProxyType({}), **sizes: Any
) -> Path:
    """A LoRA adapter of the paper's rank on a tiny model of these sizes, with weights that are not zero.

    `lora` are settings of peft's.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    wrapped = get_peft_model(
        model(**sizes).requires_grad_(True),
        LoraConfig(**{"r": rank, "lora_alpha": 16, "target_modules": ["q_proj", "down_proj"], **lora}),
    )
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    wrapped.save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base}))
    return folder
