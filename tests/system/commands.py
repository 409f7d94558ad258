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


LOOK = """
import json, select, socket, subprocess, sys, time

def ask(path):
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(10)
    channel.connect("/run/rbee/queen.sock")
    channel.sendall(f"GET {path} HTTP/1.1\\r\\nHost: rbee\\r\\nConnection: close\\r\\n\\r\\n".encode())
    return channel

def whole(channel):
    with channel, channel.makefile("rb") as answer:
        return answer.read().partition(b"\\r\\n\\r\\n")[2]

def is_awake():
    # systemd starts a queen who is not awake, or is about to stop, for any client: looking wakes nobody.
    asked = ["systemctl", "show", "--property=ActiveState,Job", "queen-rbee.service"]
    shown = subprocess.run(asked, stdout=subprocess.PIPE, text=True).stdout
    return sorted(shown.split()) == ["ActiveState=active", "Job="]

def look(path, feed):
    if not is_awake():
        return feed, "the queen is not awake"
    try:
        if feed is None:
            feed = ask("/v1/events")
            feed.recv(65536)  # from now on nothing is missed
        return feed, json.loads(whole(ask(path)))
    except (OSError, ValueError) as error:
        return feed, repr(error)

path, kind, name, states, seconds, pause = json.loads(sys.argv[1])
deadline = time.monotonic() + seconds
feed = None
while True:
    feed, seen = look(path, feed)
    for one in seen.get(kind, ()) if isinstance(seen, dict) else ():
        if one["state"] in states and name in (None, one["id"]):
            print(json.dumps(one))
            sys.exit(0)
    left = deadline - time.monotonic()
    if left <= 0:
        sys.exit(f"not {' or '.join(states)} after {seconds} s: {seen}")
    if feed is None:
        time.sleep(0.05)
    elif select.select([feed], [], [], min(left, pause if isinstance(seen, dict) else 0.05))[0]:
        try:
            is_over = not feed.recv(65536)
        except OSError:
            is_over = True
        if is_over:
            feed.close()
            feed = None
"""
"""Print the row of the queen's answer that has one of the states, by looking whenever something is narrated.

It asks for what rbeectl would, at a tenth of its cost."""


def await_row(
    machine: Runs, path: str, kind: str, *states: str, name: str | None, seconds: float, pause: float
) -> dict[str, Any]:
    """The hive or worker of that name, or any, once it has one of these states, within a deadline.

    Looked at whenever something is narrated, and after `pause` seconds.
    """
    asked = json.dumps([path, kind, name, states, seconds, pause])
    shown = machine.run("python3", "-IS", "-c", LOOK, asked, timeout=seconds + 20).stdout
    found: dict[str, Any] = json.loads(shown)
    return found


def await_state(
    machine: Machine, wanted: str, seconds: float = 10, *, hive: str = "localhost"
) -> dict[str, Any]:
    """The hive once it has the wanted state, of which something has to be narrated, within a deadline."""
    return await_row(machine, "/v1/hives", "hives", wanted, name=hive, seconds=seconds, pause=seconds)


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
