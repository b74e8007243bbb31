"""From text to rows: token ids, and for each position the token it is to predict next. No torch here.

Traps this module exists to avoid: pad = eos = end of turn in many tokenizers, so labels are masked by position
and never by id; "Sorry" is one token and " Sorry" another (or two), so replies are tokenised apart from what
stands before them; a reply cut at a length limit gets no end of turn, since it would teach a wrong one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from harness.errors import UsageError
from harness.train.data import Helpful, Instance, Triple

IGNORE = -100
Part: TypeAlias = Literal["mle", "rto", "helpful", "dpo", "away"]
Template: TypeAlias = Literal["chat", "inst"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sequence: `labels[i]` is the token that position i should predict next, or IGNORE."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    part: Part
    source: str = ""  # id of the triple or pair it was made of

    @property
    def supervised(self) -> int:
        """How many positions carry a label."""
        return sum(label != IGNORE for label in self.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A safe and a violating reply to the same request, for DPO."""

    chosen: Row
    rejected: Row


Item: TypeAlias = Row | Pair


def rows_of(item: Item) -> tuple[Row, ...]:
    """The rows an item is made of: one, or two for a pair."""
    return (item,) if isinstance(item, Row) else (item.chosen, item.rejected)


def refusal_token(tokenizer: Any, word: str = "Sorry") -> int:
    """The id of the one token that opens a refusal: 19701 for Llama-3. Raises UsageError where it takes several."""
    ids = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1:
        raise UsageError(
            f"the refusal word {word!r} is {len(ids)} tokens in this tokenizer; RTO needs exactly one",
            hint="set `refusal` in the recipe to a word that is one token, such as 'Sorry', 'No' or 'I'",
        )
    return int(ids[0])


class Encoder:
    """Turns requests and replies into ids under a chat template, or under the paper's `[INST]` form."""

    def __init__(
        self, tokenizer: Any, template: Template = "chat", refusal: str = "Sorry", *, block: int | None = None
    ) -> None:
        self.tokenizer, self.template, self.block = tokenizer, template, block
        self.refusal = refusal_token(tokenizer, refusal)
        self.end = self.end_of_turn()

    def end_of_turn(self) -> int:
        """The token that closes a reply: read off the chat template, else the end of text. Raises UsageError."""
        if self.template == "chat":
            turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "@@"}]
            from jinja2 import TemplateError

            try:
                whole = self.tokenizer.apply_chat_template(turns, tokenize=False)
            except (ValueError, TemplateError) as err:
                why = f"the base has no chat template for a question and its answer: {err}"
                raise UsageError(why, hint="train it in the paper's form: --set template=inst") from err
            tail = whole.rpartition("@@")[2].strip()
            ids = self.text(tail)
            if ids:
                return ids[0]
        if self.tokenizer.eos_token_id is None:
            raise UsageError("the tokenizer has no end-of-text token to end replies with", hint="name one in its files")
        return int(self.tokenizer.eos_token_id)

    def text(self, text: str) -> list[int]:
        """Plain ids: no token added at either end."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def prompt(self, request: str) -> list[int]:
        """Ids up to where the reply begins. The backslash in the `inst` form is as the paper's code writes it."""
        if self.template == "chat":
            turns = [{"role": "user", "content": request}]
            return self.text(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        return self.start() + self.text(f"[INST] {request} [\\INST] ")

    def context(self, pair: Triple | Helpful) -> list[int]:
        """Ids of a pair's request: a chat, or plain text that the reply goes on from."""
        return self.start() + self.text(pair.request) if pair.raw else self.prompt(pair.request)

    def start(self) -> list[int]:
        """What the tokenizer puts before raw text, if anything."""
        added = list(self.tokenizer.encode(""))
        return added if len(added) == 1 else []

    def row(self, context: Sequence[int], reply: Sequence[int], part: Part, source: str, *, ends: bool = True) -> Row:
        """MLE: the reply's own tokens (and the end of the turn) are the labels; the context has none."""
        whole = [*context, *reply, *([self.end] if ends else [])]
        labels = [IGNORE] * (len(context) - 1) + whole[len(context) :]
        return Row(ids=tuple(whole[:-1]), labels=tuple(labels), part=part, source=source)

    def helpful(self, pair: Helpful) -> Row:
        """A request that is answered, as a chat or, for a raw opening, as a text that goes on."""
        return self.row(self.context(pair), self.text(pair.reply), "helpful", pair.id, ends=not pair.cut)

    def safe(self, triple: Triple, words: int = 0) -> Row:
        """MLE on the safe reply after the first `words` words of the violating one, which carry no label."""
        context = self.context(triple) + self.text(first_words(triple.violating, words))
        return self.row(context, self.text(triple.safe), "mle", triple.id)

    def rto(self, triple: Triple, keep: float, rng: random.Random) -> Row:
        """RTO on the violating reply: the refusal token is the label at every position, or at a share of them."""
        context = self.context(triple)
        return self.relabel(self.row(context, self.text(triple.violating), "rto", triple.id), keep, rng)

    def relabel(self, row: Row, keep: float, rng: random.Random) -> Row:
        """Puts the refusal token in the place of every label in the block, then keeps `keep` of them, at least one."""
        places = [i for i, label in enumerate(row.labels[: self.block]) if label != IGNORE]
        kept = set(rng.sample(places, min(len(places), max(1, round(keep * len(places))))))
        labels = tuple(self.refusal if i in kept else IGNORE for i in range(len(row.ids)))
        return Row(ids=row.ids, labels=labels, part="rto", source=row.source)

    def pair(self, triple: Triple, words: int = 0) -> Pair:
        """Safe against violating, both from the same point of the violating reply (0 words: from its start)."""
        opening = first_words(triple.violating, words)
        context = self.context(triple) + self.text(opening)
        rest = self.text(triple.violating[len(opening) :])
        return Pair(
            chosen=self.row(context, self.text(triple.safe), "dpo", triple.id),
            rejected=self.row(context, rest, "dpo", triple.id),
        )

    def attacked(self, triple: Triple, suffix: str, target: str) -> Pair:
        """The request with a suffix: towards the safe reply, and away from `target`, the violating one's opening."""
        context = self.prompt(triple.request + suffix)
        return Pair(
            chosen=self.row(context, self.text(triple.safe), "mle", triple.id),
            rejected=self.row(context, self.text(target), "away", triple.id, ends=False),
        )

    def instance(self, instance: Instance, keep: float, rng: random.Random) -> Row:
        """A row of the official files: `prefix` is read, `text` is supervised; RTO where they say so."""
        context = self.start() + self.text(instance.prefix.rstrip() + " ")
        row = self.row(context, self.text(instance.text), "mle", instance.id)
        return self.relabel(row, keep, rng) if instance.rto else row


def first_words(text: str, words: int) -> str:
    """The first `words` words of a text with the white space between them, and none after."""
    spans = list(re.finditer(r"\S+", text))
    return text[: spans[words - 1].end()] if 0 < words <= len(spans) else ("" if words < 1 else text)


def draw_prefix(text: str, empty: float, rng: random.Random) -> int:
    """How many words of a violating reply to show: none in a share `empty`, else uniform over 1..its length."""
    length = len(text.split())
    return 0 if rng.random() < empty or not length else rng.randint(1, length)


def fit(row: Row, block: int) -> Row | None:
    """The row cut to `block` tokens; None where no label would be left."""
    cut = Row(ids=row.ids[:block], labels=row.labels[:block], part=row.part, source=row.source)
    return cut if cut.supervised else None
