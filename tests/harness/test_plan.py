"""What a run checks before weights are loaded."""

from pathlib import Path
from typing import Any

import pytest

from harness import engine
from harness.config import make_spec
from harness.engine import run
from harness.errors import HarnessError


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"attacks": "telepathy"}, "telepathy"),
        ({"behaviors": "nothing-of-the-kind"}, "nothing-of-the-kind"),
        ({"overrefusal": "nothing-of-the-kind"}, "nothing-of-the-kind"),
        ({"tasks": "algebra-of-kings"}, "algebra-of-kings"),
        ({"judge": "oracle"}, "oracle"),
        ({"set": ("telepathy.depth=3",)}, "telepathy"),
        ({"set": ("prefill.depths=deep",)}, "prefill.depths"),
    ],
)
def test_a_name_nobody_knows_is_told_before_weights_are_loaded(
    setting: dict[str, Any], named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def loaded(*_: object) -> list[object]:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(engine, "open_targets", loaded)
    spec = make_spec({"model": "smollm2-135m", **setting})
    with pytest.raises(HarnessError, match=named):
        run(spec, tmp_path / "run")
