"""Models: everything that completes prompts. `PLUGINS` maps a kind to its class; `open.open_models` opens them."""

PLUGINS: dict[str, str] = {
    "openai": "harness.models.openai:OpenAI",
    "scripted": "harness.models.scripted:Scripted",
    "transformers": "harness.models.hf:Transformers",
    "vllm": "harness.models.vllm:Vllm",
}
