"""Who is at the other end of a connection."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from rbee.systemd.daemon import Notifier
from tests.integration.server.example import app
from tests.integration.unix_http import TIMEOUT, served


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
