"""Models as text."""

from __future__ import annotations

import pytest

from rbee.queen.models.describe import describe_model, describe_progress, size
from rbee.wire.models import Head
from tests.unit.queen.models.rows import ROW


def test_a_model_is_its_file_and_what_is_in_it() -> None:
    head = Head("gguf", "llama", 7_615_616_512, "Q4_K_M")
    row = ROW._replace(path="/m/a.gguf", head=head, bytes=5_020_000_000)

    assert describe_model(row) == "/m/a.gguf (llama, 7.6 B parameters, Q4_K_M, 4.7 GiB)"
    assert describe_model(row._replace(head=Head("gguf"), bytes=None)) == "/m/a.gguf (gguf)"
    assert describe_model(row._replace(head=None, bytes=None)) == "/m/a.gguf"
    assert describe_model(row._replace(path=None, head=None, bytes=None)) == row.source


@pytest.mark.parametrize(
    ("arrived", "total", "text"),
    [
        (0, None, "0 bytes so far"),
        (2**20, 4 * 2**20, "25 %, 1.0 MiB of 4.0 MiB"),
        (999, 1000, "99 %, 999 bytes of 1000 bytes"),
        (1100, 1000, "100 %, 1.1 KiB of 1000 bytes"),
    ],
)
def test_progress_is_never_more_than_there_is(arrived: int, total: int | None, text: str) -> None:
    assert describe_progress(arrived, total) == text


@pytest.mark.parametrize(
    ("count", "text"), [(1, "1 bytes"), (1536, "1.5 KiB"), (2**40, "1.0 TiB"), (2**53, "8192.0 TiB")]
)
def test_a_size_has_the_unit_that_suits_it(count: int, text: str) -> None:
    assert size(count) == text
