"""The report as an A4 PDF, typeset by typst with its own fonts: no network, no system fonts, the same bytes every time.

All that comes from a run travels as JSON in `sys.inputs` and is shown as text; nothing is pasted into markup.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from harness.types import Run
from reports.build import view
from reports.charts import draw
from reports.view import View

TEMPLATE = Path(__file__).parent / "templates" / "report.typ"


def write(run: Run, folder: Path) -> Path:
    """Writes `report.pdf` into `folder` and returns its path; a reader never sees half a file."""
    path = folder / "report.pdf"
    half = path.with_suffix(".pdf.part")
    half.write_bytes(typeset(view(run)))
    half.replace(path)
    return path


def typeset(shown: View) -> bytes:
    """The PDF. Its date is the time the run finished, so the same run gives the same bytes."""
    import typst

    made: bytes = typst.compile(
        TEMPLATE.read_bytes(),
        format="pdf",
        ignore_system_fonts=True,
        sys_inputs={"report": data(shown)},
        timestamp=shown.stamp,
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
    return json.dumps(tree)
