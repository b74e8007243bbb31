"""Reports: one view model, several renderers. `PLUGINS` maps a format to its renderer."""

PLUGINS: dict[str, str] = {}
