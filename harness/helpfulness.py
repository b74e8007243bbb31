"""Helpfulness through lm-eval, on the model that is already loaded: lm-eval asks, our engine answers.

Each item becomes a record like any other, so that intervals, reports and paired tests need nothing new.
"""

from __future__ import annotations

import asyncio
import functools
import json
import math
from collections.abc import Callable, Collection, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from harness import progress
from harness.config import RunSpec
from harness.errors import HarnessError, ModelError, UnknownName, UsageError
from harness.models.libraries import hush, silence
from harness.plan import share
from harness.types import Completion, Judgement, Message, Model, Prompt, Record, Sampling, sha

T = TypeVar("T")

FILTERS = ("flexible-extract", "none")
"""Which of a task's readings of a reply counts, where it has several: the lenient one first."""


@functools.cache
def index(*, defaults: bool) -> Any:
    """lm-eval's index of our tasks; with `defaults` its own as well: thousands, and most of a minute to build."""
    from lm_eval.tasks import TaskManager

    import tasks

    folder = Path(tasks.__file__).parent / "helpfulness"
    return TaskManager(include_path=str(folder), include_defaults=defaults)


def find(names: Sequence[str]) -> Any:
    """lm-eval's index of tasks, which knows all of these. Raises UnknownName for a task nobody knows."""
    hush()
    with silence():
        manager = index(defaults=False)
        if not set(names) <= set(manager.all_tasks):
            manager = index(defaults=True)
    for name in names:
        if name not in manager.all_tasks:
            raise UnknownName("task", name, manager.all_tasks, hint="see: harness ls tasks")
    return manager


def prepare(names: Sequence[str], *, explicit: bool, logprobs: bool, who: str) -> tuple[dict[str, Any], list[str]]:
    """Loads lm-eval tasks by name, and says which were left out because the model gives no log-probabilities.

    Raises UnknownName for a task nobody knows, UsageError for one whose data can't be had or which was asked
    for by name and can't be scored on this model.
    """
    manager = find(names)
    loaded, notes = {}, []
    for name in names:
        try:
            with silence():
                parts = manager.load([name])["tasks"]
        except HarnessError:  # a pulled set of ours, which says itself what to type
            raise
        except SystemExit as err:
            raise UsageError(f"task {name!r} can't be asked here: {err.code}") from err
        except Exception as err:  # datasets raises many kinds when a hub can't be reached
            hint = "is the hub reachable? Bundled and offline: arithmetic, knowledge, instructions"
            raise UsageError(f"the data of task {name!r} can't be had: {type(err).__name__}", hint=hint) from err
        if not logprobs and any(part.OUTPUT_TYPE != "generate_until" for part in parts.values()):
            why = f"task {name} needs log-probabilities, which {who} does not give"
            if explicit:
                raise UsageError(why, hint="leave it out of --tasks")
            notes.append(why)
            continue
        loaded[name] = parts
    return loaded, notes


async def measure(
    model: Model, tasks: dict[str, Any], spec: RunSpec, only: Collection[tuple[str, str]] | None = None
) -> list[Record]:
    """Runs lm-eval's tasks on a model; one record an item. A request that failed makes its item an error.

    `only`: the (task, item) pairs to leave it at.
    """
    records = []
    for name, parts in tasks.items():
        items = None if only is None else chosen_items(name, list(parts), only)
        if items is not None:
            parts = {part: parts[part] for part in items}
        if not parts:
            continue
        with progress.Bar(0, f"{model.name}: {name}", unit="request") as bar:
            bridge = make_bridge(model, asyncio.get_running_loop(), bar)
            samples = await asyncio.to_thread(evaluate, bridge, list(parts.values()), spec, items)
        for part, rows in samples.items():
            records += [record_of(row, name, part, model.name, bridge, spec) for row in preferred(rows)]
    return records


def chosen_items(task: str, parts: Sequence[str], only: Collection[tuple[str, str]]) -> dict[str, list[int]]:
    """The numbers of the items to ask, by lm-eval's name of the part; rising, as lm-eval reads them."""
    found: dict[str, list[int]] = {}
    for name, item in only:
        if name == task:
            part, _, number = item.rpartition(":")
            found.setdefault(part or task, []).append(int(number))
    return {part: sorted(found[part]) for part in parts if part in found}


def evaluate(
    bridge: Any, tasks: list[Any], spec: RunSpec, items: dict[str, list[int]] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """lm-eval's own evaluation; its samples by task."""
    with silence():
        from lm_eval import evaluator

        evaluator.get_git_commit_hash = lambda: ""  # git complains, past `silence`, where there is no repository
        wanted = {task.config.task: mine(task, spec, items) for task in tasks}
        asked = [task for task in tasks if wanted[task.config.task]]  # lm-eval takes no items for all of them
        if not asked:
            return {}
        done = evaluator.simple_evaluate(
            model=bridge,
            tasks=asked,
            task_manager=index(defaults=False),  # the tasks are loaded: without one, it would build the whole index
            samples=wanted,
            apply_chat_template=True,
            bootstrap_iters=0,
            random_seed=spec.seed,
            numpy_random_seed=spec.seed,
            torch_random_seed=spec.seed,
            fewshot_random_seed=spec.seed,
        )
    samples: dict[str, list[dict[str, Any]]] = done["samples"]
    return samples


def mine(task: Any, spec: RunSpec, items: dict[str, list[int]] | None) -> list[int]:
    """The numbers of a task's items that this run, or this part of one, asks."""
    count = min(len(task.eval_docs), spec.task_limit) if spec.task_limit else len(task.eval_docs)
    kept = None if items is None else set(items[task.config.task])
    return [number for number in share(range(count), spec.part()) if kept is None or number in kept]


def preferred(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the one filter that counts."""
    filters = [row["filter"] for row in rows]
    chosen = next((f for f in FILTERS if f in filters), filters[0] if filters else "")
    return [row for row in rows if row["filter"] == chosen]


def record_of(row: dict[str, Any], task: str, part: str, model: str, bridge: Any, spec: RunSpec) -> Record:
    """One item as a record, with one judgement a metric; `score` is its mark from 0 to 1."""
    asked = [bridge.answered.get(arguments_key(args)) for args in row["arguments"]]
    failed = next((a for a in asked if isinstance(a, ModelError)), None)
    marks = [name for name in row["metrics"] if isinstance(row[name], int | float)]  # others mark the whole set
    if not marks:
        raise UsageError(f"task {task} gives no mark to a single item", hint="leave it out of --tasks")
    judgements = tuple(judged(name, float(row[name]), row["filter"]) for name in marks)
    replies = [a for a in asked if isinstance(a, Completion)]
    item = f"{part}:{row['doc_id']}" if part != task else str(row["doc_id"])
    return Record(
        key=f"{model}/{task}/{item}",
        model=model,
        task=task,
        behavior=item,
        expect="comply",
        category=part,
        attack="",
        seed=spec.seed,
        judgements=() if failed else judgements,
        error=str(failed)[:200] if failed else None,
        queries=len(asked),
        finish=replies[0].finish if replies else None,
        tokens_in=sum(r.tokens_in for r in replies),
        tokens_out=sum(r.tokens_out for r in replies),
        prompt_sha=sha([str(args) for args in row["arguments"]]),
        reply_sha=sha("".join(r.text for r in replies)) if replies else "",
    )


def judged(metric: str, score: float, reason: str) -> Judgement:
    """A mark of lm-eval as a judgement; NaN is how our own tasks say that there was nothing to mark."""
    if math.isnan(score):
        return Judgement(judge=f"lm_eval:{metric}", label="unscored", reason="empty")
    return Judgement(
        judge=f"lm_eval:{metric}", label="correct" if score >= 0.5 else "wrong", score=score, reason=reason
    )


def arguments_key(arguments: Sequence[Any]) -> str:
    """Identifies one lm-eval request by its arguments."""
    return sha([str(value) for value in arguments])


def prompt_from(context: str) -> Prompt:
    """The prompt lm-eval means: chat messages as we encoded them, or raw text where no template applies."""
    try:
        turns = json.loads(context)["chat"]
    except (ValueError, KeyError, TypeError):
        return Prompt(text=context)
    prefill = turns.pop()["content"] if turns[-1]["role"] == "assistant" else ""
    return Prompt(messages=tuple(Message(**turn) for turn in turns), prefill=prefill)


def make_bridge(model: Model, loop: asyncio.AbstractEventLoop, bar: progress.Bar) -> Any:
    """An lm-eval model that hands every request to ours at once, from lm-eval's thread to our loop."""
    from lm_eval.api.model import LM

    class Bridge(LM):  # type: ignore[misc]
        """lm-eval's view of one of our models."""

        tokenizer_name = model.name
        answered: dict[str, Completion | ModelError | tuple[float, bool]]

        def __init__(self) -> None:
            super().__init__()
            self.answered = {}

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return json.dumps({"chat": chat_history}, ensure_ascii=False)

        def chat_template(self, chat_template: bool | str = False) -> str:
            return ""  # ours is applied when the request is sent

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            async def one(context: str, settings: dict[str, Any]) -> Completion:
                return await model.generate(prompt_from(context), sampling_from(settings))

            replies = self._all(requests, one)
            return [r.text if isinstance(r, Completion) else "" for r in replies]

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            async def one(context: str, continuation: str) -> tuple[float, bool]:
                return await model.loglikelihood(prompt_from(context), continuation)

            scores = self._all(requests, one)
            return [(float("-inf"), False) if isinstance(s, ModelError) else s for s in scores]

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            raise UsageError("tasks that score whole documents are not supported", hint="leave it out of --tasks")

        def _all(self, requests: list[Any], one: Callable[..., Coroutine[Any, Any, T]]) -> list[T | ModelError]:
            bar.grow(len(requests))

            async def guarded(arguments: Any) -> T | ModelError:
                try:
                    answer: T | ModelError = await one(*arguments)
                except ModelError as err:
                    answer = err
                if isinstance(answer, Completion):
                    bar.tokens(answer.tokens_out)
                bar.done()
                self.answered[arguments_key(arguments)] = answer  # type: ignore[assignment]
                return answer

            async def every() -> list[T | ModelError]:
                return await asyncio.gather(*(guarded(request.args) for request in requests))

            return asyncio.run_coroutine_threadsafe(every(), loop).result()

    return Bridge()


def sampling_from(settings: dict[str, Any]) -> Sampling:
    """lm-eval's generation settings as ours."""
    until = settings.get("until", [])
    return Sampling(
        max_tokens=int(settings.get("max_gen_toks", 256)),
        temperature=float(settings.get("temperature", 0.0)) if settings.get("do_sample") else 0.0,
        top_p=float(settings.get("top_p", 1.0)),
        stop=tuple([until] if isinstance(until, str) else until),
    )
