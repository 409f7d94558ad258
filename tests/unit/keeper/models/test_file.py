"""A model's file, as a person typed it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from rbee.errors import BadInput, NotPermitted, RbeeError
from rbee.keeper.models.file import absolute, check_sum, is_url, read_model


def test_a_url_is_what_has_a_scheme_and_other_schemes_are_refused() -> None:
    assert is_url("https://example.org/bee.gguf")
    assert is_url("file:///srv/bee.gguf")
    assert not is_url("./bee.gguf")
    assert not is_url("C:bee.gguf")
    for source in ("ftp://example.org/bee", "s3://bucket/bee"):
        with pytest.raises(BadInput, match="can be fetched from https"):
            is_url(source)


def test_a_path_is_absolute_and_a_link_at_its_end_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/bee.gguf").touch()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "current").symlink_to("real/bee.gguf")
    monkeypatch.chdir(tmp_path)

    assert absolute("folder/../folder/bee.gguf") == tmp_path / "real/bee.gguf"
    assert absolute("current") == tmp_path / "current"
    assert absolute("folder/") == tmp_path / "folder"
    assert absolute(".") == tmp_path


@pytest.mark.parametrize("typed", ["", "a\0b", "b\udcffe"])
def test_what_is_no_path_is_refused(typed: str) -> None:
    with pytest.raises(BadInput):
        absolute(typed)


def test_the_cure_for_a_scheme_of_another_program_is_named() -> None:
    with pytest.raises(BadInput) as refused:
        is_url("hf://owner/name")
    assert "https://huggingface.co/" in (refused.value.hint or "")


def test_a_fifo_and_a_device_are_named_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o644)

    with pytest.raises(BadInput, match="is a FIFO, and not a model's file"):
        read_model(str(tmp_path / "fifo"))
    with pytest.raises(BadInput, match="is a character device"):
        read_model("/dev/zero")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RbeeError, match="bee.gguf cannot be read: No such file or directory"):
        read_model(str(tmp_path / "bee.gguf"))


def test_a_folder_without_safetensors_is_refused_with_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a folder without") as refused:
        read_model(str(tmp_path))
    assert refused.value.hint == "Name a GGUF file, or a folder with *.safetensors."
    (tmp_path / "bee.gguf").touch()
    with pytest.raises(BadInput) as refused:
        read_model(str(tmp_path))
    assert refused.value.hint == f"Name the file: {tmp_path}/bee.gguf"


def test_a_file_that_no_worker_could_read_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "bee.gguf").touch(mode=0o640)
    (tmp_path / "bee.gguf").chmod(0o640)

    with pytest.raises(NotPermitted, match="its mode is 0640") as refused:
        read_model(str(tmp_path / "bee.gguf"))
    assert refused.value.hint is not None
    assert refused.value.hint.splitlines()[0] == f"chmod o+r {tmp_path}/bee.gguf"

    folder = tmp_path / "folder"
    folder.mkdir(mode=0o750)
    (folder / "a.safetensors").touch(mode=0o644)
    with pytest.raises(NotPermitted) as refused:
        read_model(str(folder))
    assert refused.value.hint is not None
    assert refused.value.hint.splitlines()[0] == f"chmod -R o+rX {folder}"


def test_what_is_no_model_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "bee.gguf").write_bytes(b"<html>" * 100)
    (tmp_path / "bee.gguf").chmod(0o644)

    with pytest.raises(BadInput, match="bee.gguf"):
        read_model(str(tmp_path / "bee.gguf"))


def test_a_sum_is_that_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "bee").write_bytes(b"bee")

    check_sum(tmp_path / "bee", hashlib.sha256(b"bee").hexdigest())
    with pytest.raises(BadInput, match="has another SHA-256"):
        check_sum(tmp_path / "bee", "0" * 64)
    with pytest.raises(BadInput, match="PATH is a folder"):
        check_sum(tmp_path, "0" * 64)
