"""What a file is by its first bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import BadInput
from rbee.modelfile.formats import format_of
from rbee.modelfile.reader import Cut
from tests.model_files import gguf, refusal_of, safetensors


def test_models_are_known() -> None:
    assert format_of(gguf()[:512], "a") == "gguf"
    assert format_of(safetensors()[:512], "a") == "safetensors"


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n  <HTML>", "web page"),
        (b"\xef\xbb\xbf<?xml version=", "web page"),
        (b"version https://git-lfs.", "Git LFS"),
        (b"PK\x03\x04" + bytes(20), "PyTorch"),
        (b"\x80\x02}q", "pickle"),
        (b"FUGG" + bytes(20), "big-endian"),
        (b"tjgg" + bytes(20), "older than GGUF"),
        (b"\x1f\x8b" + bytes(20), "gzip"),
        (b'{"error": "gated"}', "neither GGUF nor safetensors"),
        (bytes(20), "neither GGUF nor safetensors"),
        (b"\xff" * 7 + b"\x7f{" + bytes(20), "neither GGUF nor safetensors"),
    ],
)
def test_what_people_mistake_for_models_is_called_by_its_name(start: bytes, what: str) -> None:
    with pytest.raises(BadInput, match=what) as refused:
        format_of(start, "a file")
    assert refused.value.message.startswith("a file is not a model")
    assert refused.value.hint


@pytest.mark.parametrize("start", [b"", b"\0", b"\x10" + bytes(7)])
def test_too_few_bytes_are_not_judged(start: bytes) -> None:
    with pytest.raises(Cut):
        format_of(start, "a file")


@given(st.binary(max_size=64))
def test_any_bytes_are_a_format_or_refused(start: bytes) -> None:
    message = refusal_of(lambda: format_of(start, "a file"))

    assert message is None or message.startswith("a file is")
