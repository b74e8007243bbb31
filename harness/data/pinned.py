"""Public data sets by name: pinned to an upstream commit, checked by sha256, kept in the user's private cache.

The table is `sets.yaml`. The cache and a mirror are laid out alike, OWNER/REPO/COMMIT/PATH, so that one machine's
cache serves as another's mirror. What upstream does not pin is written into `lock.json` on the first pull.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias, cast, get_args

from harness import progress
from harness.data import fetch
from harness.errors import DataError, UnknownName, UsageError
from harness.models.embedded import cache_dir, file_sha256

Kind: TypeAlias = Literal["behaviors", "over-refusal", "prompts", "helpfulness", "training", "recorded"]
State: TypeAlias = Literal["ok", "missing", "changed", "unknown"]

TABLE = Path(__file__).with_name("sets.yaml")
MIRROR = "HARNESS_MIRROR"
"""Environment variable that names a mirror: a folder, or the address of one served over HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of a set. `sha256` and `bytes` are empty where they are recorded on the first pull."""

    path: str
    sha256: str = ""
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """A public data set: where it comes from, what it may be used for, and what its columns are called."""

    name: str
    about: str
    kind: Kind
    licence: str
    files: tuple[File, ...]
    github: str = ""  # OWNER/REPO on GitHub, or
    hub: str = ""  # OWNER/NAME of a data set on the Hugging Face hub
    commit: str = ""  # empty: the newest is resolved on the first pull, and kept
    columns: tuple[str, ...] = ()
    rows: int | None = None
    note: str = ""

    @property
    def repo(self) -> str:
        """OWNER/REPO, wherever it lies."""
        return self.github or self.hub

    def url(self, file: File, commit: str) -> str:
        """Where upstream serves a file."""
        if self.github:
            return f"https://raw.githubusercontent.com/{self.repo}/{commit}/{file.path}"
        return f"https://huggingface.co/datasets/{self.repo}/resolve/{commit}/{file.path}"


@functools.cache
def table() -> Mapping[str, DataSet]:
    """Every set by name, in the order of the table."""
    import yaml

    told = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return {name: _entry(name, row) for name, row in told.items()}


def _entry(name: str, row: dict[str, Any]) -> DataSet:
    files = tuple(File(**each) for each in row.pop("files"))
    if row["kind"] not in get_args(Kind) or bool(row.get("github")) == bool(row.get("hub")) or not files:
        raise DataError(f"{TABLE.name}: {name} is not a complete entry")
    return DataSet(name=name, files=files, columns=tuple(row.pop("columns", ())), **row)


def find(name: str) -> DataSet:
    """A set by name. Raises UnknownName with the nearest one."""
    known = table()
    if name not in known:
        raise UnknownName("data set", name, known, hint="see: harness data ls")
    return known[name]


def path(name: str, file: str = "") -> Path:
    """Where a pulled file lies, checked by hash again; a set's first file unless `file` is the name of another.

    Pulls nothing. Raises UnknownName for an unknown set or file, UsageError for one that was not pulled, DataError
    for one that has changed since.
    """
    one = find(name)
    chosen = pick(one, file)
    where = place(one, chosen)
    if where is None or not where.is_file():
        raise UsageError(f"data set {name!r} is not on this machine", hint=f"harness data pull {name}")
    expected = chosen.sha256 or Lock.read().sha256(one, chosen)
    _same(where, expected, f"harness data pull {name}")
    return where


def pick(one: DataSet, file: str) -> File:
    """A file of a set, by its path or by the end of it. Raises UnknownName."""
    if not file:
        return one.files[0]
    tail = PurePosixPath(file).parts
    for each in one.files:
        if PurePosixPath(each.path).parts[-len(tail) :] == tail:
            return each
    raise UnknownName(f"file of {one.name}:", file, [each.path for each in one.files])


def pulled(name: str) -> bool:
    """Whether every file of a set is there; whether they are the right ones, `verify` and `path` say."""
    one = find(name)
    places = [place(one, file) for file in one.files]
    return all(where is not None and where.is_file() for where in places)


def begun(name: str) -> bool:
    """Whether any file of a set is there."""
    one = find(name)
    return any((where := place(one, file)) is not None and where.exists() for file in one.files)


def place(one: DataSet, file: File) -> Path | None:
    """Where a file lies, or will; None while the commit is not known."""
    commit = one.commit or Lock.read().commit(one)
    return home() / one.repo / commit / file.path if commit else None


def home() -> Path:
    """The private folder that holds every pulled file."""
    return cache_dir() / "data"


def pull(name: str, mirror: str | Path | None = None) -> Path:
    """Fetches what is missing of a set and checks all of it; returns what `path` does.

    From `mirror` (a folder or an address), else from HARNESS_MIRROR, else from upstream. No file that fails its
    check is ever left under its own name. Raises UnknownName, or DataError when it can't be had.
    """
    from filelock import FileLock

    one = find(name)
    source = str(mirror or os.environ.get(MIRROR, ""))
    if "://" in source and not source.startswith(("http://", "https://")):
        raise UsageError(f"a mirror is a folder or an http(s) address, not {source}")
    fetch.private_folder(home())
    with FileLock(home() / ".lock", mode=0o600):
        lock = Lock.read()
        commit = one.commit or lock.commit(one) or _resolved(one, source)
        if not one.commit:
            lock.keep_commit(one, commit)  # first, so that a download that is cut off goes on with the same one
        for file in one.files:
            target = home() / one.repo / commit / file.path
            expected = file.sha256 or lock.sha256(one, file)
            if target.is_file() and expected and file_sha256(target) == expected:
                continue
            _fetch(one, file, commit, source, target, expected)
            if not file.sha256:
                lock.keep_sha256(one, file, file_sha256(target))
    return path(name)


def _fetch(one: DataSet, file: File, commit: str, source: str, target: Path, expected: str) -> None:
    """One file from where it is to come from."""
    if not source or "://" in source:
        base = f"{source.rstrip('/')}/{one.repo}/{commit}/{file.path}" if source else one.url(file, commit)
        fetch.download(base, target, sha256=expected, size=file.bytes, title=f"{one.name}: {target.name}")
        return
    origin = Path(source).expanduser() / one.repo / commit / file.path
    with progress.step(f"{one.name}: {target.name} from the mirror"):
        fetch.copy(origin, target, sha256=expected)


def _resolved(one: DataSet, source: str) -> str:
    """The commit to use of a set that names none: the only one of a mirror, or upstream's newest."""
    if "://" in source:
        raise UsageError(
            f"{one.name} is not pinned, and {source} can't be asked for its commit", hint="--mirror FOLDER"
        )
    if source:
        folder = Path(source).expanduser() / one.repo
        found = sorted(each.name for each in folder.glob("*") if each.is_dir())
        if len(found) == 1:
            return found[0]
        what = "holds none" if not found else f"holds several: {', '.join(found)}"
        raise DataError(f"{one.name} needs one commit of {one.repo}; {folder} {what}")
    api = "https://api.github.com/repos/{}/commits/HEAD" if one.github else "https://huggingface.co/api/datasets/{}"
    told = fetch.get_json(api.format(one.repo))
    commit = told.get("sha") if isinstance(told, dict) else None
    if not isinstance(commit, str) or len(commit) != 40 or set(commit) - set("0123456789abcdef"):
        raise DataError(f"{one.name}: upstream did not say which commit is its newest")
    return commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What `verify` found of one file."""

    set: str
    file: str
    state: State


def verify(name: str) -> tuple[Checked, ...]:
    """Every file of a set, hashed again. Raises UnknownName."""
    one, lock, found = find(name), Lock.read(), []
    for file in one.files:
        where, expected = place(one, file), file.sha256 or lock.sha256(one, file)
        state: State = "missing"
        if where is not None and where.is_file():
            state = "unknown" if not expected else "ok" if file_sha256(where) == expected else "changed"
        found.append(Checked(set=name, file=file.path, state=state))
    return tuple(found)


def _same(where: Path, expected: str, hint: str) -> None:
    """Raises DataError unless a file is the pinned one."""
    found = file_sha256(where)
    if found != expected:
        told = f"sha256 {found[:16]}…, expected {expected[:16]}…" if expected else "it was never recorded"
        raise DataError(f"{where} is not the pinned file: {told}", hint=hint)


@dataclass(slots=True)
class Lock:
    """What first pulls found out about sets that the table does not pin in full: `lock.json`, private."""

    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Lock:
        """As it stands; empty where there is none. Raises DataError for a broken one."""
        file = home() / "lock.json"
        if not file.exists():
            return cls()
        try:
            return cls(cast("dict[str, dict[str, Any]]", json.loads(file.read_text(encoding="utf-8"))))
        except ValueError as err:
            raise DataError(f"{file} is broken: {err}", hint="delete it, and pull again") from err

    def commit(self, one: DataSet) -> str:
        """The commit a first pull settled on, or empty."""
        return str(self.known.get(one.name, {}).get("commit", ""))

    def sha256(self, one: DataSet, file: File) -> str:
        """The hash a first pull recorded, or empty."""
        return str(self.known.get(one.name, {}).get("files", {}).get(file.path, ""))

    def keep_commit(self, one: DataSet, commit: str) -> None:
        """Records a commit."""
        self.known.setdefault(one.name, {})["commit"] = commit
        self._write()

    def keep_sha256(self, one: DataSet, file: File, sha256: str) -> None:
        """Records a hash."""
        self.known.setdefault(one.name, {}).setdefault("files", {})[file.path] = sha256
        self._write()

    def _write(self) -> None:
        text = json.dumps(self.known, indent=2, sort_keys=True) + "\n"
        with fetch.replacing(home() / "lock.json") as file:
            file.write(text.encode())
