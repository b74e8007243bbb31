"""What each method trains on: the same triples and the same number of pairs, turned into different rows.

vanilla          n pairs (request, safe)                     the usual safety tuning
vanilla-half     n/2 of them                                 ablation "vanilla-"
prefix-half      n/2 harmful-prefix                          ablation "+ harmful prefix"
recaug           n harmful-prefix                            "safety should be more than a few tokens deep"
rto              n/2 vanilla + n/2 RTO                       ablation "+ RTO"
derta            n/2 harmful-prefix + n/2 RTO                the paper's method
dpo              n pairs safe over violating
dpo-prefix       n pairs safe over violating, both going on inside a violating reply
circuit-breaker  n violating replies whose hidden states are turned away (circuit.py)
r2d2             n pairs behind adversarial suffixes: towards safe, away from violating (suffixes.py)
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count, cycle, islice
from typing import TypeVar

from harness.errors import DataError, UsageError
from harness.progress import say
from harness.train.data import Helpful, TrainSet, Triple
from harness.train.recipe import HALVED, Recipe
from harness.train.rows import Encoder, Item, Pair, Row, draw_prefix, first_words, fit

T = TypeVar("T", Triple, Helpful)
WITHOUT_RTO = {"rto": "vanilla", "derta": "recaug"}
"""The methods that read `rto_share`, and what each of them is when it is 0."""
TARGET_WORDS = 12


def check_rows(recipe: Recipe, data: TrainSet) -> None:
    """Raises UsageError where official rows, which are MLE and RTO rows already, are not what the method trains on."""
    if not data.instances:
        return
    held = "RTO rows" if any(row.rto for row in data.instances) else "no RTO rows"
    fits = recipe.method in (WITHOUT_RTO if held == "RTO rows" else (*HALVED, *WITHOUT_RTO.values()))
    if not fits:
        hint = "harness data build makes triples, which every method can use; such rows with RTO are those of derta"
        raise UsageError(f"{recipe.method} can't be made of official rows ({held} among them)", hint=hint)


def draw(recipe: Recipe, data: TrainSet, encoder: Encoder) -> list[Item]:
    """Every item of one pass, in the order of the draw; the same for the same seed."""
    if data.instances:
        rng = random.Random(f"{recipe.seed} instances")
        rows = [encoder.instance(row, recipe.rto_keep, rng) for row in data.instances]
        return trim(rows, recipe.block)
    helpful = pick_helpful(data.helpful, recipe)
    return trim([*safety(recipe, data.triples, encoder), *map(encoder.helpful, helpful)], recipe.block)


def safety(recipe: Recipe, triples: Sequence[Triple], encoder: Encoder) -> list[Item]:
    """The safety pairs of a method. All methods draw the same triples and prefixes in the same order for the same
    seed, so that a method without its RTO rows is another method (WITHOUT_RTO)."""
    rng = random.Random(f"{recipe.seed} prefixes")
    if recipe.method == "r2d2":  # a suffix stands behind a chat's request
        triples = [triple for triple in triples if not triple.raw]
    drawn = take(triples, recipe.safety_pairs, random.Random(f"{recipe.seed} triples"))
    if recipe.method in WITHOUT_RTO:
        split = len(drawn) - round(recipe.rto_share * len(drawn))
        return [
            *(encoder.safe(t, words(recipe, t, rng)) for t in drawn[:split]),
            *(encoder.rto(t, recipe.rto_keep, rng) for t in drawn[split:]),
        ]
    if recipe.method == "r2d2":
        return [encoder.attacked(t, "", target_of(t)) for t in drawn]
    if recipe.method == "circuit-breaker":
        return [encoder.rto(t, 1.0, rng) for t in drawn]
    if recipe.method in ("dpo", "dpo-prefix"):
        return [encoder.pair(t, words(recipe, t, rng)) for t in drawn]
    return [encoder.safe(t, words(recipe, t, rng)) for t in drawn]


def target_of(triple: Triple) -> str:
    """The opening of a violating reply that a suffix search works towards, and r2d2 away from."""
    return first_words(triple.violating, TARGET_WORDS)


def words(recipe: Recipe, triple: Triple, rng: random.Random) -> int:
    """How many words of the violating reply stand before the safe one."""
    if recipe.method in ("vanilla", "vanilla-half", "rto", "dpo"):
        return 0
    return draw_prefix(triple.violating, recipe.empty_prefix, rng)


def pick_helpful(pairs: Sequence[Helpful], recipe: Recipe) -> list[Helpful]:
    """The helpful pairs of a run: look-alikes, raw openings and general ones in the recipe's shares.

    A kind that the set lacks is made up for by general pairs, or by whatever there is.
    """
    kinds: dict[str, list[Helpful]] = {"lookalike": [], "opening": [], "general": []}
    for pair in pairs:
        kinds["opening" if pair.raw else pair.kind if pair.kind in kinds else "general"].append(pair)
    wanted = {
        "lookalike": round(recipe.helpful * recipe.lookalike) * bool(kinds["lookalike"]),
        "opening": round(recipe.helpful * recipe.opening) * bool(kinds["opening"]),
    }
    wanted["general"] = max(0, recipe.helpful - sum(wanted.values()))
    if not kinds["general"]:
        kinds["general"] = list(pairs)
    rng = random.Random(f"{recipe.seed} helpful")
    return [pair for kind, n in wanted.items() for pair in take(kinds[kind], n, rng)]


def take(rows: Sequence[T], n: int, rng: random.Random) -> list[T]:
    """`n` rows in random order: every request once before one comes again, every row once before one repeats."""
    if n and not rows:
        raise DataError("the training set holds no pair of a kind the recipe asks for")
    order = list(rows)
    rng.shuffle(order)
    times: defaultdict[str, Iterator[int]] = defaultdict(count)
    order.sort(key=lambda row: next(times[row.request]))  # by how often its request came before; ties stay shuffled
    return list(islice(cycle(order), n))


def trim(items: Sequence[Item], block: int) -> list[Item]:
    """Cuts every row to the block; drops what has no label left, and says so."""
    kept: list[Item] = []
    for item in items:
        if isinstance(item, Row):
            row = fit(item, block)
            kept.extend([row] if row else [])
        else:
            chosen, rejected = fit(item.chosen, block), fit(item.rejected, block)
            kept.extend([Pair(chosen=chosen, rejected=rejected)] if chosen and rejected else [])
    if not kept:
        raise DataError(f"no row has a label within the first {block} tokens", hint="raise `block` in the recipe")
    if lost := len(items) - len(kept):
        say(f"{lost} of {len(items)} rows are left out: no label within the first {block} tokens (`block`)")
    return kept


def steps(recipe: Recipe, items: int) -> int:
    """How many optimizer steps a run takes."""
    whole = math.ceil(items * recipe.epochs / recipe.batch)
    return min(whole, recipe.max_steps) if recipe.max_steps else whole


def schedule(recipe: Recipe, items: int) -> list[list[int]]:
    """The item numbers of every step: each epoch in its own order, the last step filled up from the next epoch."""
    rng = random.Random(f"{recipe.seed} order")
    total = steps(recipe, items)
    order: list[int] = []
    while len(order) < total * recipe.batch:
        epoch = list(range(items))
        rng.shuffle(epoch)
        order.extend(epoch)
    return [order[i * recipe.batch : (i + 1) * recipe.batch] for i in range(total)]
