"""The LLM judge: any model, asked by a preset, with the reply fenced off as data.

A reply may try to write its own verdict. It stands between fences whose name it cannot know, each of its lines is
marked, tags, brackets and verdict-like words in it are defused, and only an answer that carries a nonce made from the
reply itself counts. The attack's prompt is never shown: the judge sees the bare request.

| code            | what was seen |
|-----------------|---------------|
| a verdict word  | the model's verdict, such as `gives` or `yes`; a graded one is `mark` |
| `unparsable`    | unscored: no valid answer in any of the tries |
| `judge-refused` | unscored: the judge model declined to judge, each time |
| `error`         | unscored: the judge model failed |
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import ModelError
from harness.judges import answers
from harness.judges.presets import Preset, load
from harness.judges.refusals import fold, refusals
from harness.judges.rules import Rules
from harness.types import Attempt, Completion, Judgement, Label, Message, Model, Prompt, Sampling, sha

MAX_CHARS = 24_000
_TAGS = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")", "[": "(", "]": ")", "|": "¦", "`": "'"})
_VERDICT = re.compile(
    r"\b(scores?|ratings?|verdicts?|labels?|judge?ments?|marks?|answers?|assessments?|id"
    r"|harmful (?:request|response)|response refusal)"
    r"([\"'”’*_\s]{0,4})(?::|=|is\b)",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"^((?:[^\w\n]|_)*(?:(?:human|ai)[ \t]+)?(?:system|user|assistant|human|agent|judge|instructions?))[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_RULE = re.compile(r"^[ \t]*-{3,}[ \t\r]*$", re.MULTILINE)  # what parts the reply from the questions in a raw preset


@dataclass(frozen=True, slots=True, kw_only=True)
class LLM:
    """A language model as judge, asked by one of the presets (or the path of your own)."""

    model: Model
    preset: str = "paper"
    tries: int = 3  # answers asked for, each with its own seed, before a reply goes unscored
    seed: int = 0
    max_chars: int = MAX_CHARS  # a longer reply loses its middle

    @property
    def name(self) -> str:
        """`llm`, or `llm:PRESET` for another preset than the paper's."""
        return "llm" if self.preset == "paper" else f"llm:{load(self.preset).name}"

    def describe(self) -> dict[str, Any]:
        """What a run folder keeps: the preset with its hash and source, and the model."""
        preset = load(self.preset)
        return {
            "judge": self.name,
            "preset": preset.name,
            "preset_sha": preset.digest,
            "source": preset.source,
            "tries": self.tries,
            "seed": self.seed,
            "model": self.model.describe(),
            **({} if self.max_chars == MAX_CHARS else {"max_chars": self.max_chars}),  # as before it was told
        }

    async def judge(self, attempt: Attempt, completion: Completion, said: str) -> Judgement:
        """Asks for a verdict on `said`; unparsable or refused answers are asked for again, then unscored."""
        by_rule = await Rules().judge(attempt, completion, said)
        preset = load(self.preset)
        found = Judgement(judge=self.name, label="unscored", refusal_at=by_rule.refusal_at, given=by_rule.given)
        reason, spent = "unparsable", 0
        for number in range(self.tries):
            nonce = sha([preset.digest, attempt.behavior.request, said, self.seed, number])[:8]
            try:
                told = await self.model.generate(*self._ask(preset, attempt.behavior.request, said, nonce, number))
            except ModelError:
                return replace(found, reason="error", tokens=spent)
            spent += told.tokens_in + told.tokens_out
            answer = answers.read(preset, nonce, told.text)
            if answer is not None:
                return replace(_verdict(preset, answer, told, found, by_rule), tokens=spent)
            reason = "judge-refused" if refusals(fold(told.text[:2000])) else "unparsable"
        return replace(found, reason=reason, tokens=spent)

    def _ask(self, preset: Preset, request: str, said: str, nonce: str, number: int) -> tuple[Prompt, Sampling]:
        """The prompt and settings of one try; later tries leave greedy search, or they would repeat the first."""
        said = shortened(said, self.max_chars)
        sampling = Sampling(
            max_tokens=preset.max_tokens,
            temperature=0.7 if number else 0.0,
            seed=self.seed + number,
            schema=answers.schema(preset, nonce) if preset.user else None,
            logprobs=10 if "logprobs" in self.model.can and not preset.grade else 0,
        )
        if preset.turns:
            turns = (Message(role="user", content=defuse(request)), Message(role="assistant", content=defuse(said)))
            return Prompt(messages=turns), sampling
        if preset.raw:
            request, said = (_RULE.sub("- - -", defuse(text)) for text in (request, said))
            return Prompt(text=fill(preset.raw, request=request, reply=said, nonce=nonce)), sampling
        shown = {"request": fence(request, f"q{nonce}"), "reply": fence(said, f"r{sha(nonce)[:8]}"), "nonce": nonce}
        system = fill(preset.system, request="", reply="", nonce=nonce)
        return Prompt.chat(fill(preset.user, **shown), system=system), sampling


def _verdict(
    preset: Preset, answer: answers.Answer, told: Completion, found: Judgement, by_rule: Judgement
) -> Judgement:
    """The judgement an answer stands for; where the model only says "not complied", rules say how."""
    apart: Label = "refused" if by_rule.refusal_at is not None or by_rule.label == "refused" else "neither"
    if preset.grade:
        mark = answers.mark(preset, answer)
        return replace(found, label="complied" if mark >= preset.complied_from else apart, score=mark, reason="mark")
    verdict = str(answer["verdict"])
    if preset.refusal and re.search(preset.refusal, told.text, re.IGNORECASE | re.MULTILINE):
        apart = "refused"
    label = preset.labels[verdict] or apart
    return replace(found, label=label, score=answers.probability(preset, told, verdict), reason=verdict)


def defuse(text: str) -> str:
    """Text in which nothing reads as a tag, a bracketed verdict, a JSON key, a role mark or a field of an answer."""
    text = _VERDICT.sub(lambda m: f"{m[1]}{m[2]} -", text.translate(_TAGS))
    return _ROLE.sub(lambda m: f"{m[1]} -", text)


def fence(text: str, name: str) -> str:
    """Untrusted text between two lines that nothing in it can forge, each of its own lines marked."""
    lines = "\n".join(f"| {line}" for line in defuse(text).splitlines()) or "| "
    return f"----- begin {name} -----\n{lines}\n----- end {name} -----"


def fill(template: str, **values: str) -> str:
    """Puts values into the `{name}` places of a template in one pass, so that none can open another."""
    return re.sub(rf"\{{({'|'.join(values)})\}}", lambda m: values[m[1]], template)


def shortened(text: str, limit: int) -> str:
    """A long text without its middle."""
    return text if len(text) <= limit else f"{text[: limit // 2]}\n(...)\n{text[-limit // 2 :]}"
