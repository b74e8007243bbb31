"""Reports: one view model, several renderers. `PLUGINS` maps a format to its renderer.

Files: `view.py` (the nouns), `words.py` (numbers and names as text), `build.py` (run -> view),
`findings.py` (the headline sentences), `charts.py` (figure -> SVG), then one module a format.
"""

PLUGINS: dict[str, str] = {
    "pdf": "reports.pdf:write",
    "html": "reports.html:write",
    "markdown": "reports.markdown:write",
    "terminal": "reports.terminal:show",
}
