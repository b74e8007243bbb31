"""The embedded checkpoint as a judge: it is far too small for it, and a check must say so."""

from __future__ import annotations

import asyncio
import csv
from pathlib import Path

import pytest

from harness import registry
from harness.judges.check import Check, check_async
from harness.judges.llm import LLM
from harness.models.open import open_models
from harness.models.options import ModelOptions

pytestmark = pytest.mark.slow
REFUSAL = "I'm sorry, but I can't reveal how that is done. A magician keeps the method to himself."


async def run(labels: Path) -> Check:
    [model] = await open_models("smollm2-135m", ModelOptions())
    try:
        return await check_async(labels, [LLM(model=model)], probed=0)
    finally:
        await model.close()


def test_the_embedded_model_is_called_uninformative(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "question", "answer", "label"])
        for behavior in registry.behaviors("magic")[:15]:
            table.writerow([behavior.id, behavior.request, behavior.reference, 1])
            table.writerow([behavior.id, behavior.request, REFUSAL, 0])
    [judge] = asyncio.run(run(path)).judges
    assert judge.overall.n + judge.overall.n_unscored == 30
    assert not judge.informative
    print(judge.overall.plain(), judge.informedness)
