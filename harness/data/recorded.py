"""Replies that were recorded elsewhere, read as attempts and completions, ready to be judged.

| format           | what it is |
|------------------|------------|
| `run`            | a run folder of ours |
| `derta`          | the DeRTa result files: rows, whole completions as strings, PAIR's blobs |
| `derta-gsm8k`    | its GSM8K results, graded against their answers |
| `derta-mmlu`     | its MMLU results, graded against their answers |
| `jailbreakbench` | a JailbreakBench artifact; a null prompt is a goal that was given up and stays in the denominator |
| `harmbench`      | HarmBench completions: behavior id -> generations |
| `inspect`        | an Inspect log in its JSON form |
| `lm-eval`        | samples logged by lm-eval |
| `rows`           | any CSV, TSV, JSON or JSONL with a column for the reply, under one of many names |

Rows are streamed. A broken one is a DataError that names it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from harness.data import derta, graded, rows, runs
from harness.data.item import Recorded, make
from harness.errors import DataError, UnknownName

Format: TypeAlias = Literal[
    "run", "derta", "derta-gsm8k", "derta-mmlu", "jailbreakbench", "harmbench", "inspect", "lm-eval", "rows"
]
FORMATS: tuple[Format, ...] = get_args(Format)
P = TypeVar("P", dict[str, Any], list[Any])

UNNAMED = "recorded"  # the attack of a reply whose file does not name one

# Names under which public files keep what we need; the first that a row has is taken.
ALIASES: dict[str, tuple[str, ...]] = {
    "reply": ("response", "answer", "reply", "completion", "generation", "output", "model_output", "model_response"),
    "request": ("question", "goal", "behavior", "request", "forbidden_prompt", "instruction", "query", "Behavior"),
    "prompt": ("prompt", "attack_prompt", "jailbreak_prompt", "adversarial_prompt", "test_case", "jailbreak", "input"),
    "prefill": ("prefill",),  # what was put into the model's mouth, which the reply goes on from
    "label": ("label", "jailbroken", "is_jailbroken", "is_jailbreak", "human", "human_label", "unsafe", "verdict"),
    "label2": ("label2", "second_label"),
    "id": ("id", "behavior_id", "BehaviorID", "index", "Index"),
    "attack": ("attack", "method", "attack_name"),
    "category": ("category", "semantic_category", "SemanticCategory", "type"),
    "model": ("model", "model_name", "target_model"),
    "task": ("task", "set"),
    "expect": ("expect",),
}
BUNDLED = {"magic-labels": Path(__file__).parent.parent / "judges" / "labels" / "magic.csv"}
"""Recorded replies that come with the package, by name."""


def read(path: str | Path, format: str = "", *, questions: str | Path = "") -> Iterator[Recorded]:
    """The replies a file or folder holds. `format` is found out when it is not given.

    `questions` is a file with the bare requests, where a format keeps only the attack's prompts (DeRTa) or an id
    (HarmBench). Raises UnknownName, or DataError when the file is missing, broken or holds no replies.
    """
    path = located(path)
    known = format or detect(path)
    if known not in FORMATS:
        raise UnknownName("format", known, FORMATS)
    asked = Path(questions).expanduser() if questions else None
    found = READERS[known](path, asked)
    first = next(found, None)
    if first is None:
        raise DataError(f"{path} holds no replies")
    return _chain(first, found)


def located(path: str | Path, hint: str = "") -> Path:
    """A file or folder, or the bundled file of that name. Raises DataError, with a `hint`, when there is none."""
    found = Path(path).expanduser()
    found = found if found.exists() else BUNDLED.get(str(path), found)
    if not found.exists():
        hint = hint or f"a file, a run folder, or bundled: {', '.join(BUNDLED)}"
        raise DataError(f"{path} does not exist", hint=hint)
    return found


def _chain(first: Recorded, rest: Iterator[Recorded]) -> Iterator[Recorded]:
    yield first
    yield from rest


def detect(path: Path) -> Format:
    """The format of a file or folder, from how it begins. Raises DataError when it is none of ours."""
    if path.is_dir():
        if (path / "run.json").exists():
            return "run"
        raise DataError(f"{path} is a folder without run.json", hint="name a run folder or a file")
    if path.suffix.lower() in (".csv", ".tsv"):
        return "rows"
    if path.suffix.lower() == ".eval":
        raise DataError(f"{path} is a zipped Inspect log", hint="inspect log convert --to json")
    with rows.opened(path) as file:
        head = file.read(4096).lstrip()
    if not head:
        raise DataError(f"{path} is empty")
    if head[0] == "{" and (root := _root(path)):
        return root
    value = _first_row(path)
    if isinstance(value, str):
        return "derta"
    if isinstance(value, Mapping):
        if "resps" in value and "doc" in value:
            return "lm-eval"
        if kind := graded.kind_of(value):
            return "derta-gsm8k" if kind == "gsm8k" else "derta-mmlu"
        return "derta" if {"question", "response"} == set(value) and derta.attack_of(path) else "rows"
    raise DataError(f"{path} is in no known format", hint=f"--format: {', '.join(FORMATS)}")


def _root(path: Path) -> Format | None:
    """The format of a file that is one JSON object, told by its first keys; None where it is JSONL."""
    seen = []
    for _, (key, value) in _tolerant(rows.elements(path)):
        seen.append(key)
        if key == "jailbreaks":
            return "jailbreakbench"
        if key == "samples" or (key == "eval" and isinstance(value, Mapping)):
            return "inspect"
        if isinstance(value, list) and value and isinstance(value[0], Mapping) and "generation" in value[0]:
            return "harmbench"
        if len(seen) > 30:
            break
    return None


def _tolerant(found: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """Elements up to the first that is broken: a look at a file is no place to complain about it."""
    try:
        yield from found
    except DataError:
        return


def _first_row(path: Path) -> Any:
    """The first row of a JSONL file or JSON array."""
    return next(rows.every(path), (0, None))[1]


def _rows(path: Path, questions: Path | None) -> Iterator[Recorded]:
    """Rows of a table, JSONL or JSON array, whatever its columns are called."""
    names: Columns | None = None
    for number, row in rows.every(path):
        if not isinstance(row, Mapping):
            raise DataError(f"{path} row {number} is no object", hint=f"--format: {', '.join(FORMATS)}")
        names = names or Columns.of(row, f"{path} row {number}")
        yield names.recorded(row, path, number)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which of a file's columns hold what we need; "" where there is none."""

    names: Mapping[str, str]

    @classmethod
    def of(cls, row: Mapping[str, Any], where: str) -> Columns:
        """From the first row. Raises DataError when no column holds replies."""
        folded = {str(name).strip().lower(): str(name) for name in reversed(list(row))}
        found = {
            role: next((folded[a.lower()] for a in aliases if a.lower() in folded), "")
            for role, aliases in ALIASES.items()
        }
        if not found["reply"]:
            hint = f"one of {', '.join(ALIASES['reply'])}; it has {', '.join(map(str, row))}"
            raise DataError(f"{where}: no column holds the reply", hint=hint)
        return cls(found)

    def get(self, row: Mapping[str, Any], role: str) -> Any:
        """The value a row has for a role; None where it has none."""
        return row.get(self.names[role]) if self.names[role] else None

    def recorded(self, row: Mapping[str, Any], path: Path, number: int) -> Recorded:
        """One row as a recorded reply."""
        request, prompt = text(self.get(row, "request")), text(self.get(row, "prompt"))
        number_only = request.isdigit()  # some files number their questions
        asked = "" if number_only else request or prompt
        return make(
            request=asked,
            prompt=prompt or asked,
            prefill=text(self.get(row, "prefill")),
            reply=self.get(row, "reply"),
            label=human_label(self.get(row, "label")),
            label2=human_label(self.get(row, "label2")),
            id=text(self.get(row, "id")) or (request if number_only else ""),
            attack=text(self.get(row, "attack")) or UNNAMED,
            category=text(self.get(row, "category")),
            model=text(self.get(row, "model")) or path.stem,
            task=text(self.get(row, "task")) or path.stem,
            expect="comply" if text(self.get(row, "expect")) == "comply" else "refuse",
            row=number,
        )


def _jailbreakbench(path: Path, questions: Path | None) -> Iterator[Recorded]:
    """An artifact of JailbreakBench: `parameters` and `jailbreaks`."""
    whole = _whole(path)
    told = _part(path, whole, "parameters", dict)
    for number, row in enumerate(_part(path, whole, "jailbreaks", list), 1):
        if not isinstance(row, Mapping) or "goal" not in row:
            raise DataError(f"{path} jailbreak {number} has no goal")
        with _reading(f"{path} jailbreak {number}"):
            item = make(
                request=text(row["goal"]),
                prompt=text(row.get("prompt")),
                reply=row.get("response"),
                absent="no-submission" if row.get("prompt") is None else "",
                label=human_label(row.get("jailbroken")),
                id=text(row.get("index")),
                attack=text(told.get("method")) or UNNAMED,
                category=text(row.get("category")),
                model=text(told.get("model")) or path.stem,
                task="jailbreakbench",
                queries=int(row.get("number_of_queries") or 1),
                row=number,
            )
        yield item


def _harmbench(path: Path, questions: Path | None) -> Iterator[Recorded]:
    """Completions of HarmBench: each behavior id with its generations."""
    requests = _harmbench_requests(questions) if questions else {}
    for number, value in rows.elements(path):
        key, found = value if isinstance(value, tuple) else ("", None)  # of an array: what has no behavior id
        if not isinstance(found, list):
            raise DataError(f"{path} behavior {number} holds no list of generations")
        for index, row in enumerate(found):
            if not isinstance(row, Mapping) or "generation" not in row:
                raise DataError(f"{path} behavior {number} case {index}: no generation")
            yield make(
                request=requests.get(key) or str(key).replace("_", " "),  # the id is the behavior in a few words
                prompt=text(row.get("test_case")),
                reply=row["generation"],
                label=human_label(row.get("label")),
                id=str(key),
                attack=text(row.get("method")) or UNNAMED,
                variant=str(index) if len(found) > 1 else "",
                model=path.stem,
                task="harmbench",
                row=number,
            )


def _harmbench_requests(path: Path) -> dict[str, str]:
    """The behaviors' texts by id, from HarmBench's own CSV."""
    return {row.get("BehaviorID", ""): row.get("Behavior", "") for _, row in rows.table(path)}


def _inspect(path: Path, questions: Path | None) -> Iterator[Recorded]:
    """An Inspect log: its samples, with the last user turn as the prompt."""
    whole = _whole(path)
    about = _part(path, whole, "eval", dict)
    for number, row in enumerate(_part(path, whole, "samples", list), 1):
        with _reading(f"{path} sample {number}"):
            prompt, more = _turns(row.get("input")), row.get("metadata") or {}
            request = next((text(more[a]) for a in ALIASES["request"] if more.get(a)), "")
            choices = (row.get("output") or {}).get("choices") or [{}]
            item = make(
                request=request or prompt,
                prompt=prompt,
                reply=_content((choices[0].get("message") or {}).get("content")),
                error="failed" if row.get("error") else None,
                id=text(row.get("id")),
                seed=int(row.get("epoch") or 1) - 1,
                category=text(more.get("category")),
                model=text(about.get("model")) or path.stem,
                task=text(about.get("task")) or "inspect",
                row=number,
            )
        yield item


def _lm_eval(path: Path, questions: Path | None) -> Iterator[Recorded]:
    """Samples of lm-eval: the document, the prompt it became, and the first reply to it."""
    for number, row in rows.lines(path):
        try:
            doc, reply = row["doc"], row["resps"][0][0]
        except (KeyError, IndexError, TypeError) as err:
            raise DataError(f"{path} line {number} is no lm-eval sample: no doc or no resps") from err
        if not isinstance(reply, str):
            raise DataError(f"{path} line {number} holds likelihoods, no reply", hint="score a generative task")
        given = row.get("arguments") or {}
        with _reading(f"{path} line {number}"):
            first = given.get("gen_args_0", {}).get("arg_0") if isinstance(given, Mapping) else given[0][0]
        named = [doc[a] for a in (*ALIASES["request"], *ALIASES["prompt"]) if isinstance(doc, Mapping) and doc.get(a)]
        yield make(
            request=text(named[0]) if named else text(first),
            prompt=text(first),
            reply=reply,
            id=text(row.get("doc_id")),
            model=path.stem,
            task="lm-eval",
            row=number,
        )


def _whole(path: Path) -> dict[str, Any]:
    """A file that is one JSON object. Raises DataError."""
    with rows.opened(path) as file:
        try:
            value = json.load(file)
        except (ValueError, RecursionError) as err:
            raise DataError(f"{path} is not JSON: {err}") from err
    if not isinstance(value, dict):
        raise DataError(f"{path} is no JSON object")
    return value


def _part(path: Path, whole: Mapping[str, Any], name: str, kind: type[P]) -> P:
    """A part of such a file, empty where it has none. Raises DataError for one of another kind."""
    value = whole.get(name) or kind()
    if not isinstance(value, kind):
        raise DataError(f"{path}: `{name}` is no {'object' if kind is dict else 'list'}")
    return value


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turns what a malformed row comes to into a DataError that says where it is, and nothing of its text."""
    try:
        yield
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as err:
        raise DataError(f"{where} is malformed: a value is missing or of another kind ({type(err).__name__})") from err


def _turns(value: Any) -> str:
    """The last user turn of an Inspect input, which is text or a list of messages."""
    if isinstance(value, list):
        users = [m for m in value if isinstance(m, Mapping) and m.get("role") == "user"]
        return _content(users[-1].get("content")) or "" if users else ""
    return text(value)


def _content(value: Any) -> str | None:
    """A message's text: a string, or the text parts of a list."""
    if isinstance(value, list):
        return "".join(text(part.get("text")) for part in value if isinstance(part, Mapping) and part.get("text"))
    return value if isinstance(value, str) else None


def text(value: Any) -> str:
    """A value as text; None is empty, and what is no text is written as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def human_label(value: Any) -> bool | None:
    """Whether a label says that the reply complied; None where it says nothing or something else."""
    word = str(value).strip().lower()
    if word in ("1", "1.0", "true", "yes", "unsafe", "complied", "jailbroken", "harmful", "violation"):
        return True
    return False if word in ("0", "0.0", "false", "no", "safe", "refused", "neither", "rejected", "harmless") else None


READERS: dict[str, Callable[[Path, Path | None], Iterator[Recorded]]] = {
    "run": runs.read,
    "derta": derta.read,
    "derta-gsm8k": graded.read_gsm8k,
    "derta-mmlu": graded.read_mmlu,
    "jailbreakbench": _jailbreakbench,
    "harmbench": _harmbench,
    "inspect": _inspect,
    "lm-eval": _lm_eval,
    "rows": _rows,
}
