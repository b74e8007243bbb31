"""GCG: a suffix found by following gradients, so it needs the weights (Zou et al. 2023, arXiv:2307.15043).

Parameter sets follow llm-attacks (`paper`) and nanoGCG 0.3.0 (`nanogcg`). What differs: a suffix must survive
tokenisation inside the whole prompt, the chat template is never touched, and the first suffix is an attempt of its
own, so that what the search adds over it is seen. The search is in gcg_search.py, its speed in packed.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from attacks.bundled import check_count, check_number, load_scenes
from attacks.gcg_group import Member, leave_room, repay, search_together, waiting
from attacks.gcg_search import Search, Settings, tokens_of
from attacks.packed import packed, turn
from harness.errors import DataError, ModelError, UnknownName, UsageError
from harness.types import Attack, Attempt, Behavior, Capability, Context, Prompt, sha

PRESETS: dict[str, Settings] = {
    "paper": Settings(),
    "nanogcg": Settings(steps=250, init="x x x x x x x x x x x x x x x x x x x x", positions="uniform"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gcg(Attack):
    """A suffix found by following the target's gradients (greedy coordinate gradient).

    Yields the first suffix (variant `seed`), then the one with the lowest loss (`suffix`). Each step is kept in the
    run's memo, with its loss: that is the loss curve, and where a killed run goes on. Behaviors are searched in groups.
    With `train`, a JSONL file of {"request", "target"}, one suffix is found for all of its lines.
    """

    name: ClassVar[str] = "gcg"
    needs: ClassVar[frozenset[Capability]] = frozenset({"chat", "weights"})

    preset: str = "paper"  # or nanogcg; what is None below is the preset's
    steps: int | None = None
    width: int | None = None
    topk: int | None = None
    init: str | None = None
    mellowmax: float | None = None
    buffer: int | None = None
    early_stop: bool | None = None
    train: str = ""
    together: int = 8  # behaviors whose searches share each pass through the model

    def __post_init__(self) -> None:
        check_count("together", self.together, least=1)
        if self.preset not in PRESETS:
            raise UnknownName(f"preset of {self.name}", self.preset, PRESETS)
        for name, least in (("steps", 0), ("width", 1), ("topk", 1), ("buffer", 0)):
            if (value := getattr(self, name)) is not None:
                check_count(name, value, least=least)
        if self.mellowmax is not None:
            check_number("mellowmax", self.mellowmax)
        if self.init is not None and not self.init.strip():
            raise UsageError("init is blank; the search starts from its tokens", hint="gcg.init='! ! ! !'")
        if self.train:
            load_scenes(self.train)  # said before anything is spent

    def settings(self, seed: int) -> Settings:
        """The preset with the settings that were given."""
        mine = {f.name: getattr(self, f.name) for f in fields(Settings) if f.name in self.__dataclass_fields__}
        return replace(PRESETS[self.preset], seed=seed, **{k: v for k, v in mine.items() if v is not None})

    async def attempts(self, behavior: Behavior, context: Context) -> AsyncIterator[Attempt]:
        """Two attempts: the first suffix, and the best."""
        lines, init = self.lines(behavior), self.settings(context.seed).init
        leave_room(context, Prompt.chat(behavior.request + 4 * init))  # tokens that are found are longer than the first
        about = sha([context.target.name, lines, asdict(self.settings(context.seed))])
        key = f"{self.name}/{'train' if self.train else behavior.id}/{about}"
        found = await self.found(key, lines, context)
        for variant in ("seed", "suffix"):
            yield Attempt(
                behavior=behavior,
                attack=self.name,
                prompt=Prompt.chat(behavior.request + str(found[variant])),
                variant=variant,
                seed=context.seed,
                spent=found["spent"] if variant == "suffix" else {},
            )

    async def found(self, key: str, lines: list[tuple[str, str]], context: Context) -> dict[str, Any]:
        """The first and the best suffix as text, and what they cost: remembered, or searched for with others."""
        known = context.memo.get(f"{key}/found")
        if known is None:
            queue = waiting(self, context.target.name, context.seed)
            mine = queue.setdefault(key, Member(key, lines, context, self.open))
            await asyncio.sleep(0)  # whoever starts now takes part
            async with turn():
                if key in queue:  # nobody has taken it along yet; those before it in the queue are done
                    group = list(queue.values())[: self.together]
                    try:
                        await search_together(group)
                    finally:
                        for member in group:
                            del queue[member.key]
            known = context.memo.get(f"{key}/found")
            if mine.error is not None:
                raise mine.error
        if known is None:
            raise ModelError(f"{self.name}: a search that this one was part of has failed")
        found: dict[str, Any] = json.loads(known)
        if not self.train:
            repay(context.meter, found["spent"])
        else:  # one search for all behaviors: each bears its share
            found["spent"] = {f"shared_{name}": n for name, n in found["spent"].items()}
        return found

    def open(self, lines: list[tuple[str, str]], context: Context) -> Search:
        """A search at its start; loads the weights when nobody has yet."""
        module, tokenizer = context.target.weights()
        return self.begin(module, tokenizer, lines, self.settings(context.seed))

    def begin(self, module: Any, tokenizer: Any, lines: list[tuple[str, str]], settings: Settings) -> Search:
        """A search on weights that are at hand, for who trains against it."""
        model = packed(module)
        tokens = tokens_of(tokenizer, model.embed.weight.shape[0])
        scenes = [tokens.scene(model, request, target) for request, target in lines]
        return Search(model, tokens, scenes, settings)

    def lines(self, behavior: Behavior) -> list[tuple[str, str]]:
        """Requests and targets the suffix is searched on."""
        if not self.train:
            if not behavior.target:
                raise DataError(f"behavior {behavior.id} has no target, the opening that {self.name} works towards")
            return [(behavior.request, behavior.target)]
        return load_scenes(self.train)
