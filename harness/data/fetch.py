"""Files from a mirror or the network into a private folder: resumed where they broke off, checked, then named.

Until its check has passed a file is called NAME.part; nothing else reads that name. Only the rename makes it real.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from harness import __version__, progress
from harness.errors import DataError

BLOCK = 1 << 16
TRIES = 4
TIMEOUT = 60.0
OFFLINE = "check the network, or name a copy of it: --mirror FOLDER (or HARNESS_MIRROR)"


def private_folder(folder: Path) -> None:
    """A folder that only its owner may enter, with those above it as far as they are missing. Raises DataError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
    except OSError as err:
        raise DataError(f"{folder} can't be made: {err.strerror}", hint="export HARNESS_CACHE=FOLDER") from err


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A file that takes `target`'s place, readable by its owner alone, once all of it is written."""
    part = part_of(target)
    with _private(part) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)


def part_of(target: Path) -> Path:
    """What a file is called until it is whole and checked."""
    return target.with_name(target.name + ".part")


def _private(path: Path, *, append: bool = False) -> BinaryIO:
    """Opens a file for writing that nobody else may read, emptied unless it is to be gone on with."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | (0 if append else os.O_TRUNC), 0o600)
    os.fchmod(handle, 0o600)
    return os.fdopen(handle, "r+b")


def copy(origin: Path, target: Path, *, sha256: str = "") -> None:
    """A file of a mirror. Raises DataError when it is not there or not the pinned one."""
    private_folder(target.parent)
    part = part_of(target)
    if not origin.is_file():
        raise DataError(f"the mirror has no {origin}", hint="it is laid out OWNER/REPO/COMMIT/PATH")
    try:
        with origin.open("rb") as source, _private(part) as file:
            shutil.copyfileobj(source, file, BLOCK)
    except OSError as err:
        raise DataError(f"{origin} can't be copied to {target}: {err.strerror}") from err
    _accept(part, target, sha256, str(origin))


def _accept(part: Path, target: Path, sha256: str, whence: str) -> None:
    """Gives a whole file its name. Raises DataError, and leaves nothing, when it is not the pinned one."""
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 and found != sha256:
        part.unlink()
        raise DataError(f"{whence} is not the pinned file: sha256 {found[:16]}…, expected {sha256[:16]}…")
    part.replace(target)


def download(url: str, target: Path, *, sha256: str = "", size: int = 0, title: str = "") -> None:
    """A file of the network: goes on where an earlier try broke off, and tries again what may pass.

    `sha256` and `size` (bytes) are checked where they are given. Raises DataError when the file can't be had whole
    or is not the pinned one.
    """
    private_folder(target.parent)
    part, began_with = part_of(target), part_of(target).stat().st_size if part_of(target).exists() else 0
    for attempt in range(TRIES):
        try:
            _stream(url, part, size, title, sure=bool(sha256))
            break
        except Broken as err:
            if not err.passing or attempt == TRIES - 1:
                raise DataError(f"{url}: {err}", hint=OFFLINE if err.passing else "") from err
            time.sleep(PAUSE * 2**attempt)
    try:
        _accept(part, target, sha256, url)
    except DataError:
        if not began_with:
            raise
        download(url, target, sha256=sha256, size=size, title=title)  # what was left of another day was at fault


UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
PAUSE = 0.5
"""Seconds before the second try; twice as long before each one after."""


class Broken(Exception):
    """A download stopped; `passing` where another try may go on."""

    def __init__(self, what: str, *, passing: bool) -> None:
        super().__init__(what)
        self.passing = passing


def _stream(url: str, part: Path, size: int, title: str, *, sure: bool) -> None:
    """Appends to `part` until it is whole; `sure`: a hash will tell whether it is. Raises Broken."""
    have = part.stat().st_size if part.exists() else 0
    if size and have >= size:
        if have == size:
            return
        part.unlink()
        have = 0
    try:
        with _opened(url, have) as reply:
            whole = _length(reply, have)
            if reply.status == 200:
                have = 0  # the server sends all of it, whatever was asked for
            if size and whole is not None and whole != size:
                raise Broken(f"holds {whole} bytes, not {size}", passing=False)
            if whole is None and not (size or sure or reply.chunked):
                raise Broken("the server does not say how long it is, and no hash is known", passing=False)
            got = _append(reply, part, have, whole or size, title)
    except urllib.error.HTTPError as err:
        if err.code == 416:  # what lies there is longer than the file, or all of it
            part.unlink(missing_ok=True)
            raise Broken("the server would not go on; starting over", passing=True) from err
        raise Broken(f"the server answers {err.code}", passing=err.code in (408, 429) or err.code >= 500) from err
    except (OSError, http.client.HTTPException) as err:
        if isinstance(err, OSError) and err.errno in UNWRITABLE:
            raise Broken(f"{part} can't be written: {err.strerror}", passing=False) from err
        raise Broken(f"no whole answer: {getattr(err, 'reason', err) or type(err).__name__}", passing=True) from err
    expected = whole if whole is not None else size or None
    if expected is not None and got != expected:
        raise Broken(f"cut off after {got} of {expected} bytes", passing=True)


def _opened(url: str, have: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": f"harness/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    reply: http.client.HTTPResponse = urllib.request.urlopen(  # the table or the user names the address
        urllib.request.Request(url, headers=headers), timeout=TIMEOUT
    )
    return reply


def _length(reply: http.client.HTTPResponse, have: int) -> int | None:
    """How long the whole file is, as far as the server says."""
    if reply.status == 206:
        span, _, total = reply.headers.get("Content-Range", "").partition("/")
        if not span.removeprefix("bytes ").startswith(f"{have}-"):
            raise Broken("the server sends another part than was asked for", passing=False)
        return int(total) if total.isdigit() else None
    told = reply.headers.get("Content-Length", "")
    return int(told) if told.isdigit() else None


def _append(reply: http.client.HTTPResponse, part: Path, have: int, whole: int, title: str) -> int:
    """What comes, after the first `have` bytes of `part`; returns how long `part` then is."""
    with _private(part, append=bool(have)) as file, progress.bytes_bar(whole, title) as bar:
        file.seek(have)
        bar.update(have)
        while block := reply.read(BLOCK):
            file.write(block)
            have += len(block)
            bar.update(len(block))
            if whole and have > whole:
                raise Broken(f"sends more than the {whole} bytes it should", passing=False)
    return have


def get_json(url: str) -> Any:
    """A small JSON answer. Raises DataError."""
    try:
        with _opened(url, 0) as reply:
            return json.loads(reply.read(1 << 22))
    except (OSError, ValueError, http.client.HTTPException) as err:
        raise DataError(f"{url}: {getattr(err, 'reason', err) or type(err).__name__}", hint=OFFLINE) from err
