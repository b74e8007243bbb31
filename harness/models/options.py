"""How a model is opened: one dataclass that every kind reads its part of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from harness.models.costs import Purse
from harness.models.formats import ChatFormat

Engine: TypeAlias = Literal["auto", "vllm", "transformers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """Settings of engines and endpoints; the defaults suit the machine they run on."""

    engine: Engine = "auto"
    dtype: str = "auto"
    tensor_parallel: int = 0  # GPUs to split over; 0: what the checkpoint is known to need, else 1
    gpu_memory: float = 0.9
    max_model_len: int | None = None
    trust_remote_code: bool = False
    chat: ChatFormat | None = None  # replaces the checkpoint's own template
    stop: tuple[str, ...] = ()  # tokens that end a reply, besides the checkpoint's own
    checkpoints: str = ""  # the user's own rows of known checkpoints, a YAML file
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"  # empty: a known host's own variable, else no key
    concurrency: int = 32  # requests in flight at an endpoint
    timeout: float = 120.0  # seconds for one request at an endpoint
    requests_per_minute: int = 0  # sent to an endpoint; 0: no limit
    tokens_per_minute: int = 0  # read and written by an endpoint; 0: no limit
    purse: Purse | None = field(default=None, compare=False, repr=False)  # what pays for an endpoint's tokens
    capabilities: tuple[str, ...] = ()  # what an endpoint can do beyond chat, where it can't be found out
