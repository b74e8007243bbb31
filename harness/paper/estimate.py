"""What a run of the protocol will cost, from counts and stated assumptions alone: nothing is loaded, nothing asked.

Calls follow from the settings, for every model of the run: the base and each adapter. Prompt lengths are the official
files', at four characters a token; reply lengths are the means of the recorded 8B replies, and at most `max_tokens`.
Speed comes from a roofline: reading the weights or multiplying them, whichever takes longer, at a stated share of what
the machine could do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness import registry
from harness.config import ATTACKS, TASKS, RunSpec
from harness.data import pinned
from harness.errors import UnknownName, UsageError
from harness.models.checkpoints import known
from harness.models.costs import price_of
from harness.paper.published import of_checkpoint
from harness.plan import share, spelled_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One accelerator: dense bf16 operations and bytes a second, and bytes of memory."""

    flops: float
    bandwidth: float
    memory: float
    price: float  # US dollars an hour, as rented; an assumption


MACHINES = {
    "h200": Machine(flops=9.9e14, bandwidth=4.8e12, memory=141e9, price=3.5),
    "h100": Machine(flops=9.9e14, bandwidth=3.35e12, memory=80e9, price=2.5),
    "a100": Machine(flops=3.1e14, bandwidth=2.0e12, memory=80e9, price=1.5),
    # two cores of the reference machine: 640 tokens a second of the 135M model, measured at 128 sequences
    "cpu": Machine(flops=4.3e11, bandwidth=4e10, memory=24e9, price=0.1),
}
SHARE = 0.4  # of peak that a well-filled engine reaches
BATCH = 128  # sequences decoded together
FRESH = 0.46  # share of an AutoDAN generation that was not scored before
LOAD_SECONDS = 180.0

# attack or task: tokens of its prompt and of its reply, as recorded; code and alpaca replies were not recorded: assumed
LENGTHS = {
    "derta_code": (320, 400), "code": (320, 400),
    "derta_jailbreakchat": (275, 172), "jailbreakchat": (275, 172),
    "derta_cipher": (454, 80), "cipher": (454, 80),
    "derta_completion": (30, 220), "completion": (30, 220),
    "direct": (20, 150), "pair": (150, 297), "tap": (150, 297), "autodan": (300, 276),
    "derta-gsm8k": (66, 142), "derta-mmlu": (140, 75), "derta-alpaca": (43, 300),
}  # fmt: skip
OTHER = (150, 200)  # of whatever else is asked
REQUESTS = {
    "prefill": "depths",
    "many_shot": "shots",
    "code": "families",
    "best_of_n": "n",
    "jailbreakchat": "n",
    "adaptive_prefill": "budget",
}  # setting: requests a behavior
ATTACKER_IN, ATTACKER_OUT = 900, 200  # a turn of PAIR or TAP: briefing and history; the move
CHECK_IN, CHECK_OUT = 250, 20  # whether a move of TAP is on its topic
SUFFIX_IN = 60  # tokens that a candidate of GCG adds to what all share: suffix, end of the prompt, target
JUDGE_IN, JUDGE_OUT = 350, 25  # what a judge model reads beside request and reply; its verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Calls of one kind: tokens read and written, as expected and at most; `scored` tokens are read by searches.

    `most_in`: tokens read at most, those of searches included; 0: no more than expected.
    """

    what: str
    calls: int
    tokens_in: int
    expected: int
    most: int
    scored: int = 0
    most_in: int = 0
    by: str = ""  # whose calls: "" for the model under attack


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The loads, the machine they were reckoned for, and what they come to. Hours are of wall clock, on all GPUs."""

    loads: tuple[Load, ...]
    machine: str
    gpus: int
    billions: float
    hours: float
    hours_most: float
    dollars: float
    dollars_most: float
    assumptions: tuple[str, ...]


def estimate(spec: RunSpec, *, machine: str = "", gpus: int = 0, price: float = 0.0, billions: float = 0.0) -> Estimate:
    """What a run will take. Raises UnknownName for a machine, UsageError where the model's size can't be told."""
    if not all(0 <= number < math.inf for number in (gpus, price, billions)):
        raise UsageError("--gpus, --price and --billions must be at least 0", hint="left out, each is guessed")
    spec = _spelled_out(spec)
    found = tuple(loads(spec))
    if spec.base_url or spec.model.startswith("openai/"):
        found = tuple(replace(load, by=load.by or spec.model) for load in found)
        return _reckoned(spec, found, "an endpoint", 0, 0.0, (0.0, 0.0), 0.0, _assumptions(spec, found))
    size = billions or guess_billions(spec.model)
    machine = machine or ("cpu" if size < 1 else "h100")
    if machine not in MACHINES:
        raise UnknownName("machine", machine, MACHINES)
    card, row = MACHINES[machine], known(spec.model, spec.checkpoints)
    gpus = gpus or spec.tensor_parallel or (row.gpus if row and card.memory <= 80e9 else 0)
    gpus = gpus or max(1, math.ceil(size * 2e9 * 1.3 / card.memory))
    price = price or card.price
    hours = (_hours(found, size, card, gpus, most=False), _hours(found, size, card, gpus, most=True))
    told = _assumptions(spec, found, card, price)
    return _reckoned(spec, found, machine, gpus, size, hours, price, told)


def _reckoned(
    spec: RunSpec,
    found: tuple[Load, ...],
    machine: str,
    gpus: int,
    billions: float,
    hours: tuple[float, float],
    price: float,
    assumptions: tuple[str, ...],
) -> Estimate:
    """The estimate with its dollars: what the machine costs, and what endpoints with a known price do."""
    served = [(price_of(load.by, spec.prices), load) for load in found if load.by]
    spent = sum(p.cost(load.tokens_in, load.expected) for p, load in served if p)
    most = sum(p.cost(max(load.tokens_in, load.most_in), load.most) for p, load in served if p)
    return Estimate(
        loads=found,
        machine=machine,
        gpus=gpus,
        billions=billions,
        hours=hours[0],
        hours_most=hours[1],
        dollars=hours[0] * gpus * price + spent,
        dollars_most=hours[1] * gpus * price + most,
        assumptions=assumptions,
    )


def guess_billions(model: str) -> float:
    """Billions of parameters, from the published table or the model's name. Raises UsageError when neither says."""
    if row := of_checkpoint(model):
        return row.billions
    name = model.lower()
    if "8x7b" in name:
        return 46.7
    if found := re.search(r"(?<![\d.])(\d+(?:\.\d+)?)\s?([bm])(?![a-z])", name):
        return float(found[1]) / (1.0 if found[2] == "b" else 1000.0)
    raise UsageError(f"the size of {model} can't be told from its name", hint="--billions 8")


def loads(spec: RunSpec) -> list[Load]:
    """Every kind of call the run will make, in the order of the settings."""
    spec = _spelled_out(spec)
    whole = _size(spec.behaviors, spec)
    models = _models(spec)
    found = []
    for name in spec.attacks:
        asked = min(spec.subsets().get(name, whole), whole)
        n = len(share(range(asked), spec.part())) * spec.seeds * models
        found += _attack(name, n, models * spec.seeds, spec)
    for name in spec.tasks:
        items = _size(name, spec, task=True)
        n = len(share(range(min(items, spec.task_limit or items)), spec.part())) * models
        found.append(_plain(name, n, spec))
        if name in registry.table("task") and registry.load("task", name).kind == "pairwise":
            words = sum(LENGTHS.get(name, OTHER))
            found.append(Load(what=f"{name}: comparisons", calls=2 * n, tokens_in=2 * n * (JUDGE_IN + 2 * words),
                              expected=2 * n * JUDGE_OUT, most=6 * n * 80,
                              most_in=6 * n * (JUDGE_IN + words + LENGTHS.get(name, OTHER)[0] + spec.max_tokens),
                              by=spec.judge_model))  # fmt: skip
    return found + _judged(found, spec)


def _spelled_out(spec: RunSpec) -> RunSpec:
    """The same with every attack and task by its name, whatever a model can't do of them."""
    return replace(spec, attacks=spelled_out(spec.attacks, ATTACKS), tasks=spelled_out(spec.tasks, TASKS))


def _models(spec: RunSpec) -> int:
    """How many models are asked: the base and each adapter."""
    return len(spec.adapter) + (not spec.skip_base)


def _attack(name: str, n: int, shared: int, spec: RunSpec) -> list[Load]:
    """The calls of one attack on `n` behaviors, or of `shared` searches where one serves all behaviors of a model."""
    if name.startswith("derta_") or name not in registry.table("attack"):  # the paper's own: one prompt, pulled
        return [_plain(name, n, spec)]
    attack = registry.make("attack", name, spec.options_of(name))
    searches = min(n, shared) if getattr(attack, "train", "") else n
    if name == "autodan":
        return _autodan(attack, n, searches, spec)
    if name in ("gcg", "probe_sampling"):  # the first suffix and the best are sent; candidates are read, not answered
        steps = attack.settings(0)
        return [replace(_plain(name, 2 * n, spec), scored=searches * steps.steps * steps.width * SUFFIX_IN)]
    if name in REQUESTS:
        count = getattr(attack, REQUESTS[name])
        return [_plain(name, n * (count if isinstance(count, int) else len(count)), spec)]
    return _refining(attack, n, spec) if callable(getattr(attack, "budget", None)) else [_plain(name, n, spec)]


def _plain(name: str, n: int, spec: RunSpec) -> Load:
    """One call a question."""
    read, written = LENGTHS.get(name, OTHER)
    written = min(written, spec.max_tokens)
    return Load(what=name, calls=n, tokens_in=n * read, expected=n * written, most=n * spec.max_tokens)


def _refining(attack: Any, n: int, spec: RunSpec) -> list[Load]:
    """PAIR, TAP and their like, to the last round of their own budget: what a model that never gives in costs."""
    name, budget, tries = attack.name, attack.budget(), getattr(attack, "tries", 1)
    rounds = n * (budget["target"] - 1)
    checks = max(0, n * budget.get("attacker", 0) - rounds * tries)  # of a move's topic, where the attack makes them
    reply, move = getattr(attack, "target_tokens", spec.max_tokens), getattr(attack, "attacker_tokens", ATTACKER_OUT)
    read, written = LENGTHS.get(name, OTHER)
    target = Load(
        what=f"{name}: target",
        calls=rounds + n,
        tokens_in=(rounds + n) * read,
        expected=rounds * reply + n * min(written, spec.max_tokens),
        most=rounds * reply + n * spec.max_tokens,
    )
    attacker = Load(
        what=f"{name}: attacker",
        calls=rounds + checks,
        tokens_in=rounds * ATTACKER_IN + checks * CHECK_IN,
        expected=rounds * min(ATTACKER_OUT, move) + checks * CHECK_OUT,
        most=rounds * tries * move + checks * CHECK_OUT,
        most_in=rounds * tries * ATTACKER_IN + checks * CHECK_IN,
        by=spec.attacker,
    )
    return [target, attacker]


def _autodan(attack: Any, n: int, searches: int, spec: RunSpec) -> list[Load]:
    """Every generation; its prompts are read, not answered, but for two at the end."""
    read, written = LENGTHS["autodan"]
    bred = searches * (attack.steps + 1) * attack.size * read
    rephrased = round(
        searches * (attack.size - min(len(attack.seeds()), attack.size) + attack.steps * attack.size * attack.mutation)
    )
    target = Load(
        what="autodan: target",
        calls=2 * n,
        tokens_in=2 * n * read,
        expected=2 * n * min(written, spec.max_tokens),
        most=2 * n * spec.max_tokens,
        scored=round(bred * FRESH),
        most_in=2 * n * read + bred,
    )
    attacker = Load(
        what="autodan: attacker",
        calls=rephrased,
        tokens_in=rephrased * 2 * read,
        expected=rephrased * read,
        most=rephrased * 600,
        by=spec.attacker,
    )
    return [target, attacker]


def _judged(found: Sequence[Load], spec: RunSpec) -> list[Load]:
    """What an LLM judge reads of the attacks' replies; rules read for nothing."""
    if "llm" not in spec.judge:
        return []
    attacked = [load for load in found if load.what.partition(":")[0] in spec.attacks and "attacker" not in load.what]
    calls, words = sum(load.calls for load in attacked), sum(load.expected for load in attacked)
    longest = sum(load.most for load in attacked)
    return [Load(what="judge llm", calls=calls, tokens_in=calls * JUDGE_IN + words, expected=calls * JUDGE_OUT,
                 most=calls * 600, most_in=3 * (calls * JUDGE_IN + longest), by=spec.judge_model)]  # fmt: skip


def _size(name: str, spec: RunSpec, *, task: bool = False) -> int:
    """How many questions a set has, pulled or not."""
    public = pinned.table().get(name)
    if public is not None and public.rows:
        return public.rows if task else min(public.rows, spec.limit or public.rows)
    if task:
        return int(registry.load("task", name).n or 0) if name in registry.table("task") else 0
    from harness.plan import behaviors

    return len(behaviors(name, spec))


def _hours(found: Sequence[Load], billions: float, card: Machine, gpus: int, *, most: bool) -> float:
    """Wall clock of what runs here: prompts and scoring at the pace of arithmetic, replies at that of decoding."""
    here = [load for load in found if not load.by]
    weights, flops = billions * 2e9, card.flops * gpus * SHARE
    read = sum(max(load.tokens_in + load.scored, load.most_in if most else 0) for load in here)
    written = sum(load.most if most else load.expected for load in here)
    step = max(weights / (card.bandwidth * gpus * SHARE), weights * BATCH / flops)
    return (LOAD_SECONDS + read * weights / flops + written * step / BATCH) / 3600


def _assumptions(
    spec: RunSpec, found: Sequence[Load], card: Machine | None = None, price: float = 0.0
) -> tuple[str, ...]:
    told = []
    if card is not None:
        told += [
            f"{SHARE:.0%} of {card.flops / 1e12:.3g} TFLOP/s and of {card.bandwidth / 1e12:.2g} TB/s, {BATCH} "
            "sequences at once, weights in 16 bits; GPUs add up without loss; reckoned, not measured",
            f"{price:.2f} dollars a GPU and hour; {LOAD_SECONDS / 60:.0f} minutes to load",
        ]
    for name in dict.fromkeys(load.by for load in found if load.by):
        cost = price_of(name, spec.prices)
        at = (
            f"{cost.input:g} and {cost.output:g} dollars a million tokens read and written" if cost else "price unknown"
        )
        told.append(f"{name}: on a machine or endpoint of its own, not in the hours; {at}")
    told += [
        "reply lengths: the means of the recorded 8B replies; 400 tokens for code and 300 for AlpacaEval are assumed; "
        f"at most: every reply {spec.max_tokens} tokens long, every retry needed, "
        "no generation scored before; prompts as long as assumed",
        "PAIR, TAP: no stream stops early, no branch is pruned, the first answer of the attacker is usable",
        f"AutoDAN: {FRESH:.0%} of a generation is new",
    ]
    if {"gcg", "probe_sampling"} & {*spec.attacks}:
        told.append(
            f"GCG: every step, {SUFFIX_IN} tokens a candidate; not counted: gradients, what probe sampling saves and "
            "what its draft reads"
        )
    if any(name.endswith(".train") for name in (item.partition("=")[0] for item in spec.set)):
        told.append("a training file: not counted are its lines beyond the first")
    if others := [name for name in spec.attacks if name not in LENGTHS]:
        told.append(
            f"{', '.join(others)}: {OTHER[0]} tokens read and {OTHER[1]} written a request; not counted: what an "
            "attack without a stated budget asks beyond its one request"
        )
    if spec.adapter:
        told.append(f"adapters: {_models(spec)} models in one load, each asked everything")
    if any(task not in LENGTHS for task in spec.tasks):
        told.append(f"other tasks: {OTHER[0]} tokens read and {OTHER[1]} written an item")
    return tuple(told)
