"""The head of a model, whatever its format."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from rbee.errors import BadInput, RbeeError
from rbee.modelfile.head import head_of, read_head
from rbee.modelfile.reader import Cut
from tests.model_files import gguf, safetensors


def test_a_file_is_read_by_what_it_is_and_not_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(gguf())
    (tmp_path / "b.bin").write_bytes(safetensors())

    heads = [read_head(tmp_path / name) for name in ("a.bin", "b.bin")]
    assert [(head.format, size) for head, size in heads] == [
        ("gguf", len(gguf())),
        ("safetensors", len(safetensors())),
    ]


def test_a_folder_is_read_with_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "model.safetensors").write_bytes(safetensors())

    head, size = read_head(tmp_path)
    assert (head.format, head.architecture, size) == ("safetensors", "llama", len(safetensors()))


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_bytes(b"<html>")
    (tmp_path / "cut.gguf").write_bytes(gguf()[:100])
    os.mkfifo(tmp_path / "fifo.gguf")

    for name in ("page.gguf", "cut.gguf", "fifo.gguf"):
        with pytest.raises(BadInput, match=f"{tmp_path / name} is "):
            read_head(tmp_path / name)
    for path in (tmp_path / "none.gguf", tmp_path / "cut.gguf/x"):
        with pytest.raises(RbeeError, match="cannot be read"):
            read_head(path)


def test_what_has_arrived_of_a_file_is_read_as_soon_as_its_header_is_there() -> None:
    for whole in (gguf(), safetensors()):
        with pytest.raises(Cut):
            head_of(io.BytesIO(whole[:60]), "a", len(whole))
        with pytest.raises(Cut):
            head_of(io.BytesIO(whole[:60]), "a", None)
        assert head_of(io.BytesIO(whole[:-8]), "a", len(whole)) == head_of(io.BytesIO(whole), "a", len(whole))
