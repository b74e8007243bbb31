"""JailbreakChat: the request inside a role-play template that talks the model out of its rules.

Source: the templates once shared on jailbreakchat.com, 50 of which DeRTa uses (RobustNLP/DeRTa at 70bdb52b5e13, row i
with template i mod 50). Differs: own templates, since those are not ours to ship; a behavior draws its template by
its id, so that `--limit` or a new order does not shift the others'. Your own file of templates goes in `templates`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

from attacks.bundled import check_count, fill, load_role_plays
from harness.types import Attack, Attempt, Behavior, Context, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class JailbreakChat(Attack):
    """The request inside a role-play template.

    Each behavior draws `n` of them by its id and the seed; the variant names the template.
    """

    name: ClassVar[str] = "jailbreakchat"

    n: int = 1  # templates a behavior
    all_templates: bool = False  # every template for every behavior, whatever `n` says
    templates: str = ""  # a YAML file, name: text with a {request} slot; "" takes the bundled ones
    sha256: str = ""

    def __post_init__(self) -> None:
        check_count("n", self.n, least=1, most=len(load_role_plays(self.templates, self.sha256)))

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """One attempt a template."""
        templates = load_role_plays(self.templates, self.sha256)
        names = list(templates)
        # Shuffled, then cut: the first n stay the same when n grows.
        context.rng(self.name, behavior.id).shuffle(names)
        for name in names if self.all_templates else names[: self.n]:
            yield Attempt(
                behavior=behavior,
                attack=self.name,
                variant=name,
                seed=context.seed,
                prompt=Prompt.chat(fill(templates[name], request=behavior.request)),
            )
