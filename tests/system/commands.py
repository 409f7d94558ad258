"""What the system tests ask of a machine, beside running rbeectl in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from testbed.commands import Runs
from testbed.machine import Machine

QUEEN, HIVE = "queen-rbee.service", "rbee-hive.service"
GATEWAY = "rbee-gateway.service"
WORKER, FETCH = "rbee-worker@bee.service", "rbee-fetch@bee.service"
"""Instances of the templates, by a name that no test gives."""

SOCKETS = ("queen-rbee.socket", "rbee-hive.socket")
CATALOG = "/var/lib/queen-rbee/catalog.db"

STORY = [
    "(bee keeper) queen is asleep, waking queen.",
    "(bee keeper) queen is awake and healthy.",
    "(bee keeper) Requesting queen to add localhost to hive catalog",
    "(queen bee)  Adding local pc to hive catalog.",
    "(queen bee)  waking up the bee hive at localhost",
    "(bee hive)   Sending first heartbeat to queen",
    "(queen bee)  first heartbeat from a bee hive is received from localhost. checking its capabilities...",
    "(queen bee)  unknown capabilities of beehive localhost. asking the beehive to detect devices",
    "(bee hive)   Detected CPU and GPUs, responding to queen",
]
"""What comes before the line with the devices, which are the machine's own."""


@dataclass(frozen=True)
class Answer:
    """What rbeectl printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def rbeectl(machine: Runs, *argv: str, user: str | None = "ada", **options: Any) -> Answer:
    done = machine.run("rbeectl", *argv, user=user, check=False, **options)
    return Answer(done.returncode, done.stdout, done.stderr)


def add_hive(machine: Runs) -> Answer:
    """Add this machine as ada and insist that it worked."""
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 0, answer
    return answer


def put(machine: Runs, path: str, text: str) -> None:
    """A file of root's, readable for all, in a directory that is made if it is not there."""
    machine.run("install", "-D", "-m", "0644", "/dev/stdin", path, input=text)


@contextmanager
def altered(machine: Machine, path: str, old: str, new: str) -> Iterator[None]:
    """A file in which a text, which has to be there, is another one."""
    text = machine.run("cat", path).stdout
    assert old in text, f"{path} has no {old!r}"
    put(machine, path, text.replace(old, new))
    try:
        yield
    finally:
        put(machine, path, text)


def configure(machine: Runs, text: str) -> None:
    """A drop-in for rbee.conf; it counts from the next start on."""
    put(machine, "/etc/rbee/rbee.conf.d/50-test.conf", text)


def override(machine: Runs, name: str, text: str) -> None:
    """A drop-in for a unit, in force at once."""
    put(machine, f"/run/systemd/system/{name}.d/50-test.conf", text)
    machine.run("systemctl", "daemon-reload")


def unit(machine: Runs, name: str, *properties: str) -> dict[str, str]:
    """Properties of a unit as systemctl show tells them; a few that are always wanted among them."""
    wanted = {"ActiveState", "SubState", "MainPID", "Result", "StatusText", *properties}
    shown = machine.run("systemctl", "show", f"--property={','.join(sorted(wanted))}", name).stdout
    return dict(line.split("=", 1) for line in shown.splitlines())


def active(machine: Runs, *names: str) -> list[str]:
    return [unit(machine, name)["ActiveState"] for name in names]


def await_stopped(machine: Machine, *names: str, seconds: int = 10) -> None:
    """Until each of the units is inactive or failed."""
    for name in names:
        stopped = f"systemctl show -P ActiveState {name} | grep -qE '^(inactive|failed)$'"
        machine.run("sh", "-c", f"until {stopped}; do sleep 0.02; done", timeout=seconds)


def main_pid(machine: Machine, name: str) -> int:
    return int(unit(machine, name)["MainPID"])


def user_of(machine: Machine, pid: int) -> str:
    return machine.run("ps", "-o", "user:32=", "-p", str(pid)).stdout.strip()


def processes_of(machine: Machine, *users: str) -> list[str]:
    # ps ends with 1 where it finds none.
    found = machine.run("ps", "-o", "pid=,args=", *(f"-u{user}" for user in users), check=False)
    return found.stdout.splitlines()


def rows(machine: Machine) -> list[dict[str, Any]]:
    """The hives of the catalog, read beside the queen."""
    program = f"""
import json, sqlite3
connection = sqlite3.connect("file:{CATALOG}?mode=ro", uri=True)
connection.row_factory = sqlite3.Row
print(json.dumps([dict(row) for row in connection.execute("SELECT * FROM hives")]))
"""
    found: list[dict[str, Any]] = json.loads(machine.run("python3", "-c", program).stdout)
    return found


def await_told(machine: Runs, event: str, times: int = 1) -> str:
    """The text of the queen's line, once she has told so many."""
    told = f"journalctl --quiet --output=cat --unit=queen-rbee RBEE_EVENT={event}"
    until = f"until {told} | sed -n {times}p | grep .; do sleep 0.05; done"
    return machine.run("sh", "-c", until, timeout=20).stdout.rstrip("\n")


def job_of(machine: Machine) -> str:
    """The id of the newest add-hive job, from the journal."""
    return str(machine.journal("RBEE_EVENT=adding")[-1]["RBEE_JOB_ID"])


def curl(machine: Runs, path: str, *options: str, user: str | None = "ada") -> tuple[int, Any]:
    """Status and JSON of a request to the queen over her socket."""
    done = machine.run(
        "curl", "--silent", "--show-error", "--unix-socket", "/run/rbee/queen.sock",
        "--max-time", "20", "--write-out", "\n%{http_code}", *options, f"http://localhost{path}", user=user,
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def await_state(
    machine: Machine, wanted: str, seconds: float = 10, *, hive: str = "localhost"
) -> dict[str, Any]:
    """The hive once it has the wanted state, within a deadline.

    Looked at whenever something is narrated, and so for the states of which something is.
    """
    program = f"""
import json, os, select, subprocess, sys, time
deadline = time.monotonic() + {seconds}
# It begins with what was narrated last, so that nothing is missed between the first look and its own.
monitor = subprocess.Popen(
    ["rbeectl", "monitor", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
)
try:
    while True:
        asked = subprocess.run(["rbeectl", "list-hives", "--json"], capture_output=True, text=True)
        hives = json.loads(asked.stdout).get("hives", []) if asked.stdout else []
        for hive in hives:
            if (hive["id"], hive["state"]) == ({hive!r}, {wanted!r}):
                print(json.dumps(hive))
                sys.exit(0)
        left = deadline - time.monotonic()
        if left <= 0:
            sys.exit(f"not {wanted} after {seconds} s: {{asked}}")
        if monitor.poll() is not None:
            time.sleep(0.05)  # rbeectl of the release before, which knows no such verb
        elif select.select([monitor.stdout], [], [], left)[0]:
            os.read(monitor.stdout.fileno(), 65536)
finally:
    monitor.terminate()
    monitor.wait()
"""
    found: dict[str, Any] = json.loads(machine.run("python3", "-c", program, timeout=seconds + 20).stdout)
    return found


def without_devices(line: str) -> str:
    """The line that ends the story, with the machine's own devices taken out."""
    return re.sub(r"has a cpu \(.*\) and model catalog", "has a cpu (…) and model catalog", line)


def tries(answer: Answer) -> list[str]:
    """What rbeectl told its user to type, in that order."""
    return [line.removeprefix("  try: ") for line in answer.err.splitlines() if line.startswith("  try: ")]


def type_in(machine: Machine, command: str, *, user: str | None = None) -> Answer:
    """A command as a person types it, as root for one that begins with sudo."""
    done = machine.run("sh", "-c", command.removeprefix("sudo "), user=user, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)
