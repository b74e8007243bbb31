"""Models: everything that completes prompts. `PLUGINS` maps a kind to its class."""

PLUGINS: dict[str, str] = {}
