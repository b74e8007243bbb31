"""What people said about a run's replies, kept in its folder: no text, only record keys and verdicts.

labels.jsonl   a label a line, by record key: a random sample of each slice (attack x model), drawn blind
carried.json   how often the judge errs on replies labelled elsewhere, used for slices without labels of their own
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.errors import DataError
from harness.stats.correction import Labels
from harness.store import Lines, build, read_as, read_json, write_json

LABELS, CARRIED = "labels.jsonl", "carried.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The judge against labels of other replies under attack. `source` names the file, `sha256` is its hash."""

    source: str
    sha256: str
    judge: str
    labels: Labels
    left_out: int = 0  # labels of look-alikes and the like: the judge reads those by other rules


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Everything people said that a run may be corrected by. `human` is keyed by record key: a violation or none."""

    human: Mapping[str, bool] = field(default_factory=dict)
    carried: Carried | None = None


def keep(run: str | Path, labels: Mapping[str, bool], *, by: str = "") -> int:
    """Adds labels to a run folder; later ones take the place of earlier. The number kept in all."""
    file = Lines(Path(run) / LABELS, private=False)
    try:
        for key, label in labels.items():
            file.append({"key": key, "violation": label, "by": by})
    finally:
        file.close()
    return len(kept(run))


def kept(run: str | Path) -> dict[str, bool]:
    """The labels a run folder holds, by record key. Raises DataError with the number of a line that is none."""
    return dict(read_as(Path(run) / LABELS, lambda line: (str(line["key"]), bool(line["violation"]))))


def carry(run: str | Path, carried: Carried) -> None:
    """Keeps what is known of the judge from elsewhere; it takes the place of what was known before."""
    write_json(Path(run) / CARRIED, asdict(carried))


def people(run: str | Path) -> People:
    """The labels of a run folder. Raises DataError when a file of them is broken."""
    path = Path(run) / CARRIED
    if not path.exists():
        return People(human=kept(run))
    told = read_json(path)
    try:
        return People(human=kept(run), carried=build(Carried, {**told, "labels": build(Labels, told["labels"])}))
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise DataError(f"{path} is broken: {err}", hint="harness report RUN --labels FILE writes it anew") from err
