"""What a full disk does to the catalog, in a process whose files may not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rbee.queen.store.store import Store
from tests.unit.queen.store.files import stored

REPOSITORY = Path(__file__).parents[4]

LIMITED = """
import asyncio, json, resource, signal, sys
from pathlib import Path
from rbee.wire.devices import Cpu, Devices, Gpu
from rbee.errors import RbeeError
from rbee.queen.store.store import Store
path, limit, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def full():
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
def room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
large = Devices(
    Cpu(None, None, None, None, None),
    tuple(Gpu(n, "amd", "x" * 2000, None, None, None, None) for n in range(64)),
)
async def main(catalog):
    await catalog.hives.add("localhost", "localhost", 8600)
    full()
    try:
        await catalog.hives.set_online("localhost", large)
    finally:
        room()
try:
    if when == "open":
        full()
    catalog = Store.open(path)
    asyncio.run(main(catalog))
except RbeeError as error:
    room()
    print(json.dumps([type(error).__name__, error.message, error.hint]))
else:
    print("null")
"""


def limited(path: Path, limit: int, when: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(limit), when],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    told: list[str] = json.loads(ran.stdout)
    return told


async def test_a_disk_that_fills_up_while_writing_leaves_the_row_as_it_was(path: Path) -> None:
    kind, message, hint = limited(path, 60_000, "write")

    assert kind == "CatalogFailed"
    assert message == f"{path} cannot be used: File too large"
    assert f"df -h {path.parent}" in hint
    catalog = Store.open(path)
    (row,) = await catalog.hives.all()
    catalog.close()
    assert (row.status, row.devices) == ("pending", None)
    assert stored(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("limit", [0, 100, 5000])
async def test_a_disk_that_is_full_when_the_catalog_is_made_is_told_with_the_cure(
    path: Path, limit: int
) -> None:
    kind, message, hint = limited(path, limit, "open")

    assert kind == "CatalogUnusable"
    assert str(path) in message
    assert f"df -h {path.parent}" in hint
    assert list(path.parent.iterdir()) == []
    # And once there is room, it works.
    catalog = Store.open(path)
    assert await catalog.hives.all() == []
    catalog.close()
