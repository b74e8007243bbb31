"""The report as an A4 PDF, typeset by typst with its own fonts: no network, no system fonts, the same bytes every time.

All that comes from a run travels as JSON in `sys.inputs` and is shown as text; nothing is pasted into markup.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from harness.types import Run
from reports import save
from reports.build import view
from reports.charts import draw
from reports.view import View

# What typst's own fonts can not draw is shown by its number: fonts of the machine would make it differ by machine.
_FOREIGN = re.compile(r"[^\n -\u04ff\u1e00-\u1fff\u2010-\u2040\u20a0-\u20bf\u2190-\u22ff\u2500-\u25ff\ufffd]")
TEMPLATE = Path(__file__).parent / "templates" / "report.typ"


def write(run: Run, folder: Path) -> Path:
    """Writes `report.pdf` into `folder` and returns its path."""
    shown = view(run)
    return save(folder / "report.pdf", typeset(data(shown), shown.stamp))


def typeset(report: str, stamp: int) -> bytes:
    """The PDF of `data`. Its date is the time the run finished, so the same run gives the same bytes."""
    import typst

    made: bytes = typst.compile(
        TEMPLATE.read_bytes(),
        format="pdf",
        ignore_system_fonts=True,
        sys_inputs={"report": report},
        timestamp=stamp,
        pdf_standards="ua-1",  # tagged, with alternative texts: readable aloud
    )
    return made


def data(shown: View) -> str:
    """The view as JSON, every figure drawn."""
    tree = asdict(shown)
    for section, plain in zip(shown.sections, tree["sections"], strict=True):
        plain["figures"] = [
            {"svg": draw(figure), "caption": figure.caption, "alt": figure.alt, "wide": figure.wide}
            for figure in section.figures
        ]
    when = datetime.fromtimestamp(shown.stamp, UTC)
    tree["date"] = f"{when.day} {when:%B %Y}" if shown.stamp else ""
    return _FOREIGN.sub(lambda found: f"\\\\u{ord(found[0]):04x}", json.dumps(tree, ensure_ascii=False))
