"""Every error the program raises on purpose.

HarnessError
├── UsageError        the user's mistake: says what is wrong, what is known, what to type next; exit code 2
│   └── UnknownName   no such model, attack, judge, task or key; carries the nearest known names
├── DataError         a file or checkpoint is missing, broken or not the one that was pinned; exit code 2
├── BudgetSpent       a case has spent what it may; it ends with what it found, and that is recorded
└── ModelError        one request failed; recorded and counted where it happens, never raised to the user
    ├── ModelTimeout  ... because no answer came in time
    └── OverBudget    ... because it was not sent: it could have cost more than is left
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Root of the tree. `hint` is what the user can type or change next."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(HarnessError):
    """The user's mistake; shown without a traceback, exit code 2."""


class UnknownName(UsageError):
    """A name that nothing known answers to."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown {kind} {name!r}{meant}", hint=hint or f"known: {', '.join(names)}")


class DataError(HarnessError):
    """A file or checkpoint that is missing, broken or not the pinned one; exit code 2."""


class BudgetSpent(HarnessError):
    """A call was not made: it does not fit into what is left of the case's budget. Not a failed request."""


class ModelError(HarnessError):
    """One request to a model failed. `retry_after` is in seconds, when the server named a time."""

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class ModelTimeout(ModelError):
    """No answer came in time."""


class OverBudget(ModelError):
    """The request was not sent: it could have cost more than is left of the run's money."""
