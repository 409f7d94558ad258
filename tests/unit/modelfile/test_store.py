"""The store's paths, and what is in its small files."""

from __future__ import annotations

from pathlib import Path

from rbee.modelfile.store import PART, RESULT, FetchResult, Meta, Store, StoreRequest, read_small, small
from rbee.wire.models import Fetch, Head

SUM = "5" * 64


def test_a_file_is_there_once_it_has_its_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.file(SUM) is None
    path = store.new_file(SUM, "safetensors")
    path.parent.mkdir()
    store.meta(SUM).write_bytes(small(Meta(SUM, 5, Head("safetensors"))))
    assert store.file(SUM) is None

    path.touch()
    assert store.file(SUM) == path
    assert store.read_meta(SUM) == Meta(SUM, 5, Head("safetensors"))


def test_what_is_left_of_fetches_is_listed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.ids(PART) == []
    store.fetches.mkdir()
    for path in (store.part("b"), store.part("a"), store.result("c"), store.fetches / ".d.result.new"):
        path.touch()

    assert (store.ids(PART), store.ids(RESULT)) == (["a", "b"], ["c"])


def test_small_files_are_read_as_written_and_others_are_none(tmp_path: Path) -> None:
    request = StoreRequest(fetch=Fetch("a", "bee", "https://example.org/bee.gguf", SUM), job_id="7" * 32)
    path = tmp_path / "request"
    assert read_small(path, StoreRequest) is None
    path.write_bytes(small(request))
    assert read_small(path, StoreRequest) == request
    assert read_small(path, FetchResult) is None
    for content in (b"", b"{", b"[" * 20_000, b"\xff", b'{"fetch": 7}'):
        path.write_bytes(content)
        assert read_small(path, StoreRequest) is None
    path.unlink()
    path.symlink_to("/etc/hostname")
    assert read_small(path, StoreRequest) is None
