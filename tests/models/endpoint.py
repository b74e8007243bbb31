"""A small OpenAI-compatible server on loopback whose answers a test decides, and which remembers what it was sent."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], dict[str, Any] | str]  # a text is sent as it is


@dataclass
class Endpoint:
    """`answer` gets the body of each request and its number; None stands for a reply of `tokens` in and out."""

    answer: Callable[[dict[str, Any], int], Answer | None] = lambda body, n: None
    models: tuple[str, ...] = ("served",)
    listing: Answer | None = None  # instead of `models`
    tokens: tuple[int, int] = (10, 5)
    asked: list[dict[str, Any]] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    url: str = ""


def error(status: int, message: str = "no", **more: Any) -> Answer:
    """A failed answer; `param`, `code` and `metadata` go into the error, other settings are headers."""
    body = {"message": message, "type": "error", **{k: more.pop(k, None) for k in ("param", "code", "metadata")}}
    return status, {k.replace("_", "-"): str(v) for k, v in more.items()}, {"error": body}


@contextmanager
def serving(**settings: Any) -> Iterator[Endpoint]:
    """An endpoint while the block runs."""
    told = Endpoint(**settings)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            models = {"object": "list", "data": [{"id": m, "object": "model"} for m in told.models]}
            self.send(*(told.listing or (200, {}, models)))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                told.asked.append(body)
                told.at.append(time.monotonic())
                told.keys.append(self.headers.get("Authorization", ""))
                n = len(told.asked) - 1
            self.send(*(told.answer(body, n) or self.reply()))

        def reply(self) -> Answer:
            read, written = told.tokens
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "I can't."}}
            usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
            return 200, {}, {"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}

        def send(self, status: int, headers: dict[str, str], body: dict[str, Any] | str) -> None:
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
