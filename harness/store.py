"""The run folder: append-only, private where it must be, and the same whether a run was killed or not.

    run.json           what was asked for, versions, hashes, budget, status
    records.jsonl      one record a line; no text of any model
    transcripts.jsonl  every request and reply, mode 0600
    memo.jsonl         the behaviors and what searches remember, mode 0600
    metrics.json       the numbers, made from the records

Each line is one write to a file opened for appending, so a kill leaves at most one torn last line,
which the next start cuts off. A request that was answered once is never sent again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from harness.errors import DataError, UsageError
from harness.types import Behavior, Completion, Judgement, Message, Metric, Prompt, Record, Run, Sampling, sha

T = TypeVar("T")


class Lines:
    """One append-only JSONL file. Raises UsageError when it can't be written."""

    def __init__(self, path: Path, *, private: bool) -> None:
        self.path = path
        try:
            mend(path)
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600 if private else 0o644)
        except OSError as err:
            raise disk_error(path, err) from err
        if private:
            with suppress(PermissionError):  # someone else's file, or a file system without modes
                os.fchmod(self._fd, 0o600)

    def append(self, value: Mapping[str, Any]) -> None:
        """Writes one line; it is whole in the file when this returns."""
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=plain)
        line = f"{text}\n".encode("utf-8", "backslashreplace")
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as err:
            raise disk_error(self.path, err) from err

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def disk_error(path: Path, err: OSError) -> UsageError:
    """What a user is told when a file can't be written."""
    first = "free some space" if err.errno in (errno.ENOSPC, errno.EDQUOT) else "mend that"
    hint = f"{first}, then type the same command again: it goes on from here"
    return UsageError(f"{path.name} can't be written in {path.parent}: {err.strerror}", hint=hint)


def mend(path: Path) -> None:
    """Cuts off a last line that a kill tore."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        keep = end
        while keep > 0:
            block = min(65536, keep)
            file.seek(keep - block)
            at = file.read(block).rfind(b"\n")
            if at >= 0:
                keep = keep - block + at + 1
                break
            keep -= block
        if keep < end:
            file.truncate(keep)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a JSONL file. Raises DataError with the number of one that is broken."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except ValueError as err:
                if not line.endswith("\n"):  # torn by a kill, and nothing after it
                    return
                raise DataError(f"{path} line {number} is not JSON: {err}") from err


def read_as(path: Path, make: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """What `make` makes of each line of a JSONL file. Raises DataError with the number of one of the wrong shape."""
    for number, line in enumerate(read_lines(path), 1):
        try:
            made = make(line)
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            why = f"it lacks {err}" if isinstance(err, KeyError) else str(err)
            raise DataError(f"{path} line {number} is broken: {why}") from err
        yield made


def write_json(path: Path, value: Any) -> None:
    """Replaces a JSON file in one step. Raises UsageError when it can't be written."""
    fresh = path.with_suffix(".tmp")
    try:
        fresh.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
        fresh.replace(path)
    except OSError as err:
        raise disk_error(path, err) from err


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises DataError when it can't be read or is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise DataError(f"{path} can't be read: {err.strerror}") from err
    except ValueError as err:
        raise DataError(f"{path} is broken: {err}") from err


def build(kind: type[T], value: Mapping[str, Any]) -> T:
    """A dataclass from a JSON object; keys it does not have (from a newer version) are dropped."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k in known})


def record_from(value: Mapping[str, Any]) -> Record:
    """A record from its line."""
    judgements = tuple(build(Judgement, j) for j in value.get("judgements", ()))
    return build(Record, {**value, "judgements": judgements})


def read_prompt(told: Mapping[str, Any]) -> Prompt:
    """A prompt from its JSON object in a transcript."""
    turns = tuple(Message(**turn) for turn in told.get("messages", ()))
    return Prompt(messages=turns, text=told.get("text"), prefill=told.get("prefill", ""))


def read_records(path: Path) -> dict[str, Record]:
    """The records of a file by key: a later line takes the place of an earlier one, or takes it back."""
    latest: dict[str, Record] = {}
    for key, record in read_as(path, _keyed):
        if record is None:
            latest.pop(key, None)
        else:
            latest[key] = record
    return latest


def _keyed(line: Mapping[str, Any]) -> tuple[str, Record | None]:
    """The key of a line with its record; None where the line takes it back."""
    if not isinstance(line["key"], str):
        raise TypeError("its key is no text")
    return line["key"], None if line.get("dropped") else record_from(line)


def plain(value: Any) -> dict[str, Any]:
    """A dataclass as a JSON object, without the fields that hold their default; json calls it for those inside.

    `dataclasses.asdict` copies every token offset one by one: most of what keeping a reply would cost.
    """
    named = ((f.name, getattr(value, f.name), {} if f.default is MISSING else f.default) for f in fields(value))
    return {name: held for name, held, default in named if held != default}


@contextmanager
def locked(folder: Path, who: str = "run") -> Iterator[None]:
    """Makes a folder and holds it for this process alone; one that was made for nothing is gone afterwards.

    Raises UsageError when another `who` has it, or when it can't be made.
    """
    from filelock import FileLock, Timeout

    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise UsageError(f"{folder} can't be made: {err.strerror}", hint="name another with --out") from err
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as err:
        raise UsageError(f"another {who} is writing {folder}", hint="wait for it, or name --out") from err
    except OSError as err:
        raise disk_error(folder / ".lock", err) from err
    try:
        yield
    finally:
        with suppress(OSError):
            if made and [path.name for path in folder.iterdir()] == [".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()
        lock.release()


@dataclass(slots=True)
class Store:
    """A run folder that is being written. Use as a context manager; one process at a time.

    `held`: whoever opens it has locked the folder.
    """

    folder: Path
    held: bool = False
    records: dict[str, Record] = field(default_factory=dict)
    completions: dict[str, Completion] = field(default_factory=dict)
    memos: dict[str, str] = field(default_factory=dict)
    _files: dict[str, Lines] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Store:
        """Locks the folder and reads what an earlier start left. Raises UsageError when another run has it."""
        with ExitStack() as stack:
            if not self.held:
                stack.enter_context(locked(self.folder))
            for name, private in (("records", False), ("transcripts", True), ("memo", True)):
                self._files[name] = Lines(self.folder / f"{name}.jsonl", private=private)
                stack.callback(self._files[name].close)
            self.records = read_records(self.folder / "records.jsonl")
            for key, completion in read_as(
                self.folder / "transcripts.jsonl", lambda line: (line["sha"], build(Completion, line["completion"]))
            ):
                self.completions[key] = completion
            self.memos = dict(read_as(self.folder / "memo.jsonl", lambda line: (line["key"], line["value"])))
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        """Closes the files and lets go of the folder."""
        self._open.close()

    def put_record(self, record: Record) -> None:
        """Keeps a record; one with the same key (a retried failure) takes its place."""
        self._files["records"].append(plain(record))
        self.records[record.key] = record

    def drop_record(self, key: str) -> None:
        """Takes a record back: a failure that a later start got past."""
        if self.records.pop(key, None) is not None:
            self._files["records"].append({"key": key, "dropped": True})

    def put_completion(self, key: str, prompt: Prompt, sampling: Sampling, completion: Completion) -> None:
        """Keeps a request and its reply under the request's key."""
        self._files["transcripts"].append(
            {"sha": key, "prompt": prompt, "sampling": sampling, "completion": completion}
        )
        self.completions[key] = completion

    def put_recorded(self, key: str, prompt: Prompt, completion: Completion, request: str, said: str) -> None:
        """Keeps a reply that came from elsewhere under its record's key, with what was asked and how it was read."""
        line = {"sha": key, "prompt": prompt, "completion": completion, "request": request, "said": said}
        self._files["transcripts"].append(line)

    def get(self, key: str) -> str | None:
        """What a search remembered under `key`."""
        return self.memos.get(key)

    def put(self, key: str, value: str) -> None:
        """Remembers `value` for a search."""
        self._files["memo"].append({"key": key, "value": value})
        self.memos[key] = value

    def put_behavior(self, behavior: Behavior) -> None:
        """Keeps what is asked for, so that replies can be judged again when its file is gone; once is enough."""
        key, value = f"behavior/{behavior.task}/{behavior.id}", json.dumps(plain(behavior), ensure_ascii=False)
        if self.memos.get(key) != value:
            self.put(key, value)


def request_key(model: str, prompt: Prompt, sampling: Sampling) -> str:
    """Identifies a request within a run: the same words with the same settings to the same model."""
    return sha(json.dumps([model, prompt, sampling], default=plain))


def read_metrics(path: Path) -> tuple[Metric, ...]:
    """The numbers of a run; none where there is no file. Raises DataError when it is broken."""
    if not path.exists():
        return ()
    hint = f"harness report {path.parent} writes it anew"
    try:
        return tuple(build(Metric, told) for told in read_json(path))
    except DataError as err:
        raise DataError(str(err), hint=hint) from err
    except (TypeError, AttributeError) as err:
        raise DataError(f"{path} is broken: it holds no list of metrics", hint=hint) from err


def load(folder: str | Path, *, metrics: bool = True) -> Run:
    """Reads a run folder back; without its `metrics` for who makes them anew. Raises DataError when it is none."""
    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise DataError(f"{folder} is not a run folder: it has no run.json", hint="harness run writes one")
    info = read_json(folder / "run.json")
    if not isinstance(info, dict):
        raise DataError(f"{folder / 'run.json'} is broken: it holds no named settings")
    latest = read_records(folder / "records.jsonl")
    ordered = tuple(latest[key] for key in sorted(latest))
    told = read_metrics(folder / "metrics.json") if metrics else ()
    return Run(folder=folder, info=info, records=ordered, metrics=told)


def frames(run: Run) -> tuple[Any, Any]:
    """Records and metrics of a run as pandas frames, the counting verdict in columns of its own."""
    import pandas as pd

    rows = []
    for record in run.records:
        row = {k: v for k, v in asdict(record).items() if k != "judgements"}
        if record.judgements:
            row |= {k: v for k, v in asdict(record.judgements[0]).items() if k != "judge"}
        rows.append(row)
    metrics = [{**{k: v for k, v in asdict(m).items() if k != "group"}, **m.group} for m in run.metrics]
    return pd.DataFrame(rows), pd.DataFrame(metrics)
