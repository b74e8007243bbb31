"""What AutoDAN breeds prompts with: crossing, selection and word swaps, as pure functions of a seeded generator.

A prompt is a text with `{request}` in it exactly once; nothing here loses or doubles that place.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

SLOT = "{request}"
SENTENCE = re.compile(r".*?(?:[.!?:]+(?=\s)|\n|$)\s*", re.DOTALL)
WORD = re.compile(r"\{request\}|[A-Za-z]{4,}")  # shorter words carry no persona


def units(text: str) -> list[str]:
    """A text's sentences, or its words where it is a single sentence; joined they are the text again."""
    sentences = [part for part in SENTENCE.findall(text) if part]
    return sentences if len(sentences) > 1 else re.findall(r"\S+\s*|\s+", text)


def one_slot(text: str) -> str:
    """The text with the request's place in it exactly once: the last of several, or a new one at the end."""
    parts = text.split(SLOT)
    if len(parts) == 1:
        return f"{text.rstrip()}\n\n{SLOT}"
    return "".join(parts[:-1]) + SLOT + parts[-1]


def crossed(rng: random.Random, one: str, other: str, points: int) -> tuple[str, str]:
    """Two children that take turns in their parents' parts, cut at `points` places or as many as there are."""
    pairs = units(one), units(other)
    shorter = min(map(len, pairs))
    if shorter < 2:
        return one, other
    at = sorted(rng.sample(range(1, shorter), min(points, shorter - 1)))
    pieces = []
    for parts in pairs:
        cuts = [0, *(round(cut * len(parts) / shorter) for cut in at), len(parts)]
        pieces.append(["".join(parts[a:b]) for a, b in itertools.pairwise(cuts)])
    turns = [pair if i % 2 == 0 else pair[::-1] for i, pair in enumerate(zip(*pieces, strict=True))]
    return one_slot("".join(first for first, _ in turns)), one_slot("".join(second for _, second in turns))


def roulette(rng: random.Random, population: Sequence[str], losses: Sequence[float], count: int) -> list[str]:
    """`count` parents, each drawn with the softmax of the current generation's fitness, the negative loss."""
    lowest = min(losses)
    return rng.choices(population, [math.exp(lowest - loss) for loss in losses], k=count)


def learned(
    words: Mapping[str, float], population: Sequence[str], losses: Sequence[float], keep: int
) -> dict[str, float]:
    """The momentum dictionary: each word's mean fitness now, averaged with what it had; the best `keep` of them."""
    now: dict[str, list[float]] = defaultdict(list)
    for text, loss in zip(population, losses, strict=True):
        for word in {w.lower() for w in WORD.findall(text) if w != SLOT}:
            now[word].append(-loss)
    fresh = dict(words)
    for word, scores in now.items():
        mean = sum(scores) / len(scores)
        fresh[word] = (fresh[word] + mean) / 2 if word in fresh else mean
    return dict(sorted(fresh.items(), key=lambda item: (-item[1], item[0]))[:keep])


def swapped(
    rng: random.Random, text: str, words: Mapping[str, float], near: Callable[[str, str], bool], most: int
) -> str:
    """The text with at most `most` of its words changed to near ones of the dictionary, the better the likelier."""
    found = [match for match in WORD.finditer(text) if match[0] != SLOT]
    rng.shuffle(found)
    changes: dict[int, tuple[int, str]] = {}
    for match in found:
        if len(changes) == most:
            break
        old = match[0].lower()
        options = [word for word in words if word != old and near(old, word)]
        if options:
            best = max(words[word] for word in options)
            new = rng.choices(options, [math.exp(words[word] - best) for word in options])[0]
            changes[match.start()] = match.end(), new.capitalize() if match[0][0].isupper() else new
    out, at = [], 0
    for start in sorted(changes):
        end, new = changes[start]
        out += [text[at:start], new]
        at = end
    return "".join([*out, text[at:]])
