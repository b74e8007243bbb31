"""Models: everything that completes prompts; `open.open_models` opens them."""
