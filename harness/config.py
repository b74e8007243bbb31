"""What a run is asked to do. The dataclass is the command line and the YAML schema: one definition of each setting."""

from __future__ import annotations

import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from harness.budget import check_budget
from harness.errors import UnknownName, UsageError
from harness.models.formats import chat_format
from harness.models.hub import bare
from harness.models.options import ModelOptions
from harness.types import Sampling, sha

# What "all" stands for.
ATTACKS = ("direct", "prefill", "completion", "code", "cipher", "jailbreakchat")
TASKS = ("arithmetic", "knowledge", "instructions")

PAPER: dict[str, Any] = {
    "overrefusal": "none",
    "subset": ("pair=50", "autodan=50"),
    "max_tokens": 1024,
    "temperature": 0.0,
    "gpu_memory": 0.7,  # AutoDAN holds the weights a second time, beside the engine
}
"""What the DeRTa paper's protocol says whatever is asked (arXiv 2407.09121): docs/paper.md."""

PROFILES: dict[str, dict[str, Any]] = {
    "demo": {"limit": 12, "max_tokens": 96, "temperature": 0.7, "top_p": 0.8, "task_limit": 20},
    "ci": {"limit": 12, "max_tokens": 64, "task_limit": 20, "attacks": ("direct", "prefill", "completion")},
    "paper": {
        **PAPER,
        "behaviors": "derta-200",
        "attacks": ("derta_code", "pair", "derta_jailbreakchat", "derta_cipher", "derta_completion", "autodan"),
        "tasks": ("derta-gsm8k", "derta-mmlu", "derta-alpaca"),
    },
    "paper-stand-in": {
        **PAPER,
        "behaviors": "magic",
        "attacks": ("code", "pair", "jailbreakchat", "cipher", "completion", "autodan"),
        "tasks": ("arithmetic", "knowledge", "open-ended"),
        "set": ("code.families=python-stack",),
    },
}
"""Named bundles of settings; what is given on the command line or in the file wins over them."""


def setting(default: Any, help: str) -> Any:
    """A field with the line of help it shows on the command line."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """Everything that decides what a run does and what its records say."""

    model: str = setting("", "a known checkpoint (harness ls models), hub id, folder, .gguf, URL, or a served name")
    adapter: tuple[str, ...] = setting(
        (), "LoRA adapters to evaluate beside the base, in the same load: folders, hub ids, or bundled ones by name"
    )
    skip_base: bool = setting(False, "with --adapter: don't evaluate the base itself")
    attacks: tuple[str, ...] = setting(("all",), "attacks; 'all': the standard six, less what the model can't take")
    behaviors: str = setting("magic", "what must be refused: a bundled set or a file (harness ls tasks)")
    overrefusal: tuple[str, ...] = setting(
        ("magic-lookalikes",), "what must be answered: bundled sets or files; 'none' skips it"
    )
    twins: bool = setting(False, "ask what must be answered under every attack too: their benign twins")
    tasks: tuple[str, ...] = setting(("all",), "helpfulness tasks, bundled or lm-eval's own; 'none' skips them")
    judge: tuple[str, ...] = setting(("rules",), "judges (harness ls judges); the first one's verdict counts")
    judge_model: str = setting("", "model of the llm judge; default: the model under attack itself")
    judge_base_url: str = setting("", "endpoint of the llm judge's model")
    judge_api_key_env: str = setting("", "environment variable of its key, where --model has another host")
    reference: str = setting("", "replies to compare with in pairwise tasks: a file of recorded ones, or a model")
    reference_base_url: str = setting("", "endpoint of the model named by --reference")
    reference_api_key_env: str = setting("", "environment variable of its key, where --model has another host")
    attacker: str = setting("", "model that rewrites and attacks; default: the model under attack itself")
    attacker_base_url: str = setting("", "endpoint of the attacker")
    attacker_api_key_env: str = setting("", "environment variable of its key, where --model has another host")
    budget: tuple[str, ...] = setting(
        (), "most an attack may spend on one behavior: queries=60,tokens=20000 (also seconds, target_tokens, ...)"
    )
    from_run: str = setting("", "run folder whose prompts are replayed on this model: do they transfer?")
    split: str = setting("test", "which part of the behaviors: test, dev or all")
    limit: int = setting(0, "use only so many behaviors and look-alikes; 0: all")
    task_limit: int = setting(0, "use only so many items of each helpfulness task; 0: all")
    subset: tuple[str, ...] = setting(
        (), "try an attack on so many behaviors only, drawn by the seed: pair=50,autodan=50"
    )
    shard: str = setting("", "do only part i of n, written i/n: for job arrays; harness paper --merge joins them")
    seed: int = setting(0, "seed of everything that is drawn")
    seeds: int = setting(1, "ask everything but helpfulness tasks with so many seeds")
    max_tokens: int = setting(512, "longest reply, in tokens (the paper: 1024)")
    temperature: float = setting(0.0, "0: greedy, as in the paper")
    top_p: float = setting(1.0, "with a temperature: draw from the likeliest tokens that hold this much together")
    set: tuple[str, ...] = setting(
        (), 'settings of attacks and judges: prefill.depths=0,20,80; items that hold commas as JSON: name=["a, b"]'
    )
    base_url: str = setting("", "OpenAI-compatible endpoint that serves --model, such as http://localhost:8000/v1")
    api_key_env: str = setting("OPENAI_API_KEY", "environment variable that holds the key of --model's host")
    can: tuple[str, ...] = setting((), "what the endpoint can do beyond chat: raw, prefill, logprobs")
    concurrency: int = setting(32, "requests in flight at an endpoint")
    timeout: float = setting(120.0, "seconds to wait for one answer of an endpoint")
    requests_per_minute: int = setting(0, "most requests sent to an endpoint in a minute; 0: no limit")
    tokens_per_minute: int = setting(0, "most tokens an endpoint reads and writes in a minute; 0: no limit")
    max_cost: float = setting(0.0, "most US dollars to spend at endpoints; what would pass it is not sent; 0: no limit")
    prices: str = setting("", "YAML file of prices that win over the bundled ones")
    checkpoints: str = setting("", "YAML file of your own known checkpoints (form: harness/models/checkpoints.yaml)")
    engine: Literal["auto", "vllm", "transformers"] = setting(
        "auto", "auto, vllm or transformers; auto: vLLM where it can"
    )
    dtype: str = setting("auto", "precision of the weights")
    tensor_parallel: int = setting(0, "GPUs to split the model over; 0: what the checkpoint is known to need")
    gpu_memory: float = setting(0.9, "share of GPU memory vLLM may take")
    max_model_len: int = setting(0, "longest prompt and reply together; 0: what the model allows")
    chat_template: str = setting("", "chat format that replaces the checkpoint's own: derta, llama3, or a jinja file")
    trust_remote_code: bool = setting(False, "run code that comes with the checkpoint")
    profile: str = setting("", f"a bundle of settings: {', '.join(PROFILES)}")

    def sampling(self, seed: int) -> Sampling:
        """How replies of the model under attack are drawn."""
        return Sampling(max_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p, seed=seed)

    def target_options(self) -> ModelOptions:
        """How the model under attack is opened. Raises UsageError when a template file can't be read."""
        return ModelOptions(
            engine=self.engine,
            dtype=self.dtype,
            tensor_parallel=self.tensor_parallel,
            gpu_memory=self.gpu_memory,
            max_model_len=self.max_model_len or None,
            trust_remote_code=self.trust_remote_code,
            chat=chat_format(self.chat_template),
            checkpoints=self.checkpoints,
            base_url=self.base_url or None,
            api_key_env=self.api_key_env,
            concurrency=self.concurrency,
            timeout=self.timeout,
            requests_per_minute=self.requests_per_minute,
            tokens_per_minute=self.tokens_per_minute,
            capabilities=self.can,
        )

    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings given with `set`, by the attack or judge they are for. Raises UsageError for a malformed one."""
        found: dict[str, dict[str, Any]] = {}
        for item in self.set:
            name, dot, rest = item.partition(".")
            key, equals, value = rest.partition("=")
            if not (dot and equals and key):
                hint = "prefill.depths=0,20; in a list of a YAML file, in quotes"
                raise UsageError(f"--set {item!r} is not of the form plugin.setting=value", hint=hint)
            found.setdefault(name, {})[key] = value
        return found

    def options_of(self, plugin: str) -> dict[str, Any]:
        """The settings given with `set` for one attack or judge. Raises UsageError for a malformed one."""
        return self.settings().get(plugin, {})

    def subsets(self) -> dict[str, int]:
        """How many behaviors each attack named in `subset` is asked for. Raises UsageError for a malformed one."""
        found = {}
        for item in self.subset:
            name, _, number = item.partition("=")
            if not name or not number.isdecimal() or int(number) < 1:
                raise UsageError(f"--subset {item!r} is not of the form attack=number", hint="--subset pair=50")
            found[name] = int(number)
        return found

    def part(self) -> tuple[int, int]:
        """Which part of how many, counted from 0; (0, 1) is the whole. Raises UsageError for a malformed `shard`."""
        if not self.shard:
            return 0, 1
        index, _, parts = self.shard.partition("/")
        if not (index.isdecimal() and parts.isdecimal() and 1 <= int(index) <= int(parts)):
            raise UsageError(f"--shard {self.shard!r} is not of the form i/n, with i from 1 to n", hint="--shard 1/4")
        return int(index) - 1, int(parts)

    def shown(self) -> RunSpec:
        """The same as it may be kept and shown: without the logins and queries of URLs."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            if isinstance(value, str):
                values[name] = bare(value)
            elif isinstance(value, tuple) and name != "set":  # texts of attacks and judges, which may be JSON
                values[name] = tuple(map(bare, value))
        return RunSpec(**values)

    def identity(self) -> str:
        """A short hash of what decides the records: two runs that share it can share a folder."""
        skipped = {"concurrency", "timeout", "tensor_parallel", "gpu_memory", "profile", "api_key_env"}
        skipped |= {"judge_api_key_env", "reference_api_key_env", "attacker_api_key_env"}
        skipped |= {"requests_per_minute", "tokens_per_minute", "max_cost", "prices"}
        shown = self.shown()
        told = {f.name: getattr(shown, f.name) for f in fields(self) if f.name not in skipped}
        for name in ("chat_template", "checkpoints"):  # a file is what it holds, wherever it lies
            if Path(told[name]).is_file():
                told[name] = sha(Path(told[name]).read_text(encoding="utf-8", errors="replace"))
        return sha(told)[:8]


WORDS: Mapping[Any, str] = {str: "text", int: "a whole number", float: "a number"}


def convert(kind: Any, value: Any, name: str) -> Any:
    """A setting's value from text or YAML, as the type its field has. Raises UsageError when it does not fit."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        inner = next(k for k in typing.get_args(kind) if k is not type(None))
        return None if value in (None, "none", "") else convert(inner, value, name)
    if origin is tuple:
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = json_list(value, name)
        elif isinstance(value, str):
            value = value.split(",") if value.strip() else []
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{name}: {value!r} is no list")
        value = [] if [str(v).strip() for v in value] == ["none"] else value
        item = typing.get_args(kind)[0]
        return tuple(convert(item, v.strip() if isinstance(v, str) else v, name) for v in value)
    if kind is bool:
        if str(value).lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise UsageError(f"{name}: {value!r} is neither true nor false")
        return str(value).lower() in ("true", "1", "yes")
    if origin is typing.Literal:
        if value not in typing.get_args(kind):
            raise UnknownName(f"value of {name}:", str(value), map(str, typing.get_args(kind)))
        return value
    part = kind is int and isinstance(value, float) and not value.is_integer()
    try:
        if part or isinstance(value, bool) or not isinstance(value, (str, int, float, Path)):
            raise TypeError
        found = kind(value)
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError
        return found
    except (TypeError, ValueError) as err:
        raise UsageError(f"{name}: {value!r} is not {WORDS.get(kind, kind.__name__)}") from err


def json_list(text: str, name: str) -> list[Any]:
    """A list whose items may hold commas. Raises UsageError when it is no JSON."""
    try:
        return list(json.loads(text))
    except ValueError as err:
        raise UsageError(f"{name}: {text!r} is no JSON list: {err}", hint='["one, with a comma", "another"]') from err


def make_spec(given: Mapping[str, Any]) -> RunSpec:
    """A spec from named settings; a profile's come under those given, and one that is None is not given.

    Raises UnknownName (with the nearest known key) or UsageError for a value that does not fit.
    """
    kinds = typing.get_type_hints(RunSpec)
    for key in given:
        if key not in kinds:
            raise UnknownName("setting", key, kinds, hint="see: harness run --help")
    given = {key: value for key, value in given.items() if value is not None}
    profile = str(given.get("profile", "") or "")
    if profile and profile not in PROFILES:
        raise UnknownName("profile", profile, PROFILES)
    merged = {**PROFILES.get(profile, {}), **given}
    if "set" in given:  # settings of plugins add to the profile's; the last one for a plugin wins
        own = given["set"]
        if isinstance(own, str):  # a comma within a setting parts no two of them
            own = re.split(r",(?=\s*[\w-]+\.\w+\s*=)", own) if own.strip() else ()
        merged["set"] = (*PROFILES.get(profile, {}).get("set", ()), *convert(kinds["set"], own, "--set"))
    values = {}
    for key, value in merged.items():
        flag = "--" + key.replace("_", "-")
        values[key] = convert(kinds[key], value, flag)
    return check(replace(RunSpec(), **values))


def check(spec: RunSpec) -> RunSpec:
    """Raises UsageError for settings that make no sense."""
    if not spec.model:
        raise UsageError("no model given", hint="harness run --model smollm2-135m")
    at_least = {"limit": 0, "task_limit": 0, "seeds": 1, "max_tokens": 1, "concurrency": 1, "tensor_parallel": 0}
    at_least |= {"requests_per_minute": 0, "tokens_per_minute": 0, "max_cost": 0}
    for name, least in at_least.items():
        if getattr(spec, name) < least:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {least}")
    if spec.temperature < 0 or not 0 < spec.top_p <= 1:
        raise UsageError("--temperature must be at least 0, and --top-p above 0 and at most 1")
    if spec.split not in ("test", "dev", "all"):
        raise UnknownName("split", spec.split, ("test", "dev", "all"))
    if spec.skip_base and not spec.adapter:
        raise UsageError("--skip-base leaves nothing to evaluate", hint="name an adapter with --adapter")
    for name in ("judge_model", "attacker", "reference"):
        url = name.removesuffix("_model") + "_base_url"
        if getattr(spec, url) and not getattr(spec, name):
            flag = "--" + name.replace("_", "-")
            raise UsageError(
                f"--{url.replace('_', '-')} without {flag} asks no model there", hint=f"add {flag} and the served name"
            )
    spec.subsets()
    spec.part()
    if not spec.judge:
        raise UsageError("no judge given", hint="--judge rules")
    check_budget(spec.budget, spec.max_tokens)
    return spec


def read_yaml(path: Path) -> dict[str, Any]:
    """Settings from a YAML file. Raises UsageError when it can't be read or is no mapping."""
    import yaml

    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise UsageError(f"{path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise UsageError(f"{path} is not UTF-8") from err
    except yaml.YAMLError as err:
        raise UsageError(f"{path} is not YAML: {err}") from err
    if not isinstance(told, dict):
        raise UsageError(f"{path} holds no settings")
    return {str(k).replace("-", "_"): v for k, v in told.items()}
