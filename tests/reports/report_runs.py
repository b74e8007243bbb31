"""Synthetic runs with hand-made numbers: one model, three models, unfinished, all unscored, empty, hostile strings."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.metrics import compute
from harness.types import Judgement, Label, Metric, Record, Run

ATTACKS = ("direct", "prefill", "completion", "code", "cipher", "jailbreakchat")
DEPTHS = (0, 1, 3, 5, 10, 20, 40, 80)
HOSTILE = (
    '#import "x"; $a_b$ *bold* @ref <b>&amp;</b> [red]x[/red] `tick` | pipe \\ "q" \u202eevil\u200b \x1b[31m\x00 '
    + "A" * 300
)


def rate(name: str, k: int, n: int, *, errors: int = 0, unscored: int = 0, **group: str) -> Metric:
    """k of n with its Wilson interval at z = 1.96, and the bounds that the missing replies leave."""
    lost, z = errors + unscored, 1.96
    whole = n + lost
    bounds = {"floor": k / whole if whole else None, "ceiling": (k + lost) / whole if whole else None}
    if not n:
        return Metric(
            name=name, value=None, low=None, high=None, n=0, n_error=errors, n_unscored=unscored, group=group, **bounds
        )
    p = k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * ((p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5) / (1 + z * z / n)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Metric(
        name=name, value=p, low=low, high=high, n=n, n_error=errors, n_unscored=unscored, group=group, **bounds
    )


def metrics_of(model: str, share: float, over: int, solved: tuple[int, int, int], depth: list[int]) -> list[Metric]:
    """Every metric of one model; `share` scales how many of 64 each attack gets an answer from."""
    hits = {"direct": 2, "prefill": 60, "completion": 62, "code": 41, "cipher": 3, "jailbreakchat": 22}
    made = [
        rate(
            "asr",
            round(k * share),
            64 - (a == "code"),
            unscored=int(a == "code"),
            errors=2 * (a == "cipher"),
            model=model,
            attack=a,
        )
        for a, k in hits.items()
    ]
    made += [
        rate("asr", round(hits[a] * share) // (i + 1), 32, model=model, attack=a, variant=v)
        for a, vs in {"code": ("list", "stack", "string", "cpp", "go"), "jailbreakchat": ("actor", "archivist")}.items()
        for i, v in enumerate(vs)
        if round(hits[a] * share) // (i + 1) <= 32
    ]
    made += [rate("asr_depth", k, 64, model=model, depth=str(d)) for d, k in zip(DEPTHS, depth, strict=True)]
    made += [rate("asr_any", round(63 * share), 64, model=model)]
    made += [
        rate("over_refusal", over, 80, model=model, task="magic_lookalikes"),
        rate("over_refusal_early", over // 3, 80, model=model, task="magic_lookalikes"),
        rate("over_refusal_late", over - over // 3, 80, model=model, task="magic_lookalikes"),
        rate("over_refusal", over // 6, 60, model=model, task="general_questions"),
        rate("over_refusal_early", over // 6, 60, model=model, task="general_questions"),
        rate("over_refusal_late", 0, 60, model=model, task="general_questions"),
        rate("answered", 76 - over, 80, model=model, task="magic_lookalikes"),
        rate("answered", 57, 60, model=model, task="general_questions"),
        rate("answered", 19, 20, model=model, task="magic_twins", attack="code"),
    ]
    made += [
        rate("helpfulness", k, 60, model=model, task=t)
        for t, k in zip(("arithmetic", "knowledge", "instructions"), solved, strict=True)
    ]
    made += [rate("refusal_first5", 95, 97, model=model)]
    for a in ATTACKS:
        made += [
            rate("refusal_first5", 15, 16, model=model, attack=a),
            rate("late_refusal", 3, 64, model=model, attack=a),
        ]
    return [*made, Metric(name="given_before_refusal", value=3.2, low=2.1, high=4.9, n=97, group={"model": model})]


def records_of(model: str, deep: float) -> list[Record]:
    """64 replies an attack; refusals begin at once, or, with probability `deep`, somewhere later."""
    rng = random.Random(f"{model}")
    made = []
    for attack in ATTACKS:
        for i in range(64):
            refuses = rng.random() < 0.5
            at = (
                (int(rng.expovariate(1 / 30)) if rng.random() < deep else rng.choice((0, 0, 0, 1, 2)))
                if refuses
                else None
            )
            label: Label = "unscored" if attack == "code" and i == 0 else "refused" if refuses else "complied"
            verdict = Judgement(judge="rules", label=label, refusal_at=at)
            error = "time-out" if attack == "cipher" and i < 2 else None
            made.append(
                Record(
                    key=f"{model}/{attack}/{i}",
                    model=model,
                    task="magic",
                    behavior=f"b{i}",
                    expect="refuse",
                    attack=attack,
                    tokens_in=40,
                    tokens_out=100,
                    judgements=() if error else (verdict,),
                    error=error,
                )
            )
    return made


def info_of(models: dict[str, int], status: str = "complete") -> dict[str, Any]:
    """A run.json as the engine writes it."""
    model = {"kind": "vllm", "engine": "vllm 0.32.0", "dtype": "bfloat16", "checkpoint_sha": "1f0c2a9d" * 2}
    return {
        "status": status,
        "command": f"harness run --model smollm2-135m --attacks {','.join(ATTACKS)} --seed 7",
        "spec": {"model": "smollm2-135m", "attacks": list(ATTACKS), "seed": 7, "max_tokens": 256, "temperature": 0.0},
        "started": "2025-03-04T10:00:00+00:00",
        "finished": "2025-03-04T10:11:42+00:00",
        "host": {"cpu": "x86-64", "cores": 2},
        "versions": {"torch": "2.13.0", "vllm": "0.32.0", "lm_eval": "0.4.13"},
        "models": {label: {**model, "parameters": size} for label, size in models.items()},
        "judges": {"rules": {"settings": {}, "sha": "c0ffee12" * 2}},
        "attacks": {attack: {"settings": {}, "sha": "5eed5eed" * 2} for attack in ATTACKS},
        "tasks": {
            "magic": {"n": 64, "sha": "ab12cd34" * 2, "kind": "behaviors"},
            "arithmetic": {"kind": "helpfulness"},
        },
        "budget": {"requests": 1284, "tokens_in": 211034, "tokens_out": 148220, "seconds_attacks": 402.5},
        "notes": ["instructions: 2 items longer than the context were left out"],
    }


def make_one() -> Run:
    """One model, complete."""
    numbers = metrics_of("smollm2-135m", 1.0, 6, (7, 21, 30), [2, 14, 33, 41, 52, 60, 61, 62])
    records = records_of("smollm2-135m", 0.05)
    return Run(
        folder=Path("runs/one"),
        info=info_of({"smollm2-135m": 134_515_008}),
        records=tuple(records),
        metrics=tuple(numbers),
    )


def make_three() -> Run:
    """Base, vanilla and derta side by side."""
    metrics = [
        *metrics_of("base", 1.0, 1, (7, 21, 30), [50, 55, 58, 60, 61, 62, 62, 63]),
        *metrics_of("vanilla", 0.92, 3, (8, 20, 29), [1, 9, 30, 44, 55, 60, 62, 62]),
        *metrics_of("derta", 0.06, 21, (6, 20, 28), [0, 0, 1, 0, 1, 2, 2, 3]),
    ]
    records = [*records_of("base", 0.02), *records_of("vanilla", 0.1), *records_of("derta", 0.7)]
    info = info_of({"base": 134_515_008, "vanilla": 134_515_008, "derta": 8_030_000_000})
    return Run(folder=Path("runs/three"), info=info, records=tuple(records), metrics=tuple(metrics))


def make_partial() -> Run:
    """Killed on the way: few records, few metrics, much of run.json not yet written."""
    run = make_one()
    kept = tuple(m for m in run.metrics if m.name == "asr" and m.group.get("attack") in ("direct", "prefill"))
    info = {k: v for k, v in run.info.items() if k in ("spec", "command", "started")} | {"status": "partial"}
    return replace(run, info=info, records=run.records[:90], metrics=kept)


def make_unscored() -> Run:
    """Every verdict was unreadable: no number at all, but every reply is counted."""
    verdict = (Judgement(judge="llm", label="unscored", reason="no verdict"),)
    records = tuple(replace(r, judgements=verdict, error=None) for r in make_one().records[:64])
    metrics = (rate("asr", 0, 0, unscored=64, model="smollm2-135m", attack="direct"),)
    return Run(folder=Path("runs/unscored"), info=info_of({"smollm2-135m": 1}), records=records, metrics=metrics)


def make_empty() -> Run:
    """A folder with nothing in it."""
    return Run(folder=Path("runs/empty"), info={}, records=(), metrics=())


def make_hostile() -> Run:
    """Every name that a run can bring is an attack on some renderer."""
    run = make_one()

    def swap(metric: Metric) -> Metric:
        return replace(metric, group={k: v if k == "depth" else f"{HOSTILE}{v}" for k, v in metric.group.items()})

    info = {
        "status": HOSTILE, "command": HOSTILE, "notes": [HOSTILE, 3], "spec": {"model": HOSTILE, HOSTILE: HOSTILE},
        "versions": {HOSTILE: HOSTILE}, "host": {"cpu": HOSTILE}, "finished": HOSTILE,
        "budget": {HOSTILE: HOSTILE, "requests": HOSTILE, "seconds_x": HOSTILE}, "attacks": {HOSTILE: {"sha": HOSTILE}},
        "models": {f"{HOSTILE}smollm2-135m": {"name": HOSTILE, "checkpoint_sha": HOSTILE}},
        "tasks": {HOSTILE: {"n": "many", "sha": HOSTILE}}, "judges": {HOSTILE: HOSTILE},
    }  # fmt: skip
    records = tuple(replace(r, model=f"{HOSTILE}{r.model}", attack=f"{HOSTILE}{r.attack}") for r in run.records[:128])
    return Run(folder=Path("runs/hostile"), info=info, records=records, metrics=tuple(map(swap, run.metrics)))


def costly(attack: str, i: int, label: Label, index: int = 0, **spent: float) -> Record:
    """One attempt with what it cost."""
    return Record(
        key=f"base/{attack}/{index}/{i}", model="base", task="magic", behavior=f"b{i}", expect="refuse", attack=attack,
        index=index, judgements=(Judgement(judge="rules", label=label),), spent=spent,
    )  # fmt: skip


def make_costs() -> Run:
    """Ten behaviors: direct never works; best of three falls at the third try on half; PAIR on all but one, dearly."""
    records = [costly("direct", i, "refused", target_queries=1, target_tokens=100) for i in range(10)]
    for i in range(10):
        labels: tuple[Label, ...] = ("refused", "refused", "complied" if i < 5 else "refused")
        records += [
            costly("best_of_n", i, x, n, target_queries=1, target_tokens=100, seconds=0.5) for n, x in enumerate(labels)
        ]
        spent = {"target_queries": 20, "attacker_queries": 20, "target_tokens": 4000, "attacker_tokens": 9000}
        ended = {"exhausted": 1.0} if i == 9 else {}
        records.append(costly("pair", i, "refused" if i == 9 else "complied", **spent, judge_tokens=500, **ended))
    info = info_of({"base": 134_515_008}) | {"attacks": {"direct": {}, "best_of_n": {}, "pair": {}}}
    return Run(folder=Path("runs/costs"), info=info, records=tuple(records), metrics=compute(records))


RUNS = {
    "costs": make_costs,
    "one": make_one,
    "three": make_three,
    "partial": make_partial,
    "unscored": make_unscored,
    "empty": make_empty,
    "hostile": make_hostile,
}
