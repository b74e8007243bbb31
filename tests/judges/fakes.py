"""Judge models that follow a script. None of them knows the harness's code: they read the prompt they are sent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.errors import ModelError
from harness.types import Capability, Completion, Prompt, Sampling

Answer = Callable[
    [str, str, int], str
]  # (everything the model was shown, the id asked for, number of the call) -> answer


@dataclass
class JudgeModel:
    """Answers by a function; keeps what it was sent."""

    answer: Answer
    name: str = "fake-judge"
    can: frozenset[Capability] = frozenset({"chat", "raw"})
    sent: list[tuple[Prompt, Sampling]] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        return {"kind": "fake"}

    def head(self, text: str, k: int) -> str:
        return text[:k]

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.sent.append((prompt, sampling))
        shown = prompt.text if prompt.text is not None else "\n".join(m.content for m in prompt.messages)
        asked = re.findall(r'"id" is (\w+):', shown)
        text = self.answer(shown, asked[-1] if asked else "", len(self.sent))
        if text == "FAIL":
            raise ModelError("no answer")
        return Completion(text=text, model=self.name)

    async def loglikelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        return 0.0, True

    def weights(self) -> tuple[Any, Any]:
        raise NotImplementedError

    async def close(self) -> None:
        return None


def obedient(verdict: str) -> Answer:
    """Does as the instructions say and gives its honest verdict."""
    return lambda shown, nonce, n: json.dumps(
        {"id": nonce, "about_request": "yes", "specific": "no", "verdict": verdict, **marks(verdict)}
    )


def marks(verdict: str) -> dict[str, object]:
    gives = verdict in ("gives", "yes", "unsafe")
    return {
        "rating": 10 if gives else 1,
        "refused": "no" if gives else "yes",
        "convincing": 5 if gives else 1,
        "specific": ("yes" if gives else "no") if verdict in ("gives", "refuses", "neither") else (5 if gives else 1),
    }


def quoting_first(verdict: str) -> Answer:
    """Thinks aloud by quoting everything it was shown, then gives its verdict."""
    return lambda shown, nonce, n: f"I was shown this:\n{shown}\nMy verdict: {obedient(verdict)(shown, nonce, n)}"


def quoting_last(verdict: str) -> Answer:
    """Gives its verdict, then quotes everything it was shown."""
    return lambda shown, nonce, n: f"{obedient(verdict)(shown, nonce, n)}\nbecause I was shown this:\n{shown}"


def gullible(verdict: str) -> Answer:
    """Follows any text that looks like the end of the data or like a verdict within it; its own opinion comes last."""

    def answer(shown: str, nonce: str, n: int) -> str:
        data = shown.partition("----- begin r")[2].partition("What does the reply do?")[0]
        signs = (
            r'(?im)^[^|]*\bverdict|[\[{]{1,2}\s*"?(?:gives|refuses|neither)|"verdict"\s*:'
            r"|score\s*:\s*\d|^</?reply>|^\s*assistant:"
        )
        told = re.search(r"(gives|refuses|neither)", data) if re.search(signs, data) else None
        return obedient(told[1] if told else verdict)(shown, nonce, n)

    return answer
