"""Training sets made of the bundled one: look-alikes answered at full length, in the model's own words, or both.

    python examples/lookalikes.py sets     # writes sets/whole, own, mixed, short, long, blend and half
    harness train derta --set data=sets/long --set pairs=440 --set helpful=920 --set lookalike=0.8 --set rto_share=0.5

It also writes sets/source and sets/source-twice, from which `harness data build` has the checkpoint answer every
look-alike, in the place of what is written or besides. Some 1,500 answers of 48 and 96 tokens are asked of the embedded
checkpoint. What the sets do to DeRTa: docs/lab.md, "How look-alikes are answered".
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from shutil import copyfile

from harness.models.open import open_models
from harness.models.options import ModelOptions
from harness.train.build import BuildConfig, Report, answered, helpful
from harness.train.data import HOME, Helpful, load, save
from harness.train.sources import Row, requests

MAGIC = HOME / "magic"
WORDS = 12  # of an answer that shows no more than that one begins

Answers = dict[str, Helpful]
"""By the id of the look-alike."""


def questions() -> list[Row]:
    """Those of the bundled set's sources."""
    _, rows, _ = requests(MAGIC)
    return rows


def whole() -> Answers:
    """Those whose answer was cut after some words, with all of it; an answer of 30 words teaches its end."""
    config = BuildConfig(source=MAGIC, out=MAGIC, ends_from=30)
    return {
        row["id"]: helpful({**row, "words": 0}, row["reply"], config)
        for row in questions()
        if row["kind"] == "lookalike" and row.get("reply") and row.get("words")
    }


async def own(pairs: Sequence[Helpful]) -> tuple[Answers, Answers]:
    """What the embedded checkpoint itself answers: the first 48 tokens, and the first 96 of every other look-alike."""
    [model] = await open_models("smollm2-135m", ModelOptions())

    async def first(tokens: int, asked: Sequence[Helpful], ends_from: int) -> Answers:
        rows = [{"id": pair.id, "request": pair.request, "kind": pair.kind} for pair in asked]
        config = BuildConfig(source=MAGIC, out=MAGIC, lookalike_tokens=tokens, ends_from=ends_from)
        return {pair.id: pair for pair in await answered(rows, model, config, Report())}

    try:
        brief = await first(48, [pair for pair in pairs if pair.kind == "lookalike"], 0)
        return brief, await first(96, [pair for pair in pairs if pair.id in brief and other(pair.id)], 30)
    finally:
        await model.close()


def other(id: str) -> bool:
    """Whether a look-alike is in a half of them that depends on nothing but its id."""
    return int(sha256(id.encode()).hexdigest(), 16) % 2 == 0


def begun(pair: Helpful) -> Helpful:
    """A pair with the first words of its answer."""
    return replace(pair, reply=" ".join(pair.reply.split()[:WORDS]), cut=True)


def sets(pairs: Sequence[Helpful], brief: Answers, long: Answers) -> dict[str, list[Helpful]]:
    """The helpful pairs of every set."""
    full = whole()
    alike = [pair for pair in pairs if pair.kind == "lookalike"]
    unended = {pair.id: replace(pair, cut=True) for pair in alike}
    short = {id: replace(pair, cut=True) if other(id) else begun(pair) for id, pair in brief.items()}
    longer = unended | {id: long.get(id, begun(pair)) for id, pair in brief.items()}
    far = {
        pair.id: answer
        for pair in alike
        if pair.id.startswith("far-") and len((answer := full.get(pair.id, pair)).reply.split()) >= 45
    }
    cropped = {p.id: brief[p.id] for p in alike if p.id in brief and len(full.get(p.id, p).reply.split()) < 45}
    answers = {
        "whole": full,
        "mixed": full | cropped,
        "short": unended | short,
        "long": longer,
        "blend": longer | far,
        "half": longer | {id: far[id] for id in far.keys() & brief.keys() - long.keys()},
    }
    named = {name: [answer.get(pair.id, pair) for pair in pairs] for name, answer in answers.items()}
    twice = [replace(pair, id=f"{pair.id}-model") for pair in brief.values()]
    return {**named, "own": [*named["whole"], *twice]}


def source(out: Path) -> None:
    """The sources of the bundled set without answers to look-alikes: of half of them the first words are to be kept."""
    write(out, [unanswered(row) if row["kind"] == "lookalike" else row for row in questions()])


def source_twice(out: Path) -> None:
    """The sources of the bundled set, answers to look-alikes whole, and each look-alike once more without an answer."""
    rows = questions()
    whole = [without(row, "words") if row["kind"] == "lookalike" and row.get("reply") else row for row in rows]
    again = [{**unanswered(row), "id": f"{row['id']}-model"} for row in rows if row["kind"] == "lookalike"]
    write(out, [*whole, *again])


def unanswered(row: Row) -> Row:
    """A look-alike whose answer is to be asked for."""
    rest = without(row, "reply", "words")
    return rest if other(row["id"]) else {**rest, "words": WORDS}


def without(row: Row, *keys: str) -> Row:
    """A row that lacks some of its keys."""
    return {key: value for key, value in row.items() if key not in keys}


def write(out: Path, rows: Sequence[Row]) -> None:
    """Sources of these questions and the bundled tricks."""
    out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (out / "questions.jsonl").write_text("".join(lines), encoding="utf-8")
    copyfile(MAGIC / "tricks.jsonl", out / "tricks.jsonl")


def main() -> None:
    """Writes the sets under the folder that is named."""
    out, magic = Path(sys.argv[1]), load("magic")
    source(out / "source")
    source_twice(out / "source-twice")
    for name, pairs in sets(magic.helpful, *asyncio.run(own(magic.helpful))).items():
        made = replace(magic, helpful=tuple(pairs))
        save(out / name, made, {"made_by": "examples/lookalikes.py"})
        print(f"{out / name}: {len(made.helpful):,} helpful pairs, {made.digest}")


if __name__ == "__main__":
    main()
