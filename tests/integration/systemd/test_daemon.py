"""The sockets that systemd hands over to a process."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.listening import listen

REPOSITORY = Path(__file__).parents[3]

TAKE = """
import json, os, socket, sys
pairs, environ = int(sys.argv[1]), json.loads(sys.argv[2])
if environ.get("LISTEN_PID") == "own":
    environ["LISTEN_PID"] = str(os.getpid())
from rbee.errors import BadConfig
from rbee.systemd.daemon import take_sockets
os.environ.update(environ)
try:
    taken = take_sockets()
except BadConfig as error:
    print(json.dumps({"refused": error.message, "exit": error.exit_code}))
    sys.exit()
print(json.dumps({
    "taken": {name: [one.fileno() for one in listeners] for name, listeners in taken.items()},
    "addresses": [one.getsockname() for listeners in taken.values() for one in listeners],
    "unix": all(one.family == socket.AF_UNIX for listeners in taken.values() for one in listeners),
    "inheritable": [os.get_inheritable(3 + n) for n in range(pairs)],
    "left": sorted(name for name in os.environ if name.startswith("LISTEN_")),
}))
"""


def take(tmp_path: Path, count: int, **environ: str) -> dict[str, Any]:
    """What a process that is started with `count` listening sockets from descriptor 3 on takes."""
    listeners = [listen(tmp_path / f"{number}.sock") for number in range(count)]
    # As systemd does it: the descriptors stand at 3, 4, ... in the new process.
    passed = [fcntl.fcntl(listener, fcntl.F_DUPFD, 20) for listener in listeners]
    redirections = " ".join(f"{3 + n}<&{fd} {fd}<&-" for n, fd in enumerate(passed))
    try:
        run = subprocess.run(
            ["bash", "-c", f'exec "$@" {redirections}', "bash"]  # noqa: RUF005
            + [sys.executable, "-c", TAKE, str(count), json.dumps(environ)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
            pass_fds=passed,
        )
    finally:
        for fd in passed:
            os.close(fd)
        for listener in listeners:
            listener.close()
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def test_sockets_are_taken_by_name_and_the_environment_is_cleaned(tmp_path: Path) -> None:
    answer = take(tmp_path, 2, LISTEN_PID="own", LISTEN_FDS="2", LISTEN_FDNAMES="queen-rbee.socket:tcp")

    assert answer == {
        "taken": {"queen-rbee.socket": [3], "tcp": [4]},
        "addresses": [str(tmp_path / "0.sock"), str(tmp_path / "1.sock")],
        "unix": True,
        "inheritable": [False, False],
        "left": [],
    }


def test_sockets_of_one_name_are_taken_together(tmp_path: Path) -> None:
    answer = take(tmp_path, 2, LISTEN_PID="own", LISTEN_FDS="2", LISTEN_FDNAMES="queen:queen")

    assert answer["taken"] == {"queen": [3, 4]}


def test_sockets_without_names_are_called_unknown_as_systemd_calls_them(tmp_path: Path) -> None:
    assert take(tmp_path, 2, LISTEN_PID="own", LISTEN_FDS="2")["taken"] == {"unknown": [3, 4]}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "own", "LISTEN_FDS": "0"},
        {"LISTEN_PID": "own"},
        {"LISTEN_PID": "own", "LISTEN_FDS": "-1"},
        {"LISTEN_PID": "own", "LISTEN_FDS": "many"},
        {"LISTEN_PID": "", "LISTEN_FDS": "1"},
    ],
)
def test_without_sockets_of_its_own_a_daemon_cannot_run(tmp_path: Path, environ: dict[str, str]) -> None:
    assert take(tmp_path, 1, **environ) == {"refused": "systemd handed over no socket", "exit": 78}
