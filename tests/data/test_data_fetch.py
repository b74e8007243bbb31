"""Downloads over real HTTP: resumed, never used in part, and refused when they are not the pinned file."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from pinned_fakes import Server, sha256

from harness.data import fetch
from harness.errors import DataError

TEXT = bytes(range(256)) * 2000  # 512,000 bytes: several blocks
HASH = sha256(TEXT)


@pytest.fixture
def served(server: Server) -> str:
    server.files["f.bin"] = TEXT
    return f"{server.url}/f.bin"


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(server: Server, served: str, tmp_path: Path) -> None:
    server.cut = [100_000, 50_000]
    fetch.download(served, tmp_path / "d" / "f.bin", sha256=HASH)
    assert (tmp_path / "d" / "f.bin").read_bytes() == TEXT
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["f.bin"]


def test_a_part_of_an_earlier_day_is_gone_on_with(server: Server, served: str, tmp_path: Path) -> None:
    (tmp_path / "f.bin.part").write_bytes(TEXT[:300_000])
    fetch.download(served, tmp_path / "f.bin", sha256=HASH)
    assert (tmp_path / "f.bin").read_bytes() == TEXT
    assert server.asked == ["bytes=300000-"]


def test_a_part_of_another_file_costs_one_more_download_and_is_never_used(
    server: Server, served: str, tmp_path: Path
) -> None:
    (tmp_path / "f.bin.part").write_bytes(b"x" * 300_000)
    fetch.download(served, tmp_path / "f.bin", sha256=HASH)
    assert (tmp_path / "f.bin").read_bytes() == TEXT
    assert server.asked == ["bytes=300000-", None]


@pytest.mark.parametrize("size", [0, len(TEXT)])
def test_a_part_that_is_longer_than_the_file_is_started_over(
    size: int, server: Server, served: str, tmp_path: Path
) -> None:
    (tmp_path / "f.bin.part").write_bytes(TEXT + b"more")
    fetch.download(served, tmp_path / "f.bin", sha256=HASH, size=size)
    assert (tmp_path / "f.bin").read_bytes() == TEXT


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(server: Server, served: str, tmp_path: Path) -> None:
    server.ranges, server.cut = False, [100_000]
    fetch.download(served, tmp_path / "f.bin", sha256=HASH)
    assert (tmp_path / "f.bin").read_bytes() == TEXT


def test_a_body_that_always_ends_early_is_no_file(server: Server, served: str, tmp_path: Path) -> None:
    server.cut = [10] * fetch.TRIES
    with pytest.raises(DataError, match=f"cut off after {10 * fetch.TRIES} of {len(TEXT)} bytes"):
        fetch.download(served, tmp_path / "f.bin", sha256=HASH)
    assert [p.name for p in tmp_path.iterdir()] == ["f.bin.part"]  # for the next time; nothing reads that name


def test_a_short_body_of_unknown_length_is_told_by_its_hash(server: Server, served: str, tmp_path: Path) -> None:
    server.lengths, server.cut = False, [1000]
    with pytest.raises(DataError, match="not the pinned file"):
        fetch.download(served, tmp_path / "f.bin", sha256=HASH)
    assert list(tmp_path.iterdir()) == []


def test_a_body_of_unknown_length_and_hash_is_refused(server: Server, served: str, tmp_path: Path) -> None:
    server.lengths = False
    with pytest.raises(DataError, match="does not say how long"):
        fetch.download(served, tmp_path / "f.bin")
    assert not (tmp_path / "f.bin").exists()


def test_another_file_under_the_same_address_is_refused(server: Server, served: str, tmp_path: Path) -> None:
    server.files["f.bin"] = TEXT[:-1] + b"!"
    with pytest.raises(DataError, match="not the pinned file"):
        fetch.download(served, tmp_path / "f.bin", sha256=HASH, size=len(TEXT))
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_is_refused_before_it_is_fetched(server: Server, served: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 512000 bytes, not 511999"):
        fetch.download(served, tmp_path / "f.bin", sha256=HASH, size=len(TEXT) - 1)
    assert len(server.asked) == 1


@pytest.mark.parametrize("code", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(code: int, server: Server, served: str, tmp_path: Path) -> None:
    server.codes = [code, code]
    fetch.download(served, tmp_path / "f.bin", sha256=HASH)
    assert len(server.asked) == 3


@pytest.mark.parametrize("code", [401, 403, 404])
def test_what_will_not_pass_is_said_at_once(code: int, server: Server, served: str, tmp_path: Path) -> None:
    server.codes = [code]
    with pytest.raises(DataError, match=f"the server answers {code}"):
        fetch.download(served, tmp_path / "f.bin", sha256=HASH)
    assert len(server.asked) == 1


def test_without_a_network_the_hint_is_a_mirror(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no whole answer") as caught:
        fetch.download("http://127.0.0.1:1/f.bin", tmp_path / "f.bin", sha256=HASH)
    assert "--mirror" in caught.value.hint


def test_a_full_disk_is_said_and_not_tried_again(
    server: Server, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *, append: bool = False) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "_private", full)
    with pytest.raises(DataError, match="can't be written: No space left"):
        fetch.download(served, tmp_path / "f.bin", sha256=HASH)
    assert len(server.asked) == 1


def test_a_cache_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="can't be made") as caught:
        fetch.private_folder(tmp_path / "file" / "data")
    assert "HARNESS_CACHE" in caught.value.hint


def test_a_file_and_its_folders_are_private_even_under_a_loose_umask(
    server: Server, served: str, tmp_path: Path
) -> None:
    import os

    before = os.umask(0)
    try:
        fetch.download(served, tmp_path / "a" / "b" / "f.bin", sha256=HASH)
    finally:
        os.umask(before)
    modes = [(tmp_path / path).stat().st_mode & 0o777 for path in ("a", "a/b", "a/b/f.bin")]
    assert modes == [0o700, 0o700, 0o600]
