"""What is done for a request."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rbee.fetch.errors import BadRequest, NoRoom, NotThere
from rbee.fetch.part import Part
from rbee.fetch.source import Source
from rbee.fetch.transfer import World
from rbee.fetch.work import Works
from rbee.modelfile.store import Store
from rbee.wire.models import Fetch
from tests.model_files import gguf, safetensors


@pytest.fixture
def works(tmp_path: Path) -> Works:
    (tmp_path / "store").mkdir()
    return Works(Store(tmp_path / "store"), World(lambda: 2**40, lambda one: None), "one")


def fetch(works: Works, path: Path, fetch_id: str = "a") -> str:
    result = works.fetch(Fetch(fetch_id, "bee", path.as_uri()))
    assert (result.state, result.bytes) == ("done", path.stat().st_size)
    assert result.sha256
    return result.sha256


def test_a_file_of_this_machine_is_copied(works: Works, tmp_path: Path) -> None:
    for name, content in (("a b.gguf", gguf()), ("b.bin", safetensors())):
        (tmp_path / name).write_bytes(content)
        path = works.store.file(fetch(works, tmp_path / name, name[0]))
        assert path is not None
        assert path.read_bytes() == content
        assert path.suffix == (".gguf" if content == gguf() else ".safetensors")


def test_what_is_in_the_store_may_be_read_by_all_whatever_the_umask(works: Works, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gguf())
    mask = os.umask(0o077)
    try:
        fetch(works, tmp_path / "a")
    finally:
        os.umask(mask)

    modes = {path.stat().st_mode & 0o777 for path in works.store.folder.rglob("*")}
    assert modes == {0o755, 0o644, 0o444}


def test_two_fetches_of_the_same_content_are_one_file(works: Works, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gguf())

    assert fetch(works, tmp_path / "a") == fetch(works, tmp_path / "a", "b")
    assert len(list(works.store.folder.glob("*/model.gguf"))) == 1
    assert sorted(os.listdir(works.store.fetches)) == ["a.result", "b.result"]


def test_a_crash_before_the_last_step_leaves_nothing_in_the_way(works: Works, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gguf())
    sha256 = fetch(works, tmp_path / "a")
    path = works.store.file(sha256)
    assert path is not None
    path.unlink()

    assert fetch(works, tmp_path / "a") == sha256
    assert works.store.file(sha256) == path


def test_a_removed_file_leaves_nothing(works: Works, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gguf())
    sha256 = fetch(works, tmp_path / "a")
    other = Fetch("b", "bee", "file:///nowhere")
    with pytest.raises(NotThere):
        works.fetch(other)

    works.remove(sha256)
    works.remove(sha256)
    works.forget("b")
    works.forget("b")
    assert os.listdir(works.store.folder) == ["fetches"]
    assert os.listdir(works.store.fetches) == []


def test_a_url_that_cannot_be_fetched_is_refused_and_noted(works: Works) -> None:
    with pytest.raises(BadRequest, match="could be replaced"):
        works.fetch(Fetch("a", "bee", "http://example.org/x"))

    result = works.store.read_result("a")
    assert result is not None
    assert result.reason.startswith("over http the file")


def test_a_disk_that_is_full_is_named_and_what_has_arrived_removed(
    works: Works, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(gguf())

    def full(_part: Part, _block: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Part, "write", full)
    with pytest.raises(NoRoom, match="store cannot be written: No space left on device"):
        works.fetch(Fetch("a", "bee", f"file://{tmp_path}/a"))
    assert os.listdir(works.store.fetches) == ["a.result"]


def test_an_unforeseen_error_keeps_what_has_arrived(works: Works) -> None:
    @contextmanager
    def broken(_fetch: Fetch) -> Iterator[Source]:
        raise ZeroDivisionError
        yield

    works = Works(works.store, works.world, "one", open_source=broken)
    with pytest.raises(ZeroDivisionError):
        works.fetch(Fetch("a", "bee", "https://example.org/x"))
    assert works.store.read_result("a") is None


def test_a_fetch_that_has_ended_well_is_not_done_again(works: Works, tmp_path: Path) -> None:
    """Its hive may have been down when it ended, and asks for it once more."""
    path = tmp_path / "a"
    path.write_bytes(gguf())
    sha256 = fetch(works, path)
    path.unlink()  # as a URL that has expired

    again = works.fetch(Fetch("a", "bee", path.as_uri()))
    assert (again.state, again.sha256) == ("done", sha256)
    with pytest.raises(NotThere):
        works.fetch(Fetch("a", "bee", path.as_uri(), sha256="0" * 64))


def test_a_fetch_whose_file_has_gone_is_done_again(works: Works, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gguf())
    kept = works.store.file(fetch(works, tmp_path / "a"))
    assert kept is not None
    kept.unlink()

    assert works.store.file(fetch(works, tmp_path / "a")) == kept
