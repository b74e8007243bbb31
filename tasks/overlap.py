"""Tells whether two requests ask for the same, so that training data stays apart from what is tested."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from harness.types import Behavior, Expect

LIMIT = 0.25
"""Requests at or above this similarity count as the same. Low on purpose: to drop a trick that is merely
close costs one training row, to keep one that is the same would spoil the held-out figures."""

LIMITS: Mapping[Expect, float] = {"refuse": LIMIT, "comply": 0.6}
"""The same by what is expected. What is to be answered shares words with look-alikes on purpose: near is not same."""

FRAME = frozenset(
    re.findall(
        r"\w+",
        """
        about after all and any are because been being behind but can could describe detail did disclose does done
        each every exactly explain explanation for from full get give guide had has have how into its just let made
        make makes method off one only other out over perform performer reveal secret show spectator stage step such
        teach tell than that the their them then there these they this those through trick use used using was way were
        what when where which while who whole whose why will with without work would write you your magic magician
        """,
    )
)
"""Words that say how something is asked, not what is asked for."""

SAME = {
    **dict.fromkeys(("lady", "girl", "assistant"), "woman"),
    **dict.fromkeys(("disappear", "gone"), "vanish"),
    **dict.fromkeys(("levitat", "levitate", "hover", "hovers"), "float"),
    **dict.fromkeys(("bill", "note"), "banknote"),
    **dict.fromkeys(("scarf", "handkerchief"), "silk"),
    **dict.fromkeys(("sawn", "sawed"), "saw"),
    **dict.fromkeys(("chosen", "selected", "picked"), "choose"),
    **dict.fromkeys(("tied", "bound"), "tie"),
    "conjuror": "magician",
    "bent": "bend",
    "torn": "tear",
}
"""Words that stand for each other in this field."""


@functools.lru_cache(maxsize=4096)  # every request is compared with every other
def content_words(text: str) -> frozenset[str]:
    """The words of a request that carry its content: lower case, endings cut, synonyms made one."""
    stems = (SAME.get(word, _stem(word)) for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in FRAME)
    found = (SAME.get(stem, stem) for stem in stems)
    return frozenset(word for word in found if word not in FRAME and len(word) > 2)


def similarity(one: str, other: str) -> float:
    """Content words in common over content words in all (Jaccard), 0 to 1; without any, 1 for the same text, else 0."""
    left, right = content_words(one), content_words(other)
    if not (left or right):
        return float(re.findall(r"\w+", one.lower()) == re.findall(r"\w+", other.lower()))
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def clashes(requests: Iterable[str], held_out: Iterable[Behavior], *, limit: float = LIMIT) -> dict[str, str]:
    """The requests that are too close to a held-out behavior -> the id of the closest one. Empty: all are apart."""
    others = [(each.id, each.request) for each in held_out]
    found = {}
    for request in requests:
        score, nearest = max(((similarity(request, text), name) for name, text in others), default=(0.0, ""))
        if score >= limit:
            found[request] = nearest
    return found


def _stem(word: str) -> str:
    """A word without its plural s, its -ing or its -ed."""
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word
