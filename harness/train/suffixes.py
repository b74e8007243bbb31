"""R2D2 (Mazeika et al. 2024, HarmBench, arXiv 2402.04249), experimental here: training against a moving GCG attack.

Before each step the safety pairs of the batch take a suffix from a pool, and it is refined by our own GCG against the
model as it is now; then the model learns towards the safe reply behind that suffix and away from the opening of the
violating one. What differs from the paper: the pool holds suffixes, which travel from request to request, not pairs of
both; few steps and candidates, so that it runs on a CPU; the safe reply is the pair's own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.errors import DataError, UsageError
from harness.train.data import Triple
from harness.train.methods import target_of, trim
from harness.train.model import cast_inputs
from harness.train.pack import register
from harness.train.recipe import Recipe
from harness.train.rows import Item, Pair

if TYPE_CHECKING:
    from harness.train.model import Loaded

FIRST = " !" * 10
TOPK = 256


class Suffixes:
    """The pool, and what it has cost. A resumed run is given the pool of the one that was killed."""

    def __init__(self, recipe: Recipe, triples: dict[str, Triple], pool: Sequence[str]) -> None:
        self.recipe, self.triples, self.pool = recipe, triples, list(pool)

    @classmethod
    def of(cls, recipe: Recipe, triples: Sequence[Triple], pool: Sequence[str]) -> Suffixes:
        """A fresh pool, or the one that was saved."""
        return cls(recipe, {t.id: t for t in triples}, pool or [FIRST] * recipe.suffix_pool)

    def attacked(self, loaded: Loaded, items: Sequence[Item], number: int) -> tuple[list[Item], float]:
        """The step's items with every safety pair behind a refined suffix, and the seconds it took.

        Every process calls it with the whole step and refines its own share; all end with the same pool.
        """
        began = time.perf_counter()
        rng = random.Random(f"{self.recipe.seed} suffixes {number}")
        places = [i for i, item in enumerate(items) if isinstance(item, Pair)]
        slots = draw_slots(len(places), len(self.pool), rng)
        fresh = [rng.random() < self.recipe.suffix_fresh for _ in places]
        mine = range(loaded.team.rank, len(places), loaded.team.size)
        with searching(loaded) as module:
            found = {
                k: self.refine(module, loaded.tokenizer, self.triple(items[places[k]]),
                               FIRST if fresh[k] else self.pool[slots[k]], rng_seed(self.recipe, number, k))
                for k in mine
            }  # fmt: skip
        ready = list(items)
        for k, suffix in sorted(loaded.team.share(found).items()):
            triple = self.triple(items[places[k]])
            self.pool[slots[k]] = suffix
            pair = loaded.encoder.attacked(triple, suffix, target_of(triple))
            with suppress(DataError):  # a suffix that pushes the reply past the block is left out
                [ready[places[k]]] = trim([pair], self.recipe.block)
        return ready, time.perf_counter() - began

    def triple(self, item: Item) -> Triple:
        """What a pair was made of."""
        assert isinstance(item, Pair)
        return self.triples[item.chosen.source]

    def refine(self, module: Any, tokenizer: Any, triple: Triple, suffix: str, seed: int) -> str:
        """A suffix after a few GCG steps towards the triple's violating reply, the best of them.

        One that can't stand behind this request as it is (its tokens would merge with others) starts over.
        """
        size = module.get_input_embeddings().weight.shape[0]
        options = {"steps": self.recipe.suffix_steps, "width": self.recipe.suffix_width, "topk": min(TOPK, size // 4)}
        line = [(triple.request, target_of(triple))]
        for init in (suffix, FIRST):
            gcg = registry.make("attack", "gcg", {**options, "init": init})
            try:
                search = gcg.begin(module, tokenizer, line, gcg.settings(seed))
            except UsageError:
                continue
            while not search.done:
                search.step()
            return str(search.tokens.decode(search.best[1]))
        return suffix


@contextmanager
def searching(loaded: Loaded) -> Iterator[Any]:
    """The module as a search needs it: no dropout, its own attention; afterwards as training needs it."""
    model = loaded.model
    bare = model.get_base_model() if hasattr(model, "peft_config") else model
    model.eval()
    cast_inputs(model, True)  # a search sets its own precision
    try:
        yield bare
    finally:
        cast_inputs(model, not loaded.autocast)
        bare.set_attn_implementation("flash_attention_2" if loaded.scorer.flash else register())
        model.train()


def draw_slots(n: int, size: int, rng: random.Random) -> list[int]:
    """A slot of the pool for each of `n` pairs, each used once before any is used again."""
    order = [slot for _ in range(-(-n // size)) for slot in rng.sample(range(size), size)]
    return order[:n]


def rng_seed(recipe: Recipe, number: int, k: int) -> int:
    """The seed of one search, the same after a resume and on any number of processes."""
    return random.Random(f"{recipe.seed} search {number} {k}").randrange(2**31)
