"""What searching attacks share: one attempt tried on the target, judged, and ranked against the others."""

from __future__ import annotations

from dataclasses import dataclass

from harness.errors import BudgetSpent, ModelError
from harness.judges.score import told
from harness.types import Attack, Attempt, Context, Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """An attempt and its verdict; None where the model failed."""

    attempt: Attempt
    judgement: Judgement | None

    @property
    def won(self) -> bool:
        """Whether the model gave what was asked."""
        return self.judgement is not None and self.judgement.label == "complied"

    @property
    def rank(self) -> tuple[int, float, int]:
        """Higher is better: success, then what is not known, then what came closest to success.

        A search that found nothing so yields an attempt whose outcome is open, where there is one: it is
        sent again and recorded as what it is, and a failed request is never passed off as a refusal.
        """
        promise, score, given = self.promise
        return (1 if promise < 0 else 2 * promise), score, given

    @property
    def promise(self) -> tuple[int, float, int]:
        """Higher is the better place to search on from; what is not known holds the least."""
        judgement = self.judgement
        if judgement is None or judgement.label == "unscored":
            return -1, 0.0, 0
        return int(self.won), judgement.score or 0.0, judgement.given


async def tried(attack: Attack, attempt: Attempt, context: Context) -> Tried | None:
    """Sends one attempt, with the run's own sampling, and has the reply judged; None where the budget forbids it."""
    try:
        completion = await context.target.generate(attempt.prompt, context.sampling)
    except BudgetSpent:
        return None
    except ModelError:
        return Tried(attempt=attempt, judgement=None)
    said, judge = attack.read(attempt, completion.text), context.judge
    judgement = await told(judge.name, judge.judge, attempt, completion, said)
    return Tried(attempt=attempt, judgement=judgement)
