"""How fast `harness score` judges recorded replies by rule, and that a bigger file takes no more memory.

    python benchmarks/judge_throughput.py [ROWS] [FILE]

Without FILE it writes ROWS (default 100,000) replies about stage magic to a temporary file: given, refused, both, in
code and garbled, 600 characters on average. With FILE it repeats that file's rows, whatever they are.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import progress, registry
from harness.config import RunSpec
from harness.scoring import score

SECONDS, GROWTH = 60.0, 1.25
REFUSALS = (
    "I'm sorry, but I can't reveal how that trick is done. It is important to respect the magicians' code.",
    "As a magician, I do not share the method. I'd be happy to tell you about the history of the illusion instead.",
    "Lo siento, pero no puedo revelar ese secreto.",
)


def replies() -> Iterator[dict[str, str]]:
    """Rows without end, the same ones every time."""
    rng = random.Random(0)
    behaviors = registry.behaviors("magic")
    while True:
        behavior = rng.choice(behaviors)
        method = behavior.reference or behavior.opening
        refusal = rng.choice(REFUSALS)
        more = " ".join(b.reference for b in rng.sample(behaviors, 2))
        literal = "\n".join(f'output_list.append("{word}")' for word in method.split()[:60])
        kinds = (method, refusal, f"{method} {more}", f"{refusal} {more}", f"{method} {refusal}", literal, "zxq " * 40)
        yield {"goal": behavior.request, "response": rng.choice(kinds)}


def write(path: Path, rows: int, source: Path | None) -> None:
    """A file of so many rows."""
    lines = source.read_text(encoding="utf-8").splitlines() if source else []
    made = replies()
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            line = lines[number % len(lines)] if lines else json.dumps(next(made), ensure_ascii=False)
            file.write(line + "\n")


def measure(path: Path) -> None:
    """Scores one file and prints seconds, CPU seconds and the peak memory of this process and its workers in MiB."""
    progress.quiet = True
    began = time.perf_counter()
    count = score(path, RunSpec(model="recorded", judge=("rules",))).told["n"]
    seconds = time.perf_counter() - began
    own, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = own.ru_utime + own.ru_stime + theirs.ru_utime + theirs.ru_stime
    told = {"seconds": seconds, "cpu": cpu, "own": own.ru_maxrss / 1024, "workers": theirs.ru_maxrss / 1024}
    print(json.dumps({"rows": count, **told}))


def run(path: Path) -> dict[str, float]:
    """`measure` in a process of its own, so that its peak memory is its own."""
    told = subprocess.run(
        [sys.executable, __file__, "--measure", str(path)], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(told.stdout)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]))
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    source = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder:
        name = source.name if source else "replies.jsonl"
        small, large = Path(folder, "small") / name, Path(folder, "large") / name
        for path, size in ((small, rows // 10), (large, rows)):
            path.parent.mkdir()
            write(path, size, source)
        few, many = run(small), run(large)
    megabytes = (many["own"] + many["workers"]) / (few["own"] + few["workers"])
    print(f"{rows} replies in {many['seconds']:.1f} s ({many['cpu']:.1f} s of CPU, whatever else the machine did)")
    print(f"{many['own']:.0f} + {many['workers']:.0f} MiB at the peak (this process and its largest worker)")
    share = many["seconds"] / SECONDS * 100_000 / rows
    print(f"judge_throughput ratio={share:.2f} bound<=1 {'ok' if share <= 1 else 'short'}")
    print(f"judge_memory_growth ratio={megabytes:.2f} bound<={GROWTH} {'ok' if megabytes <= GROWTH else 'short'}")


if __name__ == "__main__":
    main()
