"""The policy: what may change between two runs. A short YAML file, checked key by key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from harness.errors import UnknownName, UsageError
from harness.stats.correction import Labels

Cost: TypeAlias = Literal["tokens", "queries", "seconds"]
SECTIONS = ("asr", "overall", "unrefused", "over_refusal", "helpfulness", "unscored", "cost")
EXACT = 10**6  # labels that stand for a rate without error
NUMBERS = {"alpha": 0.5, "power": 1.0, "errors": 1.0}  # each lies above 0 and below this; alpha at a half is a coin


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """`margin`: how much worse than the baseline is accepted. `bound`: a ceiling (for helpfulness, a floor)."""

    margin: float | None = None
    bound: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is checked, and how strictly; a section that is None is not checked."""

    alpha: float = 0.05
    power: float = 0.8
    asr: Limit | None = None
    attacks: Mapping[str, Limit] = field(default_factory=dict)
    overall: Limit | None = None
    unrefused: Limit | None = None
    over_refusal: Limit | None = None
    helpfulness: Limit | None = None
    unscored: Limit | None = None
    cost: Limit | None = None
    cost_of: Cost = "tokens"
    errors: float = 0.05
    judge: Labels | None = None
    looks: int = 1

    def for_attack(self, attack: str) -> Limit | None:
        """The limit of one attack: its own, or that of all."""
        return self.attacks.get(attack, self.asr)


def load_policy(path: str | Path | None = None) -> Policy:
    """Reads a policy file; without one, the policy that comes with the package. Raises UsageError."""
    if path is None:
        return parse_policy(resources.files("harness.gate").joinpath("gate.yaml").read_text(encoding="utf-8"))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as err:
        raise UsageError(f"policy {path} can't be read: {err.strerror}", hint="name it with --policy") from err
    except UnicodeDecodeError as err:
        raise UsageError(f"policy {path} is not UTF-8 text", hint="name another with --policy") from err
    return parse_policy(text, name=str(path))


def parse_policy(text: str, name: str = "gate.yaml") -> Policy:
    """A policy from YAML. Raises UnknownName (with the nearest known key) or UsageError."""
    told = _mapping(_parsed(text, name) or {}, name, (*NUMBERS, *SECTIONS, "judge", "looks"))
    if not any(section in told for section in SECTIONS):
        raise UsageError(f"{name} checks nothing", hint=f"give at least one of: {', '.join(SECTIONS)}")
    settings: dict[str, Any] = {
        key: _number(told[key], f"{name}: {key}", top) for key, top in NUMBERS.items() if key in told
    }
    for section in SECTIONS:
        if section in told:
            settings[section] = _limit(told[section], f"{name}: {section}", section)
    if "attacks" in told.get("asr", {}):
        own = _mapping(told["asr"]["attacks"], f"{name}: asr.attacks")
        settings["attacks"] = {str(k): _limit(v, f"{name}: asr.attacks.{k}", "attack") for k, v in own.items()}
    if "of" in told.get("cost", {}):
        settings["cost_of"] = of = told["cost"]["of"]
        if of not in get_args(Cost):
            raise UnknownName(f"{name}: cost.of:", str(of), get_args(Cost))
    if "judge" in told:
        settings["judge"] = _labels(told["judge"], f"{name}: judge")
    if "looks" in told:
        settings["looks"] = _whole(told["looks"], f"{name}: looks", 1, 20)
    return Policy(**settings)


def _parsed(text: str, name: str) -> Any:
    """The value of YAML in which no key stands twice: of two the last would win, unseen. Raises UsageError."""
    import yaml

    class Loader(yaml.SafeLoader):
        """As safe, and stricter."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                raise UsageError(f"{name} holds {', '.join(map(repr, twice))} twice", hint="leave one of them out")
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as err:
        raise UsageError(f"{name} is not YAML: {' '.join(str(err).split())}") from err


def _limit(told: Any, where: str, section: str) -> Limit:
    bound = "floor" if section == "helpfulness" else "ceiling"
    extra = {"asr": ("attacks",), "cost": ("of",)}.get(section, ())
    known = ("margin",) if section == "cost" else ("margin", bound)
    told = _mapping(told, where, (*known, *extra))
    numbers = {
        key: _number(told[key], f"{where}.{key}", 100.0 if section == "cost" else 1.0) for key in known if key in told
    }
    if not numbers and not told.get("attacks"):
        raise UsageError(f"{where} has no limit", hint=f"give it one of: {', '.join(known)}")
    return Limit(margin=numbers.get("margin"), bound=numbers.get(bound))


def _labels(told: Any, where: str) -> Labels:
    """Counts, or the two rates where that is all that is known: those are then taken to be exact."""
    known, rates = ("positives", "hits", "negatives", "correct_rejections"), ("sensitivity", "specificity")
    told = _mapping(told, where, rates if isinstance(told, dict) and any(r in told for r in rates) else known + rates)
    if rates[0] in told or rates[1] in told:
        for key in rates:
            if key not in told:
                raise UsageError(f"{where} lacks {key!r}", hint="give both: {sensitivity: 0.93, specificity: 0.97}")
        hits, rejections = (round(_number(told[key], f"{where}.{key}", 1.0) * EXACT) for key in rates)
        return Labels(positives=EXACT, hits=hits, negatives=EXACT, correct_rejections=rejections)
    for key in known:
        if key not in told:
            raise UsageError(f"{where} lacks {key!r}", hint="harness judge check prints all four counts")
    try:
        positives, hits, negatives, rejections = (_whole(told[key], f"{where}.{key}", 0, 10**9) for key in known)
        return Labels(positives=positives, hits=hits, negatives=negatives, correct_rejections=rejections)
    except ValueError as err:
        raise UsageError(
            f"{where}: {err}", hint="hits are among positives, correct_rejections among negatives"
        ) from err


def _mapping(told: Any, where: str, known: tuple[str, ...] | None = None) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise UsageError(f"{where} must hold named settings, not {told!r}", hint="such as {margin: 0.05}")
    for key in told:
        if known is not None and key not in known:
            raise UnknownName(f"key of {where}:", str(key), known)
    return told


def _number(told: Any, where: str, top: float) -> float:
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 < told < top:
        hint = "half as much again is written 0.5" if top > 1 else "5 points are written 0.05"
        raise UsageError(f"{where}: {told!r} is not a number between 0 and {top:g}", hint=hint)
    return float(told)


def _whole(told: Any, where: str, least: int, most: int) -> int:
    if isinstance(told, bool) or not isinstance(told, int) or not least <= told <= most:
        raise UsageError(f"{where}: {told!r} is not a whole number from {least} to {most}")
    return told
