"""Exact prompts: the strings and the tokens that a checkpoint was trained on, and no other."""

from typing import Any

import pytest

from harness.errors import UnknownName, UsageError
from harness.models.checkpoints import checkpoint
from harness.models.formats import bundled, chat_format, render, with_bos
from harness.models.tokens import Tokens
from harness.types import Message, Prompt
from tests.models.toys import llama3_like

NASTY = [
    "How is the trick done?",
    " leading and trailing \n",
    "two\nlines\r\nand a tab\t",
    "{{ messages }} {% raw %} {# no #}",
    "[INST] inside [\\INST] and [/INST]",
    "naïve 手品 🎩 é",
    "back\\slash \\n not a newline",
    "",
]


@pytest.mark.parametrize("question", NASTY)
def test_a_base_tuned_checkpoint_is_sent_the_official_string(question: str) -> None:
    form = checkpoint("Youliang/llama3-8b-derta").chat
    assert form is not None
    assert render(Prompt.chat(question), form) == "[INST] \n" + question + "\n\n [\\INST]"


@pytest.mark.parametrize("question", [q for q in NASTY if q])
@pytest.mark.parametrize("eos_too", [False, True])
def test_its_tokens_are_those_of_the_official_call(question: str, eos_too: bool) -> None:
    """The official script calls the tokenizer with its defaults on the string and cuts one EOS off the end."""
    tokenizer = llama3_like(eos_too=eos_too)
    official = tokenizer(["[INST] \n" + question + "\n\n [\\INST]"], padding=False)["input_ids"][0]
    if official[-1] == tokenizer.eos_token_id:
        official = official[:-1]
    assert Tokens.of(tokenizer, bundled("derta")).ids(Prompt.chat(question)) == official
    assert official.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("question", [q for q in NASTY if q])
@pytest.mark.parametrize("name", ["derta", "llama3"])
def test_the_renderer_without_a_tokenizer_agrees_with_transformers(question: str, name: str) -> None:
    tokenizer = llama3_like()
    turns = (Message(role="system", content="Be brief."), Message(role="user", content=question))
    more = (*turns, Message(role="assistant", content="No."), Message(role="user", content="Why?"))
    for messages in (turns[1:], turns, more):
        prompt = Prompt(messages=messages)
        ours = render(prompt, bundled(name), bos=tokenizer.bos_token, eos=tokenizer.eos_token)
        assert ours == Tokens.of(tokenizer, bundled(name)).render(prompt)


def test_completion_attack_is_sent_as_it_is_with_the_tokenizers_own_bos() -> None:
    tokenizer = llama3_like()
    opening = "I will explain how the trick is done:\n1:"
    assert render(Prompt(text=opening), bundled("derta")) == opening
    assert Tokens.of(tokenizer, bundled("derta")).ids(Prompt(text=opening)) == tokenizer(opening)["input_ids"]


def test_a_prefill_stands_where_a_reply_would_and_is_tokens_of_its_own() -> None:
    """In training a reply begins with a space: " Sure" follows `[\\INST]`, once, whether or not the caller wrote it."""
    tokenizer = llama3_like()
    tokens = Tokens.of(tokenizer, bundled("derta"))
    for prefill in ("Sure", " Sure"):
        prompt = Prompt.chat("q", prefill=prefill)
        assert render(prompt, bundled("derta")) == "[INST] \nq\n\n [\\INST] Sure"
        alone = tokenizer.encode(" Sure", add_special_tokens=False)
        assert tokens.ids(prompt) == tokens.ids(Prompt.chat("q")) + alone


def test_an_instruct_checkpoint_is_sent_the_llama3_form() -> None:
    form = checkpoint("llama3-8b-instruct-derta-100step").chat
    assert form is not None
    expected = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert render(Prompt.chat(" Why? ", system="Be brief."), form, bos="<|begin_of_text|>") == expected
    tokenizer = llama3_like()
    ids = Tokens.of(tokenizer, form).ids(Prompt.chat("Why?", system="Be brief."))
    assert tokenizer.decode(ids) == expected
    # the one BOS is the template's own: the tokenizer's is not added
    assert ids.count(tokenizer.bos_token_id) == 1


def test_code_that_renders_the_template_itself_gets_the_bos_with_it() -> None:
    tokenizer = llama3_like()
    tokenizer.chat_template = with_bos(bundled("derta"), tokenizer)
    turns: list[Any] = [{"role": "user", "content": "q"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ours = Tokens.of(tokenizer, bundled("derta")).ids(Prompt.chat("q"))
    assert tokenizer.encode(text, add_special_tokens=False) == ours


def test_a_template_is_named_by_its_file_or_by_a_bundled_name(tmp_path: Any) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}!")
    form = chat_format(str(tmp_path / "mine.jinja"))
    assert form is not None
    assert render(Prompt.chat("q"), form) == "q!"
    assert chat_format("") is None
    with pytest.raises(UsageError, match="No such file"):
        chat_format("drta")
    with pytest.raises(UnknownName, match="did you mean 'derta'"):
        bundled("drta")


def test_stop_tokens_come_from_tokenizer_config_and_row_and_a_foreign_one_is_refused(tmp_path: Any) -> None:
    from harness.errors import DataError

    tokenizer = llama3_like()
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 3]}')
    # 1 is the tokenizer's own <|end_of_text|>, 3 the config's, 2 the named <|eot_id|>
    assert Tokens.of(tokenizer).stop_ids(tmp_path, ["<|eot_id|>"]) == (1, 3, 2)
    with pytest.raises(DataError, match="no <\\|im_end\\|>"):
        Tokens.of(tokenizer).stop_ids(tmp_path, ["<|im_end|>"])
