"""What each program imports until it is ready: more imports are a slower start and more memory.

The lists are in start_imports.json, which python -m tests.integration.test_start_imports writes anew.
"""

from __future__ import annotations

import http.server
import json
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LISTS = HERE / "start_imports.json"

COMMANDS = (
    "queen-rbee",
    "rbee-hive",
    "rbee-gateway",
    "rbeectl --version",
    "rbeectl list-hives",
    "queen-rbee-tcp-retry",
    "rbee-fetch",
    "rbee-hive-join",
    "rbee-hive-redial",
)

HEAVY = (
    "anyio", "asyncio", "click", "configparser", "cryptography", "curses", "email", "h11", "http.client",
    "httpcore", "httptools", "httpx", "lxml", "multiprocessing", "prometheus_client", "psutil", "pynvml",
    "pystemd", "sdnotify", "sqlite3", "ssl", "starlette", "subprocess", "tempfile", "uvicorn", "uvloop",
)  # fmt: skip
"""Listed beside rbee's own modules. What these import in turn is not: it differs with Python's version."""


class _Queen(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = json.dumps({"hives": []}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def address_string(self) -> str:
        return "rbeectl"

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def a_queen_without_hives(path: Path) -> Iterator[None]:
    with socketserver.UnixStreamServer(str(path), _Queen) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield
        finally:
            server.shutdown()
            serving.join()


def imported(command: str) -> list[str]:
    """The modules of rbee and of HEAVY that a program has imported when it is ready, or has ended."""
    with tempfile.TemporaryDirectory() as folder, a_queen_without_hives(Path(folder, "queen.sock")):
        probe = [sys.executable, str(HERE / "start_probe.py"), folder, *command.split()]
        done = subprocess.run(
            probe, env={"PYTHONPATH": str(HERE.parents[1])}, capture_output=True, text=True, timeout=30
        )
    assert done.returncode == 0, done.stderr
    modules = done.stdout.split()
    return sorted(one for one in modules if one in HEAVY or one.partition(".")[0] == "rbee")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_program_imports_the_listed_modules_and_no_others_until_it_is_ready(command: str) -> None:
    listed, now = set(json.loads(LISTS.read_text())[command]), set(imported(command))

    assert (sorted(now - listed), sorted(listed - now)) == ([], []), (
        f"{command} imports more or less at its start than {LISTS.name} lists. If that is intended, and "
        "what is new cannot wait until it is needed, run: python -m tests.integration.test_start_imports"
    )


if __name__ == "__main__":
    lists = {command: imported(command) for command in COMMANDS}
    LISTS.write_text(json.dumps(lists, indent=1) + "\n")
