"""What has arrived of a file, over the ends of processes and of machines."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rbee.fetch import part as room
from rbee.fetch.part import Part
from rbee.modelfile.store import Store

URL = "https://example.org/bee.gguf"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.fetches.mkdir()
    return store


def a_part(store: Store, *, url: str = URL, boot_id: str = "one") -> Part:
    return Part(store, "a", url, boot_id=boot_id)


def resumed(store: Store, *, url: str = URL, boot_id: str = "one") -> tuple[int, str | None, str]:
    with a_part(store, url=url, boot_id=boot_id) as part:
        part.resume(lambda size: None)
        return part.size, part.version, part.sha256


def test_what_was_written_is_there_for_the_next_process(store: Store) -> None:
    with a_part(store) as part:
        part.resume(lambda size: None)
        part.begin('"v1"')
        part.write(b"12345")

    assert resumed(store) == (5, '"v1"', hashlib.sha256(b"12345").hexdigest())


def test_another_source_begins_anew(store: Store) -> None:
    with a_part(store) as part:
        part.begin('"v1"')
        part.write(b"12345")

    assert resumed(store, url=f"{URL}?") == (0, None, hashlib.sha256().hexdigest())


def test_a_part_without_its_version_begins_anew(store: Store) -> None:
    store.part("a").write_bytes(b"12345")
    assert resumed(store)[0] == 0

    store.part("a").write_bytes(b"12345")
    store.version("a").write_bytes(b"{}")
    assert resumed(store)[0] == 0


def test_after_the_next_boot_only_what_was_synced_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "SYNC_BYTES", 8)
    with a_part(store) as part:
        part.begin(None)
        for _ in range(3):
            part.write(b"12345")
        assert (part.size, part.synced) == (15, 10)

    assert resumed(store)[0] == 15
    assert resumed(store, boot_id="two") == (10, None, hashlib.sha256(b"1234512345").hexdigest())


def test_a_link_in_its_place_is_not_followed(store: Store, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    store.part("a").symlink_to(tmp_path / "precious")

    with pytest.raises(OSError, match="symbolic links"), a_part(store):
        pass


def test_it_becomes_a_file_that_all_may_read_and_nobody_write(store: Store, tmp_path: Path) -> None:
    with a_part(store) as part:
        part.begin(None)
        part.write(b"12345")
        part.keep_as(tmp_path / "whole")

    assert (tmp_path / "whole").stat().st_mode & 0o777 == 0o444
    assert list(store.fetches.iterdir()) == []
