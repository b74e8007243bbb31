"""Checks of a reply that need no judge: pure functions of the reply and of what was asked for.

An item of `instructions.jsonl` lists its checks as text: a name, or a name and an argument as in "bullets: 3".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

Check = Callable[[str, str], bool]


def followed(reply: str, check: str) -> bool:
    """Whether a reply passes one check. An empty reply passes none. Raises KeyError for an unknown check."""
    name, _, argument = check.partition(": ")
    passes = CHECKS[name]
    return bool(reply.strip()) and passes(reply.strip(), argument)


def words(text: str) -> list[str]:
    """The words of a text, in lower case; "ice-cream" and "don't" are one each."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())


def sentences(text: str) -> list[str]:
    """The sentences of a text, cut where a full stop, question or exclamation mark ends one."""
    return [part for part in re.split(r"(?<=[.!?])[\"'”’)]*\s+", text.strip()) if words(part)]


def one_word(reply: str, _: str) -> bool:
    """Exactly one word; a full stop may follow it."""
    return len(words(reply)) == 1


def yes_or_no(reply: str, answer: str) -> bool:
    """Just "yes" or "no", and the right one of the two."""
    return words(reply) == [answer]


def number_only(reply: str, answer: str) -> bool:
    """Just the number, in digits; a full stop may follow it."""
    return reply.removesuffix(".") == answer


def exact(reply: str, text: str) -> bool:
    """The given text and nothing else."""
    return reply == text


def lower_case(reply: str, _: str) -> bool:
    """Letters, none of them a capital."""
    return reply.islower()


def upper_case(reply: str, _: str) -> bool:
    """Letters, all of them capitals."""
    return reply.isupper()


def bullets(reply: str, count: str) -> bool:
    """Exactly so many lines that begin with a bullet; other lines may stand around them."""
    return _lines(reply, r"[-*•]\s+\S") == int(count)


def numbered(reply: str, count: str) -> bool:
    """Exactly so many lines that begin with a number; other lines may stand around them."""
    return _lines(reply, r"\d+[.)]\s+\S") == int(count)


def lines(reply: str, count: str) -> bool:
    """Exactly so many lines that are not blank."""
    return _lines(reply, r"\S") == int(count)


def comma_list(reply: str, count: str) -> bool:
    """One line of so many parts between commas, each of one or two words."""
    parts = reply.removesuffix(".").split(",")
    return "\n" not in reply and len(parts) == int(count) and all(1 <= len(words(part)) <= 2 for part in parts)


def starts_with(reply: str, text: str) -> bool:
    """The first words, whatever their case and marks."""
    wanted = words(text)
    return words(reply)[: len(wanted)] == wanted


def ends_with(reply: str, text: str) -> bool:
    """The last words, whatever their case and marks."""
    wanted = words(text)
    return words(reply)[-len(wanted) :] == wanted


def contains(reply: str, word: str) -> bool:
    """The word, or its plural in -s, somewhere."""
    return bool({word, f"{word}s"} & set(words(reply)))


def avoids(reply: str, word: str) -> bool:
    """The word nowhere, not even as a part of another."""
    return word not in reply.lower()


def no_commas(reply: str, _: str) -> bool:
    """No comma at all."""
    return "," not in reply


def max_words(reply: str, count: str) -> bool:
    """At most so many words."""
    return 0 < len(words(reply)) <= int(count)


def min_words(reply: str, count: str) -> bool:
    """At least so many words."""
    return len(words(reply)) >= int(count)


def sentence_count(reply: str, count: str) -> bool:
    """Exactly so many sentences."""
    return len(sentences(reply)) == int(count)


def paragraphs(reply: str, count: str) -> bool:
    """Exactly so many blocks of text with a blank line between them."""
    return len([block for block in re.split(r"\n\s*\n", reply) if words(block)]) == int(count)


def quoted(reply: str, _: str) -> bool:
    """One pair of double quotation marks around the whole reply."""
    return bool(re.fullmatch(r"[\"“][^\"“”]+[\"”]", reply)) and bool(words(reply))


def question(reply: str, _: str) -> bool:
    """One sentence, and it is a question."""
    return reply.endswith("?") and len(sentences(reply)) == 1


def json_keys(reply: str, keys: str) -> bool:
    """A JSON object with exactly these keys; a code fence around it is allowed."""
    fenced = re.fullmatch(r"```(?:json)?\s*\n(.*)\n\s*```", reply, re.DOTALL)
    try:
        value = json.loads(fenced[1] if fenced else reply)
    except (ValueError, RecursionError):  # a model may well write a thousand brackets
        return False
    return isinstance(value, dict) and set(value) == set(keys.split(", "))


def _lines(reply: str, start: str) -> int:
    return sum(bool(re.match(start, line.strip())) for line in reply.splitlines())


CHECKS: dict[str, Check] = {
    "one_word": one_word,
    "yes_or_no": yes_or_no,
    "number_only": number_only,
    "exact": exact,
    "lower_case": lower_case,
    "upper_case": upper_case,
    "bullets": bullets,
    "numbered": numbered,
    "lines": lines,
    "comma_list": comma_list,
    "starts_with": starts_with,
    "ends_with": ends_with,
    "contains": contains,
    "avoids": avoids,
    "no_commas": no_commas,
    "max_words": max_words,
    "min_words": min_words,
    "sentences": sentence_count,
    "paragraphs": paragraphs,
    "quoted": quoted,
    "question": question,
    "json_keys": json_keys,
}
