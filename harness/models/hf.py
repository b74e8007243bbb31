"""transformers in this process, for what vLLM can't open: bitsandbytes without its plug-in, GGUF, some adapters.

A thread owns the module. Requests that wait while it works form its next batch, those of like length together.
Slower than vLLM: a batch runs to its end before the next begins.
"""

from __future__ import annotations

import asyncio
import gc
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ModelError
from harness.models.decoding import Decoder, Row
from harness.models.handover import Inbox, hand_over
from harness.models.options import ModelOptions
from harness.models.tokens import Tokens
from harness.models.weights import (
    dressed,
    fingerprint,
    load_module,
    load_tokenizer,
    load_weights,
    parameters,
    with_adapters,
)
from harness.progress import step
from harness.types import Capability, Completion, Prompt, Sampling

BATCH = 32  # rows at once; halved when memory runs out
GRACE = 0.02  # seconds to wait for company after the first request
CAPABILITIES: frozenset[Capability] = frozenset({"chat", "raw", "prefill", "logprobs", "weights"})


@dataclass(slots=True)
class _Request:
    """A row, the adapter it wants, and who waits for it."""

    row: Row
    adapter: str
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]

    def answer(self, result: Any, error: Exception | None = None) -> None:
        """Hands the result over to the asker's loop, unless it has gone."""
        hand_over(self.loop, self.future, result, error)


@dataclass(slots=True)
class Worker:
    """A module with its adapters, and the thread that runs it."""

    path: Path
    options: ModelOptions
    adapters: Mapping[str, Path]
    tokens: Tokens
    ends: tuple[int, ...]
    batch: int = BATCH
    sizes: list[int] = field(default_factory=list)  # of the batches so far
    _decoder: Decoder | None = None
    _inbox: Inbox[_Request] = field(default_factory=Inbox)
    _waiting: list[_Request] = field(default_factory=list)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Loads the weights and starts the thread."""
        module = with_adapters(load_module(self.path, self.options, steady=True), self.adapters)
        tokenizer = self.tokens.tokenizer
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (self.ends or (0,))[0]
        self._decoder = Decoder(
            module=module,
            decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)),
            ends=frozenset(self.ends),
            pad=min(pad, module.get_input_embeddings().weight.shape[0] - 1),
        )
        self._thread = threading.Thread(target=self._serve, name="transformers", daemon=True)
        self._thread.start()

    @property
    def module(self) -> Any:
        """The torch module, adapters on it. Raises ModelError once closed."""
        if self._decoder is None:
            raise ModelError("the model was closed")
        return self._decoder.module

    @property
    def room(self) -> int:
        """How many tokens a prompt and its reply may have together."""
        config = self.module.config.get_text_config()
        return self.options.max_model_len or int(getattr(config, "max_position_embeddings", 0) or 1 << 30)

    async def submit(self, row: Row, adapter: str) -> Any:
        """Runs one request to its end: the row when it was written, its score when it was scored.

        Raises ModelError when that fails or the model was closed.
        """
        loop = asyncio.get_running_loop()
        request = _Request(row, adapter, loop, loop.create_future())
        row.gone = request.future.cancelled
        self._inbox.send(request)
        return await request.future

    def stop(self) -> None:
        """Ends the thread and lets go of the weights."""
        if self._thread is None:
            return
        self._inbox.close()
        self._thread.join()
        self._thread, self._decoder = None, None
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _serve(self) -> None:
        """The thread: take what has come in, run a batch of it, hand it out."""
        while self._take():
            if batch := self._next():
                self._run(batch)
        for request in self._waiting:
            request.answer(None, ModelError("the model was closed"))

    def _take(self) -> bool:
        """Moves the inbox into the waiting list; blocks while there is nothing to do. False when asked to stop."""
        while True:
            try:
                item = self._inbox.get(timeout=GRACE) if self._waiting else self._inbox.get()
            except queue.Empty:
                return True
            if item is None:
                return False
            self._waiting.append(item)

    def _next(self) -> list[_Request]:
        """The oldest request and those most like it: same adapter, same kind of work, nearest in length."""
        self._waiting = [r for r in self._waiting if not r.future.cancelled()]
        if not self._waiting:
            return []
        first = self._waiting[0]
        alike = [r for r in self._waiting if (r.adapter, r.row.tail > 0) == (first.adapter, first.row.tail > 0)]
        alike.sort(key=lambda r: (r is not first, abs(len(r.row.ids) - len(first.row.ids))))
        chosen = alike[: self.batch]
        taken = set(map(id, chosen))
        self._waiting = [r for r in self._waiting if id(r) not in taken]
        return chosen

    def _run(self, batch: Sequence[_Request]) -> None:
        """One batch; split in two when memory runs out. What else goes wrong is the error of its requests."""
        import torch

        self.sizes.append(len(batch))
        began = time.perf_counter()
        try:
            results = self._answers([r.row for r in batch], batch[0].adapter)
            for request, result in zip(batch, results, strict=True):
                request.row.busy += (time.perf_counter() - began) / len(batch)
                request.answer(result)
            return
        except torch.OutOfMemoryError:
            pass  # its traceback holds what the batch had: the halves wait until it is gone
        except Exception as err:  # the per-sample edge: the thread must live on, and the askers must hear of it
            for request in batch:
                request.answer(None, ModelError(f"transformers failed: {type(err).__name__}"))
            return
        gc.collect()
        torch.cuda.empty_cache()
        if len(batch) == 1:
            batch[0].answer(None, ModelError("out of memory: this request does not fit the device"))
            return
        self.batch = half = len(batch) // 2
        for request in batch:
            request.row.out, request.row.logprobs, request.row.stopped = [], [], False
            request.row.generator = None
        self._run(batch[:half])
        self._run(batch[half:])

    def _answers(self, rows: Sequence[Row], adapter: str) -> Sequence[Any]:
        """Rows as written, or their scores, under one adapter or none."""
        assert self._decoder is not None
        if adapter:
            self.module.set_adapter(adapter)
        with self.module.disable_adapter() if self.adapters and not adapter else nullcontext():
            if rows[0].tail:
                return self._decoder.score(rows)
            self._decoder.write(rows)
            return rows


@dataclass(slots=True)
class Transformers:
    """A checkpoint in transformers, with one adapter or none; several share one load."""

    name: str
    worker: Worker
    adapter: str = ""
    notes: tuple[str, ...] = ()
    can: frozenset[Capability] = CAPABILITIES
    _weights: tuple[Any, Any] | None = None

    @classmethod
    def open(
        cls, name: str, path: Path, options: ModelOptions, adapters: Mapping[str, Path], notes: tuple[str, ...] = ()
    ) -> list[Transformers]:
        """Loads a checkpoint once; the base and each adapter of it come back as models of their own."""
        with step(f"loading {name} into transformers"):
            tokens = Tokens.of(load_tokenizer(path, options), options.chat)
            # peft takes no dots in an adapter's name
            named = {f"a{i}": folder for i, folder in enumerate(adapters.values())}
            worker = Worker(path, options, named, tokens, tokens.stop_ids(path, options.stop))
            worker.start()
        labels = {name: "", **dict(zip(adapters, named, strict=True))}
        return [cls(label, worker, adapter, notes) for label, adapter in labels.items()]

    def describe(self) -> dict[str, Any]:
        """Identity of weights, adapter, tokenizer and chat template."""
        import transformers

        adapter = self.worker.adapters.get(self.adapter)
        return {
            "kind": "transformers",
            "engine": f"transformers {transformers.__version__}",
            "checkpoint_sha": fingerprint(self.worker.path),
            "parameters": parameters(self.worker.path) or int(self.worker.module.num_parameters()),
            "adapter_sha": fingerprint(adapter) if adapter else "",
            "dtype": str(self.worker.module.dtype).removeprefix("torch."),
            **self.worker.tokens.describe(),
        }

    def head(self, text: str, k: int) -> str:
        """The first `k` tokens of `text`, as text."""
        return self.worker.tokens.head(text, k)

    async def generate(self, prompt: Prompt, sampling: Sampling) -> Completion:
        """Completes one prompt. Raises ModelError when it does not fit the model. A JSON schema is not enforced."""
        tokens = self.worker.tokens
        ids = tokens.ids(prompt)
        limit = min(sampling.max_tokens, self.worker.room - len(ids))
        if not ids or limit < 1:
            raise ModelError(f"a prompt of {len(ids)} tokens does not fit this model, which takes {self.worker.room}")
        began = time.perf_counter()
        row: Row = await self.worker.submit(Row(ids, sampling, limit), self.adapter)
        text = tokens.after(ids, row.out).rstrip("\N{REPLACEMENT CHARACTER}")  # a character cut in two by the limit
        cut = min((at for word in sampling.stop if (at := text.find(word)) >= 0), default=len(text))
        text = text[:cut]
        return Completion(
            text=text,
            model=self.name,
            finish="stop" if row.stopped else "length",
            tokens_in=len(ids),
            tokens_out=len(row.out),
            seconds=time.perf_counter() - began,
            busy=round(row.busy, 4),
            token_ends=tokens.ends(row.out, text),
            logprobs=tuple(row.logprobs),
        )

    async def loglikelihood(self, prompt: Prompt, continuation: str) -> tuple[float, bool]:
        """Sum of log-probabilities of `continuation` after `prompt`, and whether it is the greedy one."""
        tokens = self.worker.tokens
        context, tail = tokens.ids(prompt), tokens.encode(continuation)
        if not tail:
            return 0.0, True
        if not context or len(context) + len(tail) > self.worker.room:
            raise ModelError(f"{len(context) + len(tail)} tokens do not fit this model")
        told: tuple[float, bool] = await self.worker.submit(Row([*context, *tail], tail=len(tail)), self.adapter)
        return told

    def weights(self) -> tuple[Any, Any]:
        """The module itself where it carries no adapters, else a second load with this model's adapter merged in."""
        if self._weights is None:
            worker = self.worker
            if worker.adapters:
                at = worker.adapters.get(self.adapter)
                self._weights = load_weights(str(worker.path), at, worker.options)
            else:
                self._weights = worker.module, dressed(load_tokenizer(worker.path, worker.options), worker.options)
        return self._weights

    async def close(self) -> None:
        """Stops the shared thread; safe to call once per adapter."""
        self._weights = None
        await asyncio.to_thread(self.worker.stop)
