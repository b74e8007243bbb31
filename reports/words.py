"""Numbers and names as text: percentages, intervals, denominators, and strings made safe to show."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

from harness.types import Metric
from reports.view import Cell

DASH = "–"
DAGGER = "†"
REASONS = ("not corrected", "no labels", "by attack only")  # how a note begins that says why there is no number
PLACED = ("over_refusal_early", "over_refusal_late", "refusal_first5")  # which ask where a refusal begins
_LOGIN = re.compile(r"://[^/\s]*@")  # a name and password in an address
# These draw nothing or change what stands around them: controls, format (bidi), surrogates, private, unassigned.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def clean(value: object, limit: int = 60) -> str:
    """A string on one line, without characters that hide, reorder or pile up; long ones lose their middle.

    Passwords in addresses go, so that no report carries one from a command line.
    """
    out: list[str] = []
    marks = 0
    text = _LOGIN.sub("://…@", " ".join(str(value).split()))
    for char in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(char)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        if marks <= 2:
            out.append("\N{REPLACEMENT CHARACTER}" if kind in _HIDDEN else char)
    return clip("".join(out), limit)


def clip(text: str, limit: int) -> str:
    """A long text without its middle."""
    tail = limit // 3
    return text if len(text) <= limit else f"{text[: limit - tail - 1]}…{text[len(text) - tail :]}"


def shorten(names: Iterable[str], limit: int = 24, *, family: bool = False) -> dict[str, str]:
    """Each name as it is shown: short, and unlike every other one.

    Where names of a `family` are too long, what they all begin with is dropped, up to a separator.
    """
    whole = {name: clean(name, 10_000) for name in names}
    if family and len(whole) > 1 and max(map(len, whole.values())) > limit:
        first, last = min(whole.values()), max(whole.values())  # what these two share, all between them share
        same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
        head = re.sub(r"[^/:_ -]*$", "", first[:same])
        whole = {name: text.removeprefix(head) or text for name, text in whole.items()}
    shown: dict[str, str] = {}
    taken: set[str] = set()
    used: dict[str, int] = {}
    for name, text in whole.items():
        short = stem = clip(text, limit)
        while short in taken:
            number = used[stem] = used.get(stem, 1) + 1
            short = f"{clip(text, limit - 1 - len(str(number)))}~{number}"
        taken.add(short)
        shown[name] = short
    return shown


def known(value: float | None) -> bool:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(value)


def percent(value: float | None) -> str:
    """A rate as a percentage with one decimal; a dash where there is none."""
    return f"{100 * value:.1f}%" if value is not None and math.isfinite(value) else DASH


def bracket(low: float | None, high: float | None) -> str:
    """An interval of a rate, in percent."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def interval(metric: Metric) -> str:
    """The interval of a metric, in percent; empty where there is none."""
    return bracket(metric.low, metric.high)


def missing(metric: Metric) -> str:
    """How many replies stand outside the number, in words; empty where all were scored."""
    parts = [plural(metric.n_error, "error")] if metric.n_error else []
    return ", ".join([*parts, f"{count(metric.n_unscored)} {unread(metric)}"] if metric.n_unscored else parts)


def unread(metric: Metric) -> str:
    """What the replies are that a metric's `n_unscored` counts."""
    return "of unknown position" if metric.name in PLACED else "unscored"


def bounds(metric: Metric) -> str:
    """The worst case: the value had every missing reply been 0, or 1; empty where none is missing."""
    return bracket(metric.floor, metric.ceiling) if metric.n_error or metric.n_unscored else ""


def why_empty(metric: Metric | None) -> str:
    """Why a number is a dash."""
    if metric is None:
        return "not run"
    if metric.note.startswith(REASONS):
        return clean(metric.note.partition(":")[0])
    return f"none scored: {missing(metric)}" if missing(metric) else "nothing to count"


def short(metric: Metric | None) -> Cell:
    """A metric in one small cell: value and interval, with a dagger where replies are missing."""
    if metric is None or not metric.n or not known(metric.value):
        return Cell(text=DASH, sub=why_empty(metric))
    return Cell(text=percent(metric.value), sub=f"{interval(metric)}{DAGGER if missing(metric) else ''}")


def compact(metric: Metric | None, *, shared_n: int | None = None) -> Cell:
    """A metric in one cell: value and interval, then n (unless it is the shared one) and what is missing."""
    if metric is None or not metric.n or not known(metric.value):
        return Cell(text=DASH, sub=why_empty(metric))
    parts = [interval(metric)]
    if metric.n != shared_n:
        parts.append(f"n {count(metric.n)}")
    if missing(metric):
        parts.append(f"{missing(metric)}: {bounds(metric)}" if bounds(metric) else missing(metric))
    return Cell(text=percent(metric.value), sub=" ".join(part for part in parts if part))


def inline(metric: Metric) -> str:
    """A metric inside a sentence, such as `62.5% [50.3, 73.4]`."""
    return f"{percent(metric.value)} {interval(metric)}".strip()


def count(number: float) -> str:
    """A count with separators between thousands."""
    return f"{number:,.0f}"


def plural(number: int, word: str) -> str:
    """`1 error`, `2 errors`."""
    return f"{count(number)} {word}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def listing(words: Sequence[str], limit: int = 4) -> str:
    """`a, b and c`; the rest of a long list is counted."""
    if len(words) > limit:
        words = [*words[: limit - 1], f"{len(words) - limit + 1} more"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
