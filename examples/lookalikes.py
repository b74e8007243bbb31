"""Two training sets made of the bundled one: look-alikes answered at full length, and in the model's own words as well.

    python examples/lookalikes.py sets     # writes sets/whole and sets/own; 1,015 answers of 48 tokens are asked for
    harness train derta --set data=sets/own --set pairs=520 --set helpful=1000 --set lookalike=0.8 --set opening=0.14

What they do to DeRTa: docs/lab.md, "How look-alikes are answered".
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from harness.models.open import open_models
from harness.models.options import ModelOptions
from harness.train.build import BuildConfig, Report, begun, helpful
from harness.train.data import HOME, Helpful, load, save

MAGIC = HOME / "magic"


def whole(pairs: Sequence[Helpful]) -> list[Helpful]:
    """Look-alikes whose answer was cut after some words, with all of it; an answer of 30 words teaches its end."""
    rows = map(json.loads, (MAGIC / "questions.jsonl").read_text(encoding="utf-8").splitlines())
    config = BuildConfig(source=MAGIC, out=MAGIC, ends_from=30)
    written = {
        row["id"]: helpful({**row, "words": 0}, row["reply"], config)
        for row in rows
        if row["kind"] == "lookalike" and row["reply"] and row.get("words")
    }
    return [written.get(pair.id, pair) for pair in pairs]


async def own(pairs: Sequence[Helpful]) -> list[Helpful]:
    """The first 48 tokens of what the embedded checkpoint itself answers to each look-alike."""
    [model] = await open_models("smollm2-135m", ModelOptions())
    config = BuildConfig(source=MAGIC, out=MAGIC, lookalike_tokens=48)
    try:
        return await begun([asdict(pair) for pair in pairs], model, config, Report())
    finally:
        await model.close()


def main() -> None:
    """Writes both sets under the folder that is named."""
    out, magic = Path(sys.argv[1]), load("magic")
    longer = replace(magic, helpful=tuple(whole(magic.helpful)))
    both = replace(longer, helpful=(*longer.helpful, *asyncio.run(own(magic.helpful))))
    for name, made in (("whole", longer), ("own", both)):
        save(out / name, made, {"made_by": "examples/lookalikes.py"})
        print(f"{out / name}: {len(made.helpful):,} helpful pairs, {made.digest}")


if __name__ == "__main__":
    main()
