"""vLLM in this process: one load of the weights serves attacks, judge and helpfulness, all of them at once.

A thread owns the engine and has it step; coroutines hand it requests and wait for theirs. Whatever is in
flight is batched continuously, whoever asked. On the CPU the engine core stays in this process (twice
the throughput of its own process, which keeps a core for itself), and all engines step in one thread
(`in_turn`); on GPUs vLLM's defaults hold.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import ModelError, UsageError
from harness.models.adapters import Adapter, read_adapter
from harness.models.handover import Inbox, hand_over
from harness.models.libraries import captured
from harness.models.options import ModelOptions
from harness.models.tokens import Tokens
from harness.models.weights import bf16_in_hardware, fingerprint, load_tokenizer, load_weights, parameters
from harness.progress import step
from harness.types import Capability, Completion, Prompt, Sampling

CAPABILITIES: frozenset[Capability] = frozenset({"chat", "raw", "prefill", "logprobs", "weights"})
T = TypeVar("T")
MULTIPROCESSING = "VLLM_ENABLE_V1_MULTIPROCESSING"  # vLLM's variable; 0: in this process


_here = ThreadPoolExecutor(1, "vllm")


def in_turn(work: Callable[..., T], *given: Any, **named: Any) -> T:
    """Does what touches an engine: for those in this process in one thread, first come first served.

    vLLM keeps the context of a forward pass, and the scratch memory of its CPU attention, once for a process. And each
    thread that multiplies has OpenMP workers of its own: where all together are more than the cores they are put to
    sleep after every product instead of being kept awake, and a step under an adapter, thousands of small products,
    takes about twice as long (`benchmarks/cpu_threads.py`). Engines in processes of their own wait for nobody.
    """
    if os.environ.get(MULTIPROCESSING) == "0":
        return _here.submit(work, *given, **named).result()
    return work(*given, **named)


@dataclass(slots=True)
class _Request:
    """One request on its way to the engine's thread, and the future its asker waits for."""

    id: str
    ids: list[int]
    params: Any
    lora: Any
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    busy: float = 0.0  # seconds of the engine's steps, each shared among the requests in it

    def answer(self, result: Any, error: Exception | None = None) -> None:
        """Hands the result over to the asker's loop, unless it has gone."""
        hand_over(self.loop, self.future, result, error)


@dataclass(slots=True)
class Engine:
    """A vLLM engine and the thread that has it step."""

    path: str
    options: ModelOptions
    adapters: tuple[Path, ...] = ()
    dtype: str = ""  # the precision it came to
    _engine: Any = None
    _inbox: Inbox[_Request | str] = field(default_factory=Inbox)
    _waiting: dict[str, _Request] = field(default_factory=dict)
    _thread: threading.Thread | None = None
    _dead: Exception | None = None
    _ids: count[int] = field(default_factory=count)

    def start(self) -> None:
        """Loads the weights (seconds to minutes) and starts the thread."""
        self._engine = build_engine(self.path, self.options, self.adapters)
        self.dtype = str(self._engine.vllm_config.model_config.dtype).removeprefix("torch.")
        self._thread = threading.Thread(target=self._serve, name="vllm", daemon=True)
        self._thread.start()

    async def submit(self, ids: list[int], params: Any, lora: Any = None) -> tuple[Any, float]:
        """Runs one request to its end: vLLM's RequestOutput, and its share of the engine's time in seconds.

        Raises ModelError when the engine refuses, dies or was closed.
        """
        if self._dead is not None:
            raise ModelError(f"the vLLM engine has stopped: {self._dead}")
        loop = asyncio.get_running_loop()
        request = _Request(str(next(self._ids)), ids, params, lora, loop, loop.create_future())
        self._inbox.send(request)
        try:
            output, busy = await request.future
        except asyncio.CancelledError:
            self._inbox.put(request.id)  # an id alone means: abort
            raise
        return output, busy

    def stop(self) -> None:
        """Ends the thread, then the engine; nothing it started is left, and nobody waits for it."""
        if self._thread is None:
            return
        self._inbox.close()
        self._thread.join()
        self._thread = None
        in_turn(shut_down, self._engine)
        self._engine = None

    def _serve(self) -> None:
        """The thread: take what has come in, step, hand out what is done."""
        try:
            while self._take():
                if self._waiting:
                    for output in self._step():
                        if output.finished and (request := self._waiting.pop(output.request_id, None)):
                            request.answer((output, request.busy))
            for request in self._waiting.values():
                request.answer(None, ModelError("the model was closed"))
        except Exception as err:  # the engine is lost: everyone who waits, or still comes, must hear of it
            self._dead = err
            for request in self._waiting.values():
                request.answer(None, ModelError(f"the vLLM engine failed: {err}"))
            while (item := self._inbox.get()) is not None:
                if isinstance(item, _Request):
                    item.answer(None, ModelError(f"the vLLM engine has stopped: {err}"))

    def _step(self) -> list[Any]:
        """One step of the engine, its time shared out among the requests that are waiting for it."""

        def timed() -> tuple[list[Any], float]:
            began = time.perf_counter()
            return self._engine.step(), time.perf_counter() - began

        outputs, seconds = in_turn(timed)
        share = seconds / len(self._waiting)
        for request in self._waiting.values():
            request.busy += share
        return outputs

    def _take(self) -> bool:
        """Moves the inbox into the engine; blocks while there is nothing to do. False when asked to stop."""
        while True:
            try:
                item = self._inbox.get(block=not self._waiting)
            except queue.Empty:
                return True
            if item is None:
                return False
            if isinstance(item, str):
                self._waiting.pop(item, None)
                in_turn(self._engine.abort_request, [item])
                continue
            self._waiting[item.id] = item
            prompt = {"prompt_token_ids": item.ids}
            try:
                in_turn(self._engine.add_request, item.id, prompt, item.params, lora_request=item.lora)
            except (ValueError, TypeError) as err:  # a prompt longer than the model, a schema that does not compile
                del self._waiting[item.id]
                item.answer(None, ModelError(f"vLLM refuses this request: {err}"))


@dataclass(slots=True)
class Vllm:
    """A checkpoint in vLLM, with one adapter or none; several share one engine."""

    name: str
    engine: Engine
    tokens: Tokens
    adapter: Path | None = None
    ends: tuple[int, ...] = ()  # ids that end a reply
    notes: tuple[str, ...] = ()
    can: frozenset[Capability] = CAPABILITIES
    _weights: tuple[Any, Any] | None = None

    @classmethod
    def open(
        cls, name: str, path: str, options: ModelOptions, adapters: dict[str, Path], notes: tuple[str, ...] = ()
    ) -> list[Vllm]:
        """Loads a checkpoint once; the base and each adapter of it come back as models of their own."""
        tokens = Tokens.of(load_tokenizer(Path(path), options), options.chat)
        ends = tokens.stop_ids(Path(path), options.stop)
        engine = Engine(path, options, tuple(adapters.values()))
        with step(f"loading {name} into vLLM"):
            engine.start()
        models = {name: None, **adapters}
        return [cls(label, engine, tokens, at, ends, notes) for label, at in models.items()]

    def describe(self) -> dict[str, Any]:
        """Identity of weights, adapter, tokenizer and chat template."""
        import vllm

        return {
            "kind": "vllm",
            "engine": f"vllm {vllm.__version__}",
            "checkpoint_sha": fingerprint(Path(self.engine.path)),
            "parameters": parameters(Path(self.engine.path)),
            "adapter_sha": fingerprint(self.adapter) if self.adapter else "",
            "dtype": str(self.engine.dtype),
            **self.tokens.describe(),
        }

    def head(self, text: str, k: int) -> str:
        """The first `k` tokens of `text`, as text."""
        return self.tokens.head(text, k)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Completes one prompt. Raises ModelError when it does not fit the model."""
        ids = self.tokens.ids(prompt)
        began = time.perf_counter()
        output, busy = await self.engine.submit(ids, sampling_params(sampling, self.ends), self._lora())
        reply = output.outputs[0]
        return Completion(
            text=reply.text,
            model=self.name,
            finish="length" if reply.finish_reason == "length" else "stop",
            tokens_in=len(ids),
            tokens_out=len(reply.token_ids),
            seconds=time.perf_counter() - began,
            busy=round(busy, 4),
            token_ends=self.tokens.ends(reply.token_ids, reply.text),
            logprobs=tuple({p.decoded_token: p.logprob for p in at.values()} for at in reply.logprobs or ()),
        )

    async def loglikelihood(self, prompt: Prompt, continuation: str) -> tuple[float, bool]:
        """Sum of log-probabilities of `continuation` after `prompt`, and whether it is the greedy one."""
        from vllm import SamplingParams

        context = self.tokens.ids(prompt)
        whole = context + self.tokens.encode(continuation)
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1, detokenize=False)
        output, _ = await self.engine.submit(whole, params, self._lora())
        chosen = [output.prompt_logprobs[i][whole[i]] for i in range(len(context), len(whole))]
        return sum(p.logprob for p in chosen), all(p.rank == 1 for p in chosen)

    def weights(self) -> tuple[Any, Any]:
        """The same weights as a torch module, loaded a second time, for gradients."""
        if self._weights is None:
            self._weights = load_weights(self.engine.path, self.adapter, self.engine.options)
        return self._weights

    async def close(self) -> None:
        """Stops the shared engine; safe to call once per adapter."""
        await asyncio.to_thread(self.engine.stop)

    def _lora(self) -> Any:
        if self.adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest(self.name, 1 + self.engine.adapters.index(self.adapter), str(self.adapter))


def sampling_params(sampling: Sampling, ends: tuple[int, ...] = ()) -> Any:
    """Ours as vLLM's; only the finished reply is sent back. `ends` are ids that end it, besides the tokenizer's."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed if sampling.temperature > 0 else None,
        stop=list(sampling.stop) or None,
        stop_token_ids=list(ends) or None,
        logprobs=sampling.logprobs or None,
        structured_outputs=StructuredOutputsParams(json=sampling.schema) if sampling.schema else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


CPU_SETTINGS: dict[str, Any] = {
    "distributed_executor_backend": "uni",
    "enforce_eager": True,
    "max_num_seqs": 128,
    # A seeded request whose prompt is read in pieces would rewind its generator, which on a CPU raises and ends the
    # engine: a prompt that does not fit this step waits for the next.
    "enable_chunked_prefill": False,
}


def build_engine(path: str, options: ModelOptions, adapters: tuple[Path, ...]) -> Any:
    """A vLLM engine for this machine. Raises UsageError with vLLM's own reason when it can't be built."""
    on_cpu = not gpu_present()
    if on_cpu:
        os.environ.setdefault(MULTIPROCESSING, "0")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB
    try:
        with captured():
            from vllm import EngineArgs, LLMEngine
    except ImportError as err:
        raise UsageError(f"vLLM can't be imported: {err}", hint="harness doctor") from err
    machine = dict(CPU_SETTINGS) if on_cpu else {}
    dtype = "float32" if options.dtype == "auto" and on_cpu and not bf16_in_hardware() else options.dtype
    lora = lora_settings([read_adapter(folder) for folder in adapters], on_cpu=on_cpu) if adapters else {}
    if on_cpu:
        from harness.models import cpu_lora, cpu_sampling

        cpu_sampling.install()
        if adapters:
            cpu_lora.install()
    arguments = EngineArgs(
        model=path,
        dtype=dtype,
        tensor_parallel_size=gpus(options.tensor_parallel),
        gpu_memory_utilization=options.gpu_memory,
        max_model_len=options.max_model_len,
        trust_remote_code=options.trust_remote_code,
        generation_config="vllm",  # settings are the run's, never what a checkpoint's folder suggests
        disable_log_stats=True,
        **machine,
        **lora,
    )

    def build() -> Any:
        with captured() as log:
            try:
                engine = LLMEngine.from_engine_args(arguments)
            except (ValueError, RuntimeError, OSError) as err:
                raise UsageError(f"vLLM can't load {path}: {err}", hint=f"vLLM said: {log()}") from err
            _open.append(engine)
        return engine

    return in_turn(build)


_open: list[Any] = []  # built and not shut down


def lora_settings(adapters: Sequence[Adapter], *, on_cpu: bool) -> dict[str, Any]:
    """vLLM's settings for these adapters.

    On a CPU only the layers that they change are wrapped: vLLM's wrapper of the output layer can't give the
    log-probabilities of a prompt there, and an adapter that leaves that layer alone has no need of it. And there is one
    place more than there are adapters: where requests with and without one are computed together, vLLM's CPU code looks
    up "none" as place -1, the last, so that the base would answer as the last adapter does. That place stays empty.
    """
    found: dict[str, Any] = {
        "enable_lora": True,
        "max_loras": len(adapters) + on_cpu,
        "max_lora_rank": max(adapter.max_lora_rank for adapter in adapters),
    }
    layers = [adapter.layers for adapter in adapters]
    if on_cpu and all(layers):
        found["lora_target_modules"] = sorted({name for names in layers for name in names})
    return found


def gpus(wanted: int) -> int:
    """Over how many GPUs to split: as many as asked for, one on a CPU. Raises UsageError when there are fewer."""
    import torch

    there = torch.cuda.device_count() if gpu_present() else 0
    if there and wanted > there:
        hint = f"fewer, if the weights fit: --tensor-parallel {there}; or a quantised checkpoint"
        raise UsageError(f"this checkpoint needs {wanted} GPUs of 80 GB, there are {there}", hint=hint)
    return max(1, wanted) if there else 1


def gpu_present() -> bool:
    """Whether torch sees an accelerator."""
    import torch

    return bool(torch.cuda.is_available())


def shut_down(engine: Any) -> None:
    """Ends the engine core and, with the last one, torch's process group, so that nothing is left to warn at exit."""
    import gc

    import torch.distributed

    _open.remove(engine)
    with groups_kept() if _open else nullcontext():
        engine.engine_core.shutdown()
    del engine
    gc.collect()
    if not _open and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def groups_kept() -> Iterator[None]:
    """An engine that ends inside the block leaves vLLM's process groups alone: others in this process need them."""
    from vllm.v1.engine import core

    theirs = core.cleanup_dist_env_and_memory
    core.cleanup_dist_env_and_memory = lambda: None
    try:
        yield
    finally:
        core.cleanup_dist_env_and_memory = theirs
