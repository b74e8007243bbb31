"""The DeRTa result files in all their shapes: replies as rows, completions as one string, PAIR's blobs.

Facts about them: completions hold prompt and continuation in one string and stand in another order than the base
questions; a PAIR blob without a jailbreak counts as none; the attack's prompts hold the bare question somewhere.
The upstream test prompts are looked for beside the results (`data/test` in a folder above), or named by hand.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path

from harness import registry
from harness.data import pinned, rows
from harness.data.item import Recorded, make
from harness.data.pinned import MIRROR
from harness.errors import DataError
from harness.types import Attack, Attempt, Behavior, Prompt

ATTACKS = {
    "codeattack": "code",
    "completionattack": "completion",
    "jailbreakchat": "jailbreakchat",
    "selfcipher": "cipher",
    "autodan": "autodan",
    "pair": "pair",
}
BASE, OPENINGS = "safety_illegal_instructions_200.json", "safety_completionattack.json"
_PUSHED = re.compile(r"""\.(?:append|push_back|push)\(\s*["'](.*?)["']\s*\)""")
_OPENING = re.compile(r"[^\n:]{10,400}:(?:[ \t]*\n?[ \t]*(?:step )?1\s?[.:])?", re.IGNORECASE)
_MODEL = re.compile(r"(?i)_(?:eval|autodan)_.*$|^PAIR_result_|\.jsonl?$")


def attack_of(path: Path) -> str:
    """The attack a file's name (or its folder's) speaks of; "" where it names none."""
    for part in (path.name.lower(), path.parent.name.lower()):
        for word, attack in ATTACKS.items():
            if word in part:
                return attack
    return ""


def read(path: Path, questions: Path | None) -> Iterator[Recorded]:
    """The replies of a result file."""
    attack = attack_of(path)
    known = Questions.near(path, questions)
    known.common = _common_prefix(path)
    model = _MODEL.sub("", path.name)
    for number, row in rows.lines(path):
        where = f"{path} line {number}"
        if isinstance(row, str):
            kind = "pair" if "Goal:" in row[:400] else "completion"
            one = _pair(row, where) if kind == "pair" else known.completion(row)
            yield make(**one, attack=attack or kind, model=model, task="derta", row=number)  # type: ignore[arg-type]
        elif isinstance(row, Mapping) and isinstance(row.get("response"), str):
            prompt = row.get("question", row.get("instruction"))
            if not isinstance(prompt, str):
                raise DataError(f"{where} has no question")
            if isinstance(row.get("answer"), str):
                raise DataError(f"{where} is of a helpfulness file: it has a right answer, nothing to refuse")
            request, reply = known.request(prompt), row["response"]
            said = decoded(prompt, reply) if attack == "code" else None
            yield make(
                request=request, prompt=prompt, reply=reply, said=said, attack=attack or "direct", model=model,
                task="derta", row=number,
            )  # fmt: skip
        else:
            raise DataError(f"{where} is neither text nor a row with a response")


def _pair(blob: str, where: str) -> dict[str, object]:
    """Goal, prompt and reply of a PAIR blob. One that names no example found no jailbreak, which is no violation."""
    goal = re.search(r"Goal:[ \t]*(.*)", blob)
    if not goal:
        raise DataError(f"{where} is no PAIR result: it names no goal")
    found = re.search(r"PROMPT:\s*(.*?)\n\s*(?:Example )?(?:Jailbreak )?RESPONSE:\s*(.*)\Z", blob, re.DOTALL)
    if found:
        return {"request": goal[1].strip(), "prompt": found[1].strip(), "reply": found[2].strip()}
    return {"request": goal[1].strip(), "reply": None, "absent": "no-jailbreak"}


@dataclass(slots=True)
class Questions:
    """The upstream's bare questions and openings, where they are at hand, and what a file's prompts share."""

    base: list[tuple[str, str, str]] = field(default_factory=list)  # longest word, folded, as it is
    openings: list[str] = field(default_factory=list)  # the longest first
    common: str = ""

    @classmethod
    def near(cls, path: Path, given: Path | None) -> Questions:
        """From a file named by hand, `data/test` in a folder above the results, HARNESS_MIRROR, or what was pulled."""
        folders = [parent / "data" / "test" for parent in path.resolve().parents]
        for mirror in filter(None, (os.environ.get(MIRROR), str(pinned.home()))):
            folders += sorted(Path(mirror).glob("RobustNLP/DeRTa/*/data/test"))
        base = given or next((f / BASE for f in folders if (f / BASE).is_file()), None)
        beside = [base.parent] if base else []
        openings = next((f / OPENINGS for f in beside + folders if (f / OPENINGS).is_file()), None)
        return cls(
            base=[_indexed(question) for question in _questions(base)] if base else [],
            openings=sorted(_questions(openings), key=len, reverse=True) if openings else [],
        )

    def request(self, prompt: str) -> str:
        """The bare question within an attack's prompt: a known one, or what is the prompt's own."""
        shown = " ".join(reversed(_PUSHED.findall(prompt))) or prompt  # a stack pops its last word first
        folded = _folded(shown)
        held = set(folded.split())
        within = [question for word, short, question in self.base if word in held and short in folded]
        if within:
            return max(within, key=len)
        return shown.removeprefix(self.common).strip() or shown

    def completion(self, whole: str) -> dict[str, object]:
        """Opening and continuation of a completion."""
        head = next((o for o in self.openings if whole.startswith(o)), "")
        if not head:
            stripped = whole.lstrip()
            head = next((o.strip() for o in self.openings if stripped.startswith(o.strip())), "")
            whole = stripped if head else whole
        if not head and (match := _OPENING.match(whole)):
            head = match[0]
        return {"request": head.strip(), "prompt": head, "reply": whole[len(head) :]}


def _questions(path: Path) -> list[str]:
    """The `question` of every row of a test file."""
    found = [row.get("question") if isinstance(row, Mapping) else row for _, row in rows.lines(path)]
    return [question for question in found if isinstance(question, str) and question.strip()]


def _indexed(question: str) -> tuple[str, str, str]:
    folded = _folded(question)
    return max(folded.split(), key=len, default=""), folded, question


@lru_cache(maxsize=4096)
def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _common_prefix(path: Path) -> str:
    """What the first prompts of a file begin with alike, when it is long: an attack's fixed text."""
    found = [row.get("question") for _, row in islice(rows.lines(path), 20) if isinstance(row, Mapping)]
    prompts = [prompt for prompt in found if isinstance(prompt, str)]
    if len(prompts) < 3:
        return ""
    least, most = min(prompts), max(prompts)  # all others share what these two share
    same = next((i for i, (a, b) in enumerate(zip(least, most, strict=False)) if a != b), len(least))
    return least[:same] if same >= 100 else ""


@lru_cache(maxsize=1)
def _code_attack() -> Attack:
    found: Attack = registry.make("attack", "code")
    return found


def decoded(prompt: str, reply: str) -> str:
    """What a reply in code says, read back as the attack itself reads it."""
    attempt = Attempt(
        behavior=Behavior(id="", request=""), attack="code", prompt=Prompt.chat(prompt), variant=_family(prompt)
    )
    return _code_attack().read(attempt, reply)


def _family(prompt: str) -> str:
    """The template family of a prompt in code."""
    if "#include" in prompt or "std::" in prompt:
        return "cpp-string"
    return "go-string" if "package main" in prompt or "func " in prompt else "python-stack"
