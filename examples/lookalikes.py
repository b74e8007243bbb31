"""Three training sets made of the bundled one: look-alikes answered at full length, and in the model's own words.

    python examples/lookalikes.py sets     # writes sets/whole, own and mixed; 1,015 answers of 48 tokens are asked for
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


def mixed(longer: Sequence[Helpful], owned: Sequence[Helpful]) -> list[Helpful]:
    """Whole answers, and the model's own words in place of those that stay brief."""
    own_words = {pair.request: pair for pair in owned}

    def one(pair: Helpful) -> Helpful:
        brief = pair.kind == "lookalike" and not pair.raw and len(pair.reply.split()) < 45
        return replace(own_words.get(pair.request, pair), id=pair.id) if brief else pair

    return [one(pair) for pair in longer]


def main() -> None:
    """Writes the sets under the folder that is named."""
    out, magic = Path(sys.argv[1]), load("magic")
    longer, owned = whole(magic.helpful), asyncio.run(own(magic.helpful))
    sets = {"whole": longer, "own": [*longer, *owned], "mixed": mixed(longer, owned)}
    for name, pairs in sets.items():
        made = replace(magic, helpful=tuple(pairs))
        save(out / name, made, {"made_by": "examples/lookalikes.py"})
        print(f"{out / name}: {len(made.helpful):,} helpful pairs, {made.digest}")


if __name__ == "__main__":
    main()
