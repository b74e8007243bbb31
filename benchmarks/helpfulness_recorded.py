"""How close grading comes to the paper's GSM8K and MMLU: its recorded replies, graded, against its published scores.

    python benchmarks/helpfulness_recorded.py [DIR]     numbers only, never a word of the replies

DIR holds the result files somewhere below it, in folders `gsm8k` and `mmlu` (default: the variable HARNESS_MIRROR).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import fmean

from harness.data.recorded import Format
from harness.judges.rules import Rules
from harness.judges.score import score
from harness.metrics import compute
from harness.paper.published import of_file
from harness.scoring import accuracy

BOUNDS: dict[Format, float] = {"derta-gsm8k": 2.5, "derta-mmlu": 1.0}  # points


def main() -> None:
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HARNESS_MIRROR", "")
    if not given or not Path(given).is_dir():
        sys.exit("name a folder: python benchmarks/helpfulness_recorded.py DIR, or set HARNESS_MIRROR")
    short = False
    for form, bound in BOUNDS.items():
        name = form.removeprefix("derta-")
        errors = []
        for path in sorted(Path(given).rglob(f"{name}/*.json")):
            records = tuple(score(path, [Rules()], format=form))
            told = accuracy(records, compute(records))
            ours, row = 100 * told["accuracy"], of_file(path.stem)
            readings = ", ".join(f"{reading} {100 * value:.1f}" for reading, value in told["readings"].items())
            line = f"{path.stem:<44} {readings}, no answer {told['n_no_answer']} of {told['n']}"
            if row and name in row.rates:
                errors.append(abs(ours - row.rates[name]))
                line += f"; paper {row.rates[name]:.1f} ({row.name}), {ours - row.rates[name]:+.1f}"
            print(line)
        if not errors:
            sys.exit(f"{given} holds no {name} result of a model the paper reports")
        short = short or fmean(errors) > bound
        print(f"{name}_recorded_mean_error points={fmean(errors):.2f} bound<={bound:g} ", end="")
        print(f"{'ok' if fmean(errors) <= bound else 'short'} (largest {max(errors):.1f}, {len(errors)} files)")
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
