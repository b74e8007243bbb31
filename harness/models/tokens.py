"""Between text and tokens: chat templates, prefills, and where each token of a reply ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError, ModelError, UsageError
from harness.models.formats import ChatFormat, opened
from harness.types import Prompt, sha


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """A tokenizer with the chat format that a checkpoint was trained on (its own template, or a named format)."""

    tokenizer: Any
    chat: ChatFormat | None

    @classmethod
    def of(cls, tokenizer: Any, chat: ChatFormat | None = None) -> Tokens:
        """The tokenizer with its own template, unless a format is given."""
        own = tokenizer.chat_template
        return cls(
            tokenizer=tokenizer, chat=chat or (ChatFormat(name="own", template=own) if isinstance(own, str) else None)
        )

    def ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt. Chat: the rendered template, which brings its own BOS unless the format says that
        the tokenizer does; raw: as the tokenizer does.

        A prefill is encoded on its own and appended, so that k tokens of it are k tokens in the prompt.
        Raises ModelError when the template rejects the messages.
        """
        if prompt.text is not None:
            return self.encode(prompt.text + prompt.prefill, special=True)
        rendered = self.render(prompt)
        specials = self.chat is not None and self.chat.specials
        return self.encode(rendered, special=specials) + self.encode(opened(prompt.prefill, self.chat))

    def render(self, prompt: Prompt) -> str:
        """The chat messages as text, up to where the assistant begins to speak."""
        if self.chat is None:
            raise UsageError(
                "this checkpoint has no chat template", hint="name one: --chat-template derta, llama3 or a jinja file"
            )
        turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
        try:
            text = self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, chat_template=self.chat.template
            )
        except Exception as err:  # jinja raises whatever the template's author chose
            raise ModelError(f"the chat template rejects this prompt: {err}") from err
        return str(text)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text; with `special`, the tokenizer's own around it, less an end of text: we go on there."""
        if not text:
            return []
        ids = list(self.tokenizer.encode(text, add_special_tokens=special))
        return ids[:-1] if special and ids[-1:] == [self.tokenizer.eos_token_id] else ids

    def stop_ids(self, path: Path, named: Sequence[str] = ()) -> tuple[int, ...]:
        """Ids that end a reply: the tokenizer's, those of the folder's generation config, and those named.

        A fine-tune often keeps the tokenizer of its base, whose end of text its chat format never writes. Raises
        DataError for a named token that the tokenizer lacks: it is another checkpoint's.
        """
        found = [self.tokenizer.eos_token_id, *configured_ends(path)]
        for token in named:
            number = self.tokenizer.convert_tokens_to_ids(token)
            if number is None or self.tokenizer.convert_ids_to_tokens(number) != token:
                hint = "is it the tokenizer that this checkpoint was trained with?"
                raise DataError(f"the tokenizer has no {token}, which ends this checkpoint's replies", hint=hint)
            found.append(number)
        return tuple(dict.fromkeys(int(i) for i in found if i is not None))

    def head(self, text: str, k: int) -> str:
        """The first `k` tokens of `text`, as text."""
        return str(self.tokenizer.decode(self.encode(text)[:k], skip_special_tokens=False)) if k > 0 else ""

    def after(self, context: Sequence[int], ids: Sequence[int]) -> str:
        """The text of a reply as it follows its prompt: some tokenizers drop a space that a text begins with."""
        before = self._plain(context[-4:])
        whole = self._plain([*context[-4:], *ids])
        return whole[len(before) :] if whole.startswith(before) else self._plain(ids)

    def _plain(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

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
        return {"tokenizer_sha": sha(vocabulary), "chat_template_sha": sha(self.chat.template if self.chat else "")}


def configured_ends(path: Path) -> list[int]:
    """The end tokens that a folder's generation_config.json names; none where there is no such file."""
    try:
        told = json.loads((path / "generation_config.json").read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError):
        return []
    return told if isinstance(told, list) else [told] if isinstance(told, int) else []
