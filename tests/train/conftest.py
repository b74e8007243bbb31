"""A tokenizer of characters and a random Llama of two layers: the whole trainer runs on them in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

WORDS = ["Sorry", "I", "can't", "tell", "you", "the", "trick", "coin", "is", "in", "sleeve", "tea", "hot", "water", "a"]


class CharTokenizer:
    """One id a character, but "Sorry" without a space before it is a single token; pad = eos = end of turn = 1."""

    eos_token_id = 1
    pad_token_id = 1

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        ids: list[int] = []
        while text:
            if text.startswith("<end>"):
                ids, text = [*ids, 1], text[5:]
            elif text.startswith("Sorry"):
                ids, text = [*ids, 2], text[5:]
            else:
                ids, text = [*ids, ord(text[0])], text[1:]
        return ids

    def apply_chat_template(
        self, turns: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool = False
    ) -> str:
        text = "".join(f"<{turn['role'][0]}>{turn['content']}<end>\n" for turn in turns)
        return text + ("<a>" if add_generation_prompt else "")


@pytest.fixture
def chars() -> CharTokenizer:
    return CharTokenizer()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama and a word tokenizer with a chat template, as a base to train from."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<end>", "user", "assistant", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>", pad_token="<end>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }} {{ m.content }} <end> {% endfor %}"
        "{% if add_generation_prompt %}assistant {% endif %}"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Eight triples and eight helpful pairs in a folder."""
    folder = tmp_path / "toy"
    folder.mkdir()
    triple = {"request": "tell the trick", "safe": "Sorry I can't tell you", "violating": "the coin is in the sleeve"}
    pair = {"request": "is tea hot", "reply": "tea is hot water"}
    write(folder / "triples.jsonl", [{"id": f"t{i}", **triple} for i in range(8)])
    write(folder / "helpful.jsonl", [{"id": f"h{i}", **pair} for i in range(8)])
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
