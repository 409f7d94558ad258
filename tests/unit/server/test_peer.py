"""Who is at the other end of a connection."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import cast

from rbee.server.peer import Peer, peer_at
from rbee.systemd.daemon import Notifier
from tests.unit.server.example import app
from tests.unit.unix_http import TIMEOUT, served


def test_a_user_of_a_directory_has_a_number_above_2_to_the_31() -> None:
    class Channel:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option, size) == (socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return (42).to_bytes(4, sys.byteorder) + (3420080244).to_bytes(4, sys.byteorder) * 2

    assert peer_at(cast(socket.socket, Channel())) == Peer(42, 3420080244, 3420080244)


async def test_the_peer_is_the_one_that_the_kernel_names(tmp_path: Path, silent_notifier: Notifier) -> None:
    async with served(app(), tmp_path / "s", silent_notifier):
        code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        code += "s.sendall(b'GET /health HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n');"
        code += "print(s.makefile().read())"
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(tmp_path / "s"), stdout=subprocess.PIPE
        )
        told, _ = await asyncio.wait_for(other.communicate(), TIMEOUT)
        told, pid = json.loads(told.decode().partition("\n\n")[2])["version"], other.pid

    assert told == f"{pid} {os.geteuid()} {os.getegid()}"
