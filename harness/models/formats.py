"""Chat formats: how messages become the exact text, and the exact tokens, that a checkpoint was trained on.

`render` needs neither weights nor a tokenizer, so what a run would send can be proven without one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ModelError, UnknownName, UsageError
from harness.types import Prompt

HOME = Path(__file__).parent / "templates"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """A chat template, and what the template alone doesn't say."""

    name: str
    template: str  # jinja
    specials: bool = False  # the template has no BOS: the tokenizer puts its own before the rendered text
    lead: str = ""  # opens every reply in training, so a prefill begins with it


BUNDLED: dict[str, dict[str, Any]] = {"derta": {"specials": True, "lead": " "}, "llama3": {}}
"""`harness/models/templates/NAME.jinja`, and what the template doesn't say."""


@functools.cache
def bundled(name: str) -> ChatFormat:
    """A bundled format. Raises UnknownName."""
    if name not in BUNDLED:
        raise UnknownName("chat format", name, BUNDLED)
    return ChatFormat(name=name, template=(HOME / f"{name}.jinja").read_text(encoding="utf-8"), **BUNDLED[name])


def chat_format(named: str) -> ChatFormat | None:
    """What `--chat-template` means: a bundled format's name, a jinja file, or nothing. Raises UsageError."""
    if not named:
        return None
    if named in BUNDLED:
        return bundled(named)
    try:
        return ChatFormat(name=Path(named).name, template=Path(named).read_text(encoding="utf-8"))
    except OSError as err:
        hint = f"a jinja file, or one of: {', '.join(BUNDLED)}"
        raise UsageError(f"--chat-template {named}: {err.strerror}", hint=hint) from err
    except UnicodeDecodeError as err:
        raise UsageError(f"--chat-template {named} is not UTF-8") from err


def render(prompt: Prompt, form: ChatFormat, *, bos: str = "", eos: str = "") -> str:
    """The exact text that a prompt becomes, its prefill included; a raw prompt is its own text.

    `bos` and `eos` are the tokenizer's, for templates that write them. Raises ModelError when the template
    rejects the messages.
    """
    if prompt.text is not None:
        return prompt.text + prompt.prefill
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    try:
        text = _compiled(form.template).render(messages=turns, add_generation_prompt=True, bos_token=bos, eos_token=eos)
    except Exception as err:  # jinja raises whatever the template's author chose
        raise ModelError(f"the chat template rejects this prompt: {err}") from err
    return str(text) + opened(prompt.prefill, form)


def opened(prefill: str, form: ChatFormat | None) -> str:
    """A prefill as it stands after the rendered prompt: with the format's lead before it, once."""
    lead = form.lead if form else ""
    return prefill if not prefill or not lead or prefill.startswith(lead) else lead + prefill


def with_bos(form: ChatFormat, tokenizer: Any) -> str:
    """The template for code that renders it and adds no special tokens itself: BOS written in, where one is due."""
    puts = form.specials and tokenizer.bos_token and list(tokenizer.encode(""))[:1] == [tokenizer.bos_token_id]
    return "{{- bos_token -}}" + form.template if puts else form.template


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    """A template in the sandbox and with the settings that transformers uses."""
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    sandbox.globals["raise_exception"] = refuse
    return sandbox.from_string(template)
