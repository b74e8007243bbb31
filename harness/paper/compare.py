"""A run beside the published numbers: one line a measure, with what was done otherwise in a word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness.paper.protocol import is_stand_in
from harness.paper.published import Published, of_checkpoint, rows
from harness.types import Metric, Run

LANDMARKS = ("8B vanilla", "8B DeRTa")  # shown beside a model that the paper does not report


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A column of the paper's tables: its name there, its key in `published.yaml`, and what it is called here."""

    label: str
    key: str
    names: tuple[str, ...]  # of our attacks or tasks: the official prompts first, then the stand-in
    n: int  # questions in the paper
    task: bool = False
    variant: str = ""  # of our attack, where several are reported


MEASURES = (
    Measure(label="CodeAttack", key="code", names=("derta_code", "code"), n=200),
    Measure(label="PAIR", key="pair", names=("pair",), n=50),
    Measure(label="JailbreakChat", key="jailbreakchat", names=("derta_jailbreakchat", "jailbreakchat"), n=200),
    Measure(label="SelfCipher", key="cipher", names=("derta_cipher", "cipher"), n=200),
    Measure(label="CompletionAttack", key="completion", names=("derta_completion", "completion"), n=200),
    Measure(label="AutoDAN", key="autodan", names=("autodan",), n=50, variant="bred"),
    Measure(label="GSM8K", key="gsm8k", names=("derta-gsm8k", "arithmetic"), n=500, task=True),
    Measure(label="MMLU", key="mmlu", names=("derta-mmlu", "knowledge"), n=500, task=True),
    Measure(label="AlpacaEval", key="alpaca", names=("derta-alpaca", "open-ended"), n=300, task=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One measure of one model: the published percentages by row, our number, and what differs."""

    model: str
    measure: Measure
    name: str  # what was run for it here; "" where nothing was
    published: Mapping[str, float]  # row of the paper -> percent; only the model's own row, or the landmarks
    ours: Metric | None
    differs: tuple[str, ...]
    own: bool  # whether the paper reports this very model

    @property
    def gap(self) -> float | None:
        """Ours less the paper's, in points; None where one is missing or the model is another."""
        if not self.own or not self.published or self.ours is None or self.ours.value is None:
            return None
        return 100 * self.ours.value - next(iter(self.published.values()))


def beside(model: str, spec: Mapping[str, Any]) -> tuple[tuple[Published, ...], bool]:
    """The published rows a model stands beside, and whether they are its own."""
    row = of_checkpoint(model) or (of_checkpoint(str(spec.get("model", ""))) if not spec.get("adapter") else None)
    if row is not None:
        return (row,), True
    return tuple(row for row in rows() if row.name in LANDMARKS), False


def compare(run: Run) -> list[Line]:
    """Every measure of every model of a run."""
    spec: Mapping[str, Any] = run.info.get("spec", {})
    lines = []
    for model in dict.fromkeys(record.model for record in run.records):
        shown, own = beside(model, spec)
        for measure in MEASURES:
            metric, name = found(run.metrics, model, measure)
            lines.append(
                Line(
                    model=model,
                    measure=measure,
                    name=name,
                    published={row.name: row.rates[measure.key] for row in shown if measure.key in row.rates},
                    ours=metric,
                    differs=differences(measure, name, asked(run, model, name), spec) if name else ("not run",),
                    own=own,
                )
            )
    return lines


def asked(run: Run, model: str, name: str) -> int:
    """How many questions an attack or a task was asked, whatever became of them."""
    return len({r.behavior for r in run.records if r.model == model and name in (r.attack, r.task)})


def found(metrics: Iterable[Metric], model: str, measure: Measure) -> tuple[Metric | None, str]:
    """Our number for a measure, and the attack or task it comes from."""
    by = {(m.name, frozenset(m.group.items())): m for m in metrics}
    kind, key = ("helpfulness", "task") if measure.task else ("asr", "attack")
    for name in measure.names:
        group = {"model": model, key: name}
        exact = by.get((kind, frozenset({**group, "variant": measure.variant}.items()))) if measure.variant else None
        if metric := exact or by.get((kind, frozenset(group.items()))):
            return metric, name
    return None, ""


def differences(measure: Measure, name: str, seen: int, spec: Mapping[str, Any]) -> tuple[str, ...]:
    """What was done otherwise than in the paper, a few words each."""
    told = _sample(measure, name, seen, spec)
    told += _task(measure, name, spec) if measure.task else _attack(measure, spec)
    own_length = measure.task and measure.key != "alpaca"  # tasks of lm-eval bring their own
    if int(spec.get("max_tokens", 0)) != 1024 and not own_length:
        told.append(f"at most {spec.get('max_tokens')} tokens")
    if float(spec.get("temperature", 0)):
        told.append(f"temperature {spec.get('temperature')}")
    return tuple(told)


def _sample(measure: Measure, name: str, seen: int, spec: Mapping[str, Any]) -> list[str]:
    """What was asked, where it is not what the paper asked."""
    told = []
    if measure.task and name != measure.names[0]:
        told.append(f"stand-in task {name}")
    elif not measure.task and is_stand_in(spec):
        told.append(f"stand-in questions ({spec.get('behaviors')})")
    elif not measure.task and name != measure.names[0]:
        told.append(f"own prompts ({name})")
    if seen != measure.n:
        told.append(f"{seen} of {measure.n} questions")
    elif measure.n == 50:
        told.append("other 50 questions: the paper's choice is not known")
    return told


def _attack(measure: Measure, spec: Mapping[str, Any]) -> list[str]:
    judge = next(iter(spec.get("judge", ())), "")
    told = [f"judge {judge}, not people"]
    if measure.key in ("pair", "autodan"):
        told.append(f"attacker {spec.get('attacker') or 'the model itself'}, theirs is not stated")
        if cut := [item.partition(".")[2] for item in spec.get("set", ()) if item.startswith(f"{measure.key}.")]:
            told.append(f"search cut ({', '.join(cut)})")
    if measure.key == "autodan":
        told.append("own seeds")
    return told


def _task(measure: Measure, name: str, spec: Mapping[str, Any]) -> list[str]:
    if measure.key != "alpaca":
        return ["lenient reading, as recorded"] if name == "derta-gsm8k" else []
    told = [f"judge {spec.get('judge_model') or 'the model itself'}, both orders"]
    return told + ([f"reference {spec['reference']}"] if spec.get("reference") else [])


def as_json(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """The lines as plain objects, rates as fractions like every metric."""
    return [
        {
            "model": line.model,
            "measure": line.measure.label,
            "run_as": line.name,
            "published": {name: round(rate / 100, 4) for name, rate in line.published.items()},
            "own_row": line.own,
            **{
                key: getattr(line.ours, key) if line.ours else None
                for key in ("value", "low", "high", "n", "n_error", "n_unscored")
            },
            "points_apart": None if line.gap is None else round(line.gap, 2),
            "differs": list(line.differs),
        }
        for line in lines
    ]
