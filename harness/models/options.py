"""How a model is opened: one dataclass that every kind reads its part of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Settings of engines and endpoints; the defaults suit the machine they run on."""

    dtype: str = "auto"
    tensor_parallel: int = 1
    gpu_memory: float = 0.9
    max_model_len: int | None = None
    trust_remote_code: bool = False
    chat_template: str | None = None  # jinja text that replaces the checkpoint's own
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 32  # requests in flight at an endpoint
    timeout: float = 120.0  # seconds for one request at an endpoint
    capabilities: tuple[str, ...] = ()  # what an endpoint can do beyond chat, where it can't be found out
