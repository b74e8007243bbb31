"""Joins run folders into one: the parts of a sharded run, or runs of several models with the same settings.

The folder that comes out is like any other: the parts of one run make up what the whole run would have written, under
the identity of the whole, so the run's own command finds it finished, or goes on with what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from harness.config import RunSpec
from harness.errors import DataError, UsageError
from harness.labels import CARRIED, LABELS, carry, kept, people
from harness.store import Lines, Store, build, load, read_lines, write_json
from harness.types import Run, sha

OPENING = frozenset(
    {"model", "adapter", "base_url", "api_key_env", "judge_api_key_env", "attacker_api_key_env",
     "reference_api_key_env", "can", "concurrency", "timeout", "dtype", "tensor_parallel",
     "gpu_memory", "max_model_len", "chat_template", "trust_remote_code", "engine", "checkpoints", "skip_base"}
)  # fmt: skip
"""Settings that say which model is attacked and how it is opened: runs that differ in these can stand side by side."""


def merge(folders: Sequence[Path], out: Path) -> Run:
    """Writes the joined run and its reports into `out`.

    Raises UsageError when the runs do not belong together, a part comes twice or `out` holds a run; DataError for a
    folder that holds none. A part that is missing or not finished leaves the whole "partial".
    """
    from harness.engine import rewrite

    if len(folders) < 2:
        raise UsageError("name two run folders or more", hint="harness paper --merge runs/a runs/b --out runs/whole")
    if (out / "run.json").exists():
        raise UsageError(f"{out} already holds a run", hint="name another folder with --out")
    runs = [load(folder) for folder in folders]
    specs = [build(RunSpec, run.info.get("spec", {})) for run in runs]
    _same_settings(folders, specs)
    info = _info(runs, specs, _gaps(folders, specs))
    _disjoint(runs)
    labels, carried = [kept(folder) for folder in folders], [people(folder).carried for folder in folders]
    with Store(out) as store:
        for run in runs:
            for record in run.records:
                store.put_record(record)
    for name in ("transcripts.jsonl", "memo.jsonl"):
        _append(out / name, [folder / name for folder in folders], private=True)
    if bare := [run.folder.name for run, one in zip(runs, labels, strict=True) if any(labels) and not one]:
        info["notes"].append(f"people labelled nothing of {', '.join(bare)}")
    if any(labels):
        _append(out / LABELS, [folder / LABELS for folder in folders], private=False)
    if carried[0] and all(one == carried[0] for one in carried):
        carry(out, carried[0])
    elif any(carried):
        told = f"the parts differ in {CARRIED}: none was kept; harness report RUN --labels FILE makes one"
        info["notes"].append(told)
    write_json(out / "run.json", info)
    return rewrite(out)


def whole(spec: RunSpec) -> RunSpec:
    """The settings of the run that a part belongs to."""
    return replace(spec, shard="")


def _same_settings(folders: Sequence[Path], specs: Sequence[RunSpec]) -> None:
    for folder, spec in zip(folders[1:], specs[1:], strict=True):
        free = OPENING | {"shard", "profile"}
        names = [f.name for f in fields(RunSpec) if f.name not in free]
        if differs := [name for name in names if getattr(spec, name) != getattr(specs[0], name)]:
            hint = "merge joins the parts of one run, or runs that differ in the model alone"
            raise UsageError(f"{folder} was run with other settings than {folders[0]}: {', '.join(differs)}", hint=hint)


def _gaps(folders: Sequence[Path], specs: Sequence[RunSpec]) -> list[str]:
    """The parts that are missing of each run, in words. Raises UsageError when one comes twice or they do not fit."""
    parts: dict[str, dict[int, Path]] = {}
    sizes: dict[str, int] = {}
    for folder, spec in zip(folders, specs, strict=True):
        key, (index, count) = whole(spec).identity(), spec.part()
        if sizes.setdefault(key, count) != count:
            other = next(iter(parts[key].values()))
            raise UsageError(f"{_cut(folder, count)}, {_cut(other, sizes[key])}", hint="one cut at a time")
        if index in parts.setdefault(key, {}):
            raise UsageError(f"{folder} and {parts[key][index]} are the same part", hint="name each part once")
        parts[key][index] = folder
    models = {whole(spec).identity(): spec.model for spec in specs}
    return [
        f"part {index + 1}/{sizes[key]} of {models[key]} is missing"
        for key, found in parts.items()
        for index in range(sizes[key])
        if index not in found
    ]


def _cut(folder: Path, count: int) -> str:
    return f"{folder} is {f'one of {count} parts' if count > 1 else 'a whole run'}"


def _disjoint(runs: Sequence[Run]) -> None:
    """Raises UsageError when two of the runs hold the same record."""
    taken: dict[str, Path] = {}
    for run in runs:
        for record in run.records:
            if (other := taken.setdefault(record.key, run.folder)) != run.folder:
                hint = "each part and each model once"
                raise UsageError(f"{run.folder} and {other} both hold {record.key}", hint=hint)


def _append(path: Path, sources: Sequence[Path], *, private: bool) -> None:
    """Copies lines; what two parts both asked is kept twice, which harms nothing."""
    lines = Lines(path, private=private)
    try:
        for source in sources:
            for line in read_lines(source):
                lines.append(line)
    finally:
        lines.close()


def _info(runs: Sequence[Run], specs: Sequence[RunSpec], gaps: Sequence[str]) -> dict[str, Any]:
    """run.json of the whole: the first one's, with what the others add."""
    infos = [dict(run.info) for run in runs]
    open_parts = [f"{run.folder.name} is not finished" for run in runs if run.info.get("status") != "complete"]
    notes = dict.fromkeys(note for info in infos for note in info.get("notes", ()))
    identities = list(dict.fromkeys(whole(spec).identity() for spec in specs))
    models = list(dict.fromkeys(spec.model for spec in specs))
    budget: dict[str, float] = {}
    for info in infos:
        for name, amount in info.get("budget", {}).items():
            budget[name] = round(budget.get(name, 0) + amount, 3)
    return {
        **infos[0],
        "status": "partial" if gaps or open_parts else "complete",
        "identity": identities[0] if len(identities) == 1 else sha(identities)[:8],
        "command": f"harness paper --merge {' '.join(run.folder.name for run in runs)}",
        "spec": {**infos[0].get("spec", {}), "shard": "", "model": ",".join(models)},
        "started": min(str(info.get("started")) for info in infos),
        "finished": None if gaps or open_parts else max(str(info.get("finished")) for info in infos),
        **{key: _union(infos, key) for key in ("models", "judges", "attacks", "tasks")},
        "budget": budget,
        "notes": [*notes, f"joined from {len(runs)} run folders", *gaps, *open_parts],
    }


def _union(infos: Sequence[dict[str, Any]], key: str) -> dict[str, Any]:
    """The entries of all; where several describe one thing, the first one's. Raises DataError where hashes differ."""
    found: dict[str, Any] = {}
    for info in infos:
        for name, entry in info.get(key, {}).items():
            known = found.setdefault(name, entry)
            ours, theirs = _hashes(known), _hashes(entry)
            if any(ours[part] != theirs[part] for part in ours.keys() & theirs.keys()):
                raise DataError(f"the runs used different {key}: {name} has other hashes")
    return found


def _hashes(entry: Any) -> dict[str, Any]:
    return {k: v for k, v in entry.items() if k == "sha" or str(k).endswith("_sha")} if isinstance(entry, dict) else {}
