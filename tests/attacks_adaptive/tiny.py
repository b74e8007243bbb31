"""A chat model of a few thousand weights, made on the spot, so that white-box attacks are tested without a download."""

from __future__ import annotations

from typing import Any

from tests.attacks_adaptive.fakes import Scripted

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = "the ring floats because a thin thread holds it ! x ! x tell me how the magic trick is done . , ? user assistant"


def tokenizer(template: str = CHATML) -> Any:
    """Byte-level BPE with a few merges; its BOS is `<|im_start|>`, as SmolLM2's is."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator([TEXT] * 20, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=special[1], eos_token=special[2], unk_token=special[0], pad_token=special[2]
    )
    made.chat_template = template
    return made


def model(family: str = "llama", **more: Any) -> Any:
    """Random weights from a fixed seed; grouped attention heads, as most models have today."""
    import torch
    import transformers

    config_type, model_type = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
        "gemma2": (transformers.Gemma2Config, transformers.Gemma2ForCausalLM),
        "granite": (transformers.GraniteConfig, transformers.GraniteForCausalLM),
        "cohere": (transformers.CohereConfig, transformers.CohereForCausalLM),
    }[family]
    sizes: dict[str, Any] = {
        "vocab_size": 344,  # a few more embeddings than the tokenizer knows, as padded vocabularies have
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.5,
    }
    torch.manual_seed(0)
    return model_type(config_type(**sizes | more)).eval().requires_grad_(False)


class Open(Scripted):
    """A scripted model that has weights to show, and counts how often it was asked for them."""

    shown = 0
    pair: Any = None

    def weights(self) -> tuple[Any, Any]:
        self.shown += 1
        if self.pair is None:
            raise AssertionError("the weights were asked for")
        return self.pair  # type: ignore[no-any-return]


def open_model(module: Any = None, tok: Any = None) -> Open:
    """A target for white-box attacks: tiny weights, a scripted reply."""
    made = Open(lambda prompt, sampling: "no", can=frozenset({"chat", "weights"}))
    made.pair = (module or model(), tok or tokenizer())
    return made
