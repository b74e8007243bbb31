"""Fetching checkpoints: from the model hub or from a URL, into the user's cache, with clear words when it fails."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import lzma
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness import progress
from harness.errors import DataError
from harness.models import embedded
from harness.models.libraries import hush
from harness.progress import Bar

LEFT_OUT = ["*.pth", "*.gguf", "original/*", "*.msgpack", "*.h5", "*.onnx", "onnx/*"]
BLOCK = 2**20
URL = re.compile(r"(https?://)(?:(?:[^/?#\s]*@)?(?![^/\s]*@)([^?#\s]*))?\S*", re.IGNORECASE)
"""A URL, what may be shown of it in two groups. Where a login can't be told from a query, that is the scheme alone."""
BROKEN = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)
"""What unpacking a broken archive raises; RuntimeError: it is encrypted, or packed in a way that is not known here."""


def from_hub(repo: str, *, file: str = "") -> Path:
    """The folder of a hub checkpoint, or one `file` of it; `repo` may name a revision: owner/name@revision.

    Downloads what is missing. Raises DataError: gated, unknown, no token, no network.
    """
    hush()
    from huggingface_hub import errors, get_token, hf_hub_download, snapshot_download

    name, _, revision = repo.partition("@")
    try:
        if file:
            return Path(hf_hub_download(name, file, revision=revision or None, tqdm_class=shown()))
        return Path(snapshot_download(name, revision=revision or None, ignore_patterns=LEFT_OUT, tqdm_class=shown()))
    except errors.GatedRepoError as err:
        hint = "ask for access on its page; then type the same command again"
        if not get_token():
            hint = "accept its licence on its page, make a token there, then: export HF_TOKEN=..."
        raise DataError(f"{name} is gated: its licence has to be accepted first", hint=hint) from err
    except errors.RevisionNotFoundError as err:
        raise DataError(f"{name} has no revision {revision!r}", hint=f"leave it out: {name}") from err
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as err:
        raise offline(name) from err
    except errors.EntryNotFoundError as err:
        raise DataError(f"{name} holds no file {file!r}", hint="look at its list of files") from err
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as err:
        hint = "check the spelling" if get_token() else "check the spelling; private? export HF_TOKEN=..."
        raise DataError(f"the hub knows no model {name!r}", hint=hint) from err
    except errors.HfHubHTTPError as err:
        code = getattr(err.response, "status_code", 0)
        if code in (401, 403):
            hint = "export HF_TOKEN=... with a valid one"
            raise DataError(f"the hub refuses the token for {name}", hint=hint) from err
        raise DataError(f"the hub answers {code} when asked for {name}", hint="try again later") from err
    except OSError as err:
        raise offline(name) from err


def shown() -> Any:
    """A bar for the hub's client, whose own ones are kept quiet with the rest of its log: 140 GB take a while."""
    from tqdm import tqdm

    class Shown(tqdm):  # type: ignore[type-arg]
        """tqdm on standard error, or nowhere with `--quiet`."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            settings.pop("name", None)  # the client's own classes take it
            super().__init__(*args, **{**settings, "disable": progress.quiet})

    return Shown


def offline(name: str) -> DataError:
    """What is said of a checkpoint that is not here when there is no hub to ask."""
    hint = f"without the hub: a folder on this machine, or what ships: {embedded.NAME} and its adapters"
    return DataError(f"{name} is not in the local cache and the hub can't be reached", hint=hint)


def hub_id(url: str) -> str:
    """The hub id (with revision or file) that a hub page's address names; empty for any other address."""
    from huggingface_hub import constants

    if urlsplit(url).netloc != urlsplit(constants.ENDPOINT).netloc:
        return ""
    parts = [part for part in urlsplit(url).path.split("/") if part]
    if len(parts) < 2 or (len(parts) > 2 and parts[2] not in ("tree", "blob", "resolve")):
        return ""
    name = "/".join(parts[:2]) + (f"@{parts[3]}" if len(parts) > 3 and parts[3] != "main" else "")
    return f"{name}:{'/'.join(parts[4:])}" if len(parts) > 4 else name


def is_url(reference: str) -> bool:
    """Whether a reference is a web address."""
    return reference.startswith(("http://", "https://"))


def bare(text: str) -> str:
    """A text as it may be kept and shown: logins and queries of the URLs in it are left out, for they can be secret."""
    return URL.sub(r"\1\2", text)


def from_url(url: str) -> Path:
    """What lies at a URL: a .gguf file as it is, an archive unpacked. Kept in the cache, whole or not at all.

    Raises DataError when it can't be had or is neither.
    """
    file = Path(urlsplit(url).path).name
    kept = embedded.cache_dir() / "models" / f"url-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    if file.endswith(".gguf"):
        return download(url, kept / file)
    if not file.endswith((".zip", ".tar", ".tar.gz", ".tgz")):
        hint = "a .gguf file, or a checkpoint's folder as .zip or .tar.gz; a hub checkpoint is named owner/name"
        raise DataError(f"{file or bare(url)} is no checkpoint that can be fetched", hint=hint)
    folder = kept / "unpacked"
    if not folder.exists():
        archive = download(url, kept / file)
        with tempfile.TemporaryDirectory(dir=kept) as scratch:
            unpack(archive, Path(scratch) / "unpacked")
            (Path(scratch) / "unpacked").rename(folder)
        archive.unlink()
    inside = list(folder.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder


def download(url: str, path: Path) -> Path:
    """Fetches a file, going on where an earlier try stopped. Raises DataError."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.exists() else 0
    asked = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            resumed = answer.status == 206
            length = int(answer.headers.get("Content-Length") or 0)
            with part.open("ab" if resumed else "wb") as file, Bar(length, f"downloading {path.name}", "B") as bar:
                while block := answer.read(BLOCK):
                    file.write(block)
                    bar.done(len(block))
        if length and part.stat().st_size != (have if resumed else 0) + length:
            raise DataError(f"{path.name} came only in part", hint="type the same command again: it goes on from there")
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as err:
        raise DataError(f"{path.name} can't be fetched: {getattr(err, 'reason', err)}") from err
    part.replace(path)
    return path


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks an archive; names that lead out of the folder are refused. Raises DataError; a broken one is removed."""
    folder.mkdir()
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)  # drops drive letters, roots and ".." from names
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
    except BROKEN as err:
        shutil.rmtree(folder, ignore_errors=True)
        archive.unlink()
        hint = "its copy here is thrown away: the same command fetches it again"
        raise DataError(f"{archive.name} can't be unpacked: {err}", hint=hint) from err
    except OSError as err:
        shutil.rmtree(folder, ignore_errors=True)
        raise DataError(f"{archive.name} can't be unpacked: {err}") from err
