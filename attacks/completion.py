"""CompletionAttack: the request as the declarative opening of a text, sent raw, for the model to go on with.

Paper: Yuan et al. 2024, DeRTa (arXiv 2407.09121). Upstream: RobustNLP/DeRTa at 70bdb52b5e13, which holds 200 openings
written by GPT-3.5 and no rewriter. Differs: a behavior without an opening gets one by rule, or from the helper model;
its variant says which way it came about, so that openings of different quality are never mixed unseen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from attacks.openings import REWRITER, by_rule, generic, validated
from harness.errors import BudgetSpent
from harness.types import Attack, Attempt, Behavior, Capability, Context, Prompt, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion(Attack):
    """The request as a declarative opening, raw, without any chat template.

    The variant says where it comes from: `given` with the behavior, made by `rule`, written by the helper
    model (`llm`), or `generic` where the helper cannot chat, the budget has no room for it or its sentence did not
    pass the check.
    """

    name: ClassVar[str] = "completion"
    needs: ClassVar[frozenset[Capability]] = frozenset({"raw"})

    rewrite: bool = True  # ask the helper model where no rule fits

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """One attempt: the opening."""
        queries = 1
        if behavior.opening:
            opening, variant = behavior.opening, "given"
        elif ruled := by_rule(behavior.request):
            opening, variant = ruled, "rule"
        else:
            opening, variant = generic(behavior.request), "generic"
            if self.rewrite and "chat" in context.attacker.can:
                with suppress(BudgetSpent):  # it was not asked: the generic opening costs its own request only
                    written = await _rewritten(behavior.request, context)
                    queries = 2
                    if written:
                        opening, variant = written, "llm"
        yield Attempt(
            behavior=behavior,
            attack=self.name,
            variant=variant,
            seed=context.seed,
            queries=queries,
            prompt=Prompt(text=opening),
        )


async def _rewritten(request: str, context: Context) -> str | None:
    ask = Prompt.chat(f"Request: {request}\nSentence:", system=REWRITER)
    reply = await context.attacker.generate(ask, Sampling(max_tokens=160, seed=context.seed))
    return validated(request, reply.text)
