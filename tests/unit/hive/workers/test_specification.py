"""What a worker is to be, in files that only root and the hive read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rbee.engines.order import Order
from rbee.errors import RbeeError
from rbee.hive.workers.specification import Specifications
from rbee.wire.workers import StartWorker

START = StartWorker("bee-1", "bee", "test", "/srv/bee.gguf", "gguf", 4096, "ram", 2**30)
ORDER = Order("bee", "test", ("/bin/x",), (), Path("/m"), "/srv/bee.gguf", Path("/s"), "/health")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_specification_comes_back_and_leaves_nothing(tmp_path: Path) -> None:
    specifications = Specifications(tmp_path / "workers")
    assert list(specifications.read()) == []
    specifications.write(START, ORDER)
    specifications.set_wait("bee-1", 6)
    specifications.write(START._replace(path="/srv/other.gguf"), ORDER)

    folder = tmp_path / "workers/bee-1"
    assert list(specifications.read()) == [START._replace(path="/srv/other.gguf")]
    assert sorted(os.listdir(folder)) == ["environment", "model", "worker.json"]
    assert os.readlink(folder / "model") == "/srv/other.gguf"
    assert (mode(folder), mode(folder / "environment"), mode(folder / "worker.json")) == (0o700, 0o600, 0o600)
    specifications.remove("bee-1")
    specifications.remove("bee-1")
    assert os.listdir(tmp_path / "workers") == []


@pytest.mark.parametrize("content", ["", "{", "{}", "[1]", '{"id": "other"}', None])
def test_what_a_hive_left_half_written_is_removed(tmp_path: Path, content: str | None) -> None:
    specifications = Specifications(tmp_path)
    specifications.write(START, ORDER)
    broken = tmp_path / "bee-2"
    broken.mkdir()
    if content is not None:
        (broken / "worker.json").write_text(content)
    (tmp_path / "Bad Name").mkdir()

    assert list(specifications.read()) == [START]
    assert os.listdir(tmp_path) == ["bee-1"]


def test_a_wait_that_cannot_be_written_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Specifications(tmp_path).set_wait("bee-1", 6)

    assert "the worker bee-1 is started again without a further wait" in caplog.text
    assert "wait cannot be written: " in caplog.text


def test_what_cannot_be_written_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "workers").touch()

    with pytest.raises(RbeeError, match="workers/bee-1 cannot be written: "):
        Specifications(tmp_path / "workers").write(START, ORDER)
