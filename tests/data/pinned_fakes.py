"""What the tests of public data share: harmless files, and an HTTP server that misbehaves on demand."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

COMMIT = "c" * 40
TEXTS = {
    "tricks/one.csv": b"goal\nHow does a coin vanish?\n",
    "tricks/two.csv": b"goal\nHow does a rope mend?\n" * 9000,
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Server:
    """What is served by path, how the next answers go wrong, and every Range header that came."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)  # how many bytes of an answer are sent before the line drops
    codes: list[int] = field(default_factory=list)  # answer so before anything else
    ranges: bool = True
    lengths: bool = True
    asked: list[str | None] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            server.asked.append(self.headers.get("Range"))
            if server.codes:
                self.send_error(server.codes.pop(0))
                return
            whole = server.files.get(self.path.lstrip("/"))
            if whole is None:
                self.send_error(404)
                return
            begin = 0
            if server.ranges and (told := self.headers.get("Range")):
                begin = int(told.removeprefix("bytes=").removesuffix("-"))
                if begin >= len(whole):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{len(whole) - 1}/{len(whole)}")
            else:
                self.send_response(200)
            body = whole[begin:]
            if server.lengths:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: server.cut.pop(0)] if server.cut else body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
