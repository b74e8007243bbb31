"""Hands bundled and pulled items to lm-eval, wherever the package is installed and with no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.data import pinned
from tasks.read import rows

HERE = Path(__file__).parent


def table(*, items: str, **_: object) -> Any:
    """A `datasets.DatasetDict` with the one split "test": the rows of `items`.jsonl, in order.

    lm-eval calls this with `dataset_kwargs` and with whatever `metadata` its task manager was given.
    """
    from datasets import Dataset, DatasetDict

    return DatasetDict({"test": Dataset.from_list([dict(row.fields) for row in rows(HERE / f"{items}.jsonl")])})


WRAPPED = {
    "derta-gsm8k": "\n {question} \n ",
    "derta-mmlu": "Choose the correct option for the given question.\n\n\n\nQuestion: {question}\n",
}
"""What the paper's evaluation puts around a question before the chat format, white space included."""


def pulled(*, items: str, **_: object) -> Any:
    """The rows of a pulled DeRTa set, in order: `prompt` as the paper's evaluation sends it, and `answer`.

    Raises UsageError when it was not pulled, DataError when the file is not the pinned one.
    """
    from datasets import Dataset, DatasetDict

    table = [
        {"prompt": WRAPPED[items].replace("{question}", str(row.fields["question"])), "answer": row.fields["answer"]}
        for row in rows(pinned.path(items))
    ]
    return DatasetDict({"test": Dataset.from_list(table)})
