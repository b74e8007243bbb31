"""Safety evaluation of language models: attack, judge, measure, report, gate.

import harness
run = harness.run(harness.RunSpec(model="smollm2-135m", limit=8))
records, metrics = harness.frames(run)
"""

from harness.config import RunSpec, make_spec
from harness.errors import HarnessError
from harness.store import frames, load
from harness.types import Run

__version__ = "0.1.0"
__all__ = ["HarnessError", "Run", "RunSpec", "__version__", "frames", "load", "make_spec", "run"]


def run(spec: RunSpec, out: str | None = None, *, fresh: bool = False) -> Run:
    """Does a run, or goes on with one that was cut off. Raises HarnessError with a hint for a user's mistake."""
    from harness.engine import run as run_spec

    return run_spec(spec, out, fresh=fresh)
