"""Public sets replaced by harmless ones: a mirror in a folder, an HTTP server, a private cache."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from pinned_fakes import COMMIT, TEXTS, Server, handler, sha256

from harness import progress
from harness.data import fetch, pinned
from harness.data.pinned import DataSet, File


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, no mirror in the environment, no bars, no waiting between tries."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HARNESS_MIRROR", raising=False)
    monkeypatch.setattr(progress, "quiet", True)
    monkeypatch.setattr(fetch, "PAUSE", 0.0)


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> dict[str, DataSet]:
    """`coins` is pinned in full, `ropes` by nothing, `both` holds two pinned files."""
    one, two = (File(path=path, sha256=sha256(text), bytes=len(text)) for path, text in TEXTS.items())
    given = {"kind": "behaviors", "licence": "MIT", "about": "tricks", "github": "owner/repo"}
    made = {
        "coins": DataSet(name="coins", files=(one,), commit=COMMIT, **given),
        "ropes": DataSet(name="ropes", files=(File(path=two.path),), **given),
        "both": DataSet(name="both", files=(one, two), commit=COMMIT, **given),
    }
    monkeypatch.setattr(pinned, "table", lambda: made)
    return made


@pytest.fixture
def mirror(tmp_path: Path, sets: Mapping[str, DataSet]) -> Path:
    """A folder laid out OWNER/REPO/COMMIT/PATH."""
    for path, text in TEXTS.items():
        file = tmp_path / "mirror" / "owner/repo" / COMMIT / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    return tmp_path / "mirror"


@pytest.fixture
def server() -> Iterator[Server]:
    """An HTTP server on this machine."""
    made = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    made.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield made
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def flip() -> Callable[[Path], None]:
    """Changes one bit in the middle of a file."""

    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return change
