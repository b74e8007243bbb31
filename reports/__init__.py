"""Reports: one view model, several renderers. `PLUGINS` maps a format to its renderer.

Run -> `build.view` -> `View` -> one module a format. `numbers` looks metrics up, `words` turns numbers and names
into text, `findings` writes the headlines, `sections`, `tradeoff` and `method` the parts, `charts` draws.
"""

from pathlib import Path

PLUGINS: dict[str, str] = {
    "pdf": "reports.pdf:write",
    "html": "reports.html:write",
    "markdown": "reports.markdown:write",
    "terminal": "reports.terminal:show",
}


def save(path: Path, data: bytes) -> Path:
    """Writes a whole file or nothing: a reader, or a kill, never meets half of it."""
    half = path.with_name(f".{path.name}.part")
    half.write_bytes(data)
    return half.replace(path)
