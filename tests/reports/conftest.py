"""The synthetic runs of report_runs.py as fixtures."""

from __future__ import annotations

import pytest
from report_runs import RUNS

from harness.types import Run


@pytest.fixture(params=RUNS)
def any_run(request: pytest.FixtureRequest) -> Run:
    """Each of the synthetic runs in turn."""
    return RUNS[request.param]()


@pytest.fixture
def one() -> Run:
    return RUNS["one"]()


@pytest.fixture
def three() -> Run:
    return RUNS["three"]()


@pytest.fixture
def hostile() -> Run:
    return RUNS["hostile"]()
