"""Between text and tokens: chat templates, prefills, and where each token of a reply ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import ModelError, UsageError
from harness.types import Prompt, sha


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A tokenizer with the chat template that a checkpoint was trained on (its own, or a named override)."""

    tokenizer: Any
    template: str | None

    @classmethod
    def of(cls, tokenizer: Any, template: str | None = None) -> Tokens:
        """The tokenizer with its own template, unless another is given."""
        own = template or tokenizer.chat_template
        return cls(tokenizer=tokenizer, template=own if isinstance(own, str) else None)

    def ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt. Chat: the rendered template, which brings its own BOS; raw: as the tokenizer does.

        A prefill is encoded on its own and appended, so that k tokens of it are k tokens in the prompt.
        Raises ModelError when the template rejects the messages.
        """
        if prompt.text is not None:
            return self.encode(prompt.text + prompt.prefill, special=True)
        return self.encode(self.render(prompt)) + self.encode(prompt.prefill)

    def render(self, prompt: Prompt) -> str:
        """The chat messages as text, up to where the assistant begins to speak."""
        if self.template is None:
            raise UsageError("this checkpoint has no chat template", hint="name one with --chat-template FILE")
        turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
        try:
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, chat_template=self.template
            )
        except Exception as err:  # jinja raises whatever the template's author chose
            raise ModelError(f"the chat template rejects this prompt: {err}") from err
        return str(text)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text, with the tokenizer's own special tokens around it or without."""
        return list(self.tokenizer.encode(text, add_special_tokens=special)) if text else []

    def head(self, text: str, k: int) -> str:
        """The first `k` tokens of `text`, as text."""
        return str(self.tokenizer.decode(self.encode(text)[:k], skip_special_tokens=False)) if k > 0 else ""

    def ends(self, ids: Sequence[int], text: str) -> tuple[int, ...]:
        """The offset in `text` at which each token of `ids` ends.

        Re-encoding the text gives offsets in one fast call and nearly always the same tokens; where it
        does not, each prefix is decoded.
        """
        if not text:
            return (0,) * len(ids)
        if self.tokenizer.is_fast:
            again = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            special = set(self.tokenizer.all_special_ids)
            bare = [i for i in ids if i not in special]
            if list(again["input_ids"]) == bare:
                found = iter(end for _, end in again["offset_mapping"])
                at, ends = 0, []
                for token in ids:
                    at = at if token in special else next(found)
                    ends.append(at)
                return tuple(ends)
        return tuple(
            min(len(text), len(self.tokenizer.decode(ids[: i + 1], skip_special_tokens=True))) for i in range(len(ids))
        )

    def describe(self) -> dict[str, str]:
        """Hashes of the tokenizer (its vocabulary) and of the chat template."""
        vocabulary = sorted(self.tokenizer.get_vocab().items(), key=lambda pair: pair[1])
        return {"tokenizer_sha": sha(vocabulary), "chat_template_sha": sha(self.template or "")}
