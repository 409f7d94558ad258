"""Estimate= of an engine, on a real systemd: a placement counts with its answer, if it has a valid one."""

from __future__ import annotations

import re
import time

from testbed.machine import Machine
from testbed.tiny_model import says

from tests.system.commands import override, put, rbeectl
from tests.system.serve.served import chat, succeed, write_model

MIB = 2**20
PROGRAM = "/opt/engine/estimate"
UNIT = "rbee-estimate.service"
DROPIN = "/etc/rbee/engines.d/llama-server.conf.d/estimate.conf"
MODEL = "/home/ada/models/bee.gguf"

SAYS = """\
#!/usr/bin/python3 -I
# The size of the model, and 1 KiB a token of its context; it notes where it ran, and what it can reach.
import os, socket, sys
model, context, device = sys.argv[1:]
print("a line before the answer")
try:
    socket.create_connection(("127.0.0.1", 9), 1)
except OSError as error:
    net = error.strerror
def writes(path):
    try:
        os.close(os.open(path, os.O_WRONLY))
        return "may"
    except OSError as error:
        return error.strerror
sees = os.path.exists("/run/rbee/queen.sock")
about = (os.getuid() >= 61184, sys.stdin.read() == "", net, writes(model), sees)
print("ran as", *about, device, file=sys.stderr, flush=True)
with open(model, "rb") as file:
    size = len(file.read())
if os.environ.get("FAILS"):
    sys.exit(f"{about}")
assert size > 1000
print(1024 * int(context) + 300 * 2**20)
"""


def install(machine: Machine, program: str, command: str = f"{PROGRAM} %m %c %d", *more: str) -> None:
    machine.run("install", "-d", "/opt/engine", "/etc/rbee/engines.d/llama-server.conf.d")
    machine.run("install", "-m", "0755", "/dev/stdin", PROGRAM, input=program)
    put(machine, DROPIN, "\n".join(("[Engine]", f"Estimate={command}", *more, "")))


def add_model(machine: Machine) -> None:
    """A model in a home that only ada may enter; the engine is named, as the machine has several."""
    machine.run("install", "-d", "-o", "ada", "-m", "0700", "/home/ada", "/home/ada/models")
    write_model(machine, MODEL, says("I am bee one."))
    succeed(machine, "model", "add", "bee", MODEL, "--context", "4096")
    succeed(machine, "serve", "bee", "--engine", "llama-server")
    succeed(machine, "add-hive", "localhost")


def starts(machine: Machine) -> int:
    """How often the unit was started since the machine booted."""
    lines = machine.run("journalctl", "-u", UNIT, "-o", "cat", "--no-pager").stdout
    return len(re.findall(r"(?m)^Started ", lines))


def test_a_placement_counts_with_what_the_engine_says_and_asks_it_once(serving: Machine) -> None:
    install(serving, SAYS)
    add_model(serving)

    page = succeed(serving, "place", "bee", "--dry-run").out
    placed = succeed(serving, "place", "bee", "--dry-run", "--json").json

    says_so = "0.3 GiB (as its engine llama-server says)"
    assert page.startswith(f"bee needs {says_so} with a context of 4096 tokens\n")
    assert (placed["need_bytes"], placed["source"], placed["engine"], placed["note"]) == (
        304 * MIB, "engine", "llama-server", None,
    )  # fmt: skip
    assert says_so in succeed(serving, "model", "show", "bee").out
    assert says_so in rbeectl(serving, "status", "bee").out
    assert starts(serving) == 1
    succeed(serving, "serve", "bee", "--context", "8192")
    assert succeed(serving, "place", "bee", "--dry-run", "--json").json["need_bytes"] == 308 * MIB
    assert starts(serving) == 2
    assert chat(serving, "bee").text == "I am bee one."
    placing = serving.run("journalctl", "RBEE_EVENT=worker-placed", "-o", "cat", "--no-pager").stdout
    assert placing.startswith("bee needs 308 MiB (says llama-server); ")


def test_the_command_runs_with_few_rights(serving: Machine) -> None:
    install(serving, SAYS, f"{PROGRAM} %m %c %d", "Environment=FAILS=1")
    add_model(serving)

    note = succeed(serving, "place", "bee", "--dry-run", "--json").json["note"]

    assert note is not None
    about = "(True, True, 'Address family not supported by protocol', 'Permission denied', False)"
    assert f"exited with status 1, and said '{about}'" in note


BROKEN = {
    "prints without end": ("#!/bin/sh\nyes\n", "printed more than 64 KiB"),
    "hangs": ("#!/bin/sh\nsleep 600\n", "had not ended after 5 s"),
    "prints 10^30": (f"#!/bin/sh\necho 1{'0' * 30}\n", "more than"),
    "prints a negative number": ("#!/bin/sh\necho -5\n", "not a number of bytes: '-5'"),
    "is not UTF-8": ("#!/bin/sh\nprintf '\\377\\n'\n", "not UTF-8"),
    "exits with a message": (
        "#!/bin/sh\necho no such card >&2\nexit 3\n",
        "status 3, and said 'no such card'",
    ),
    "is no program": ("hello\n", "cannot be executed (Exec format error)"),
}


def test_a_broken_command_falls_back_and_says_why(serving: Machine) -> None:
    install(serving, "#!/bin/sh\necho 1\n")
    add_model(serving)
    for what, (program, why) in BROKEN.items():
        install(serving, program)
        page = succeed(serving, "place", "bee", "--dry-run").out
        assert "(estimated from its header)" in page, what
        assert f"Its engine does not say what it needs: {DROPIN}: Estimate={PROGRAM} " in page, what
        assert why in page, (what, page)
        assert serving.run("ps", "-eo", "user:20=").stdout.count("rbee-estimate") == 0, what
    serving.run("rm", PROGRAM)
    assert "No such file or directory" in succeed(serving, "place", "bee", "--dry-run").out
    told = serving.run("journalctl", "RBEE_EVENT=estimate-failed", "-o", "cat", "--no-pager").stdout
    assert len(told.splitlines()) == len(BROKEN) + 1
    assert chat(serving, "bee").text == "I am bee one."
    assert serving.run("systemctl", "list-units", "--failed", "--no-legend").stdout == ""


def test_a_unit_that_cannot_start_leaves_what_was_said_and_names_the_journal(serving: Machine) -> None:
    install(serving, SAYS)
    add_model(serving)
    assert succeed(serving, "place", "bee", "--dry-run", "--json").json["source"] == "engine"
    override(serving, UNIT, "[Service]\nBindReadOnlyPaths=/not/there\n")
    serving.run("systemctl", "restart", "rbee-hive")
    succeed(serving, "add-hive", "localhost")

    for _ in range(2):
        placed = succeed(serving, "place", "bee", "--dry-run", "--json").json
        assert (placed["need_bytes"], placed["source"], placed["note"]) == (304 * MIB, "engine", None)
    (failed,) = serving.journal("RBEE_EVENT=estimate-failed")
    assert failed["MESSAGE"].endswith(f"; see: sudo journalctl -u {UNIT} -e")
    told = serving.run("journalctl", "-u", UNIT, "-o", "cat", "--no-pager").stdout
    assert "status=226/NAMESPACE" in told
    assert starts(serving) == 1
    assert told.count("Failed with result") == 1
    assert serving.run("systemctl", "list-units", "--failed", "--no-legend").stdout == ""


def test_a_child_that_is_left_behind_ends_and_a_killed_hive_leaves_nothing(serving: Machine) -> None:
    child = "#!/bin/sh\ntrap '' TERM\n(trap '' TERM; exec setsid sleep 600) &\necho 1048576\n"
    install(serving, child)
    add_model(serving)

    placed = succeed(serving, "place", "bee", "--dry-run", "--json").json
    assert (placed["need_bytes"], placed["source"]) == (MIB, "engine")
    assert "sleep 600" not in serving.run("ps", "-eo", "args=").stdout

    override(serving, UNIT, "[Service]\nRuntimeMaxSec=3s\nTimeoutStartSec=3s\n")
    install(serving, "#!/bin/sh\nsleep 600\n")
    asking = "rbeectl place bee --dry-run >/dev/null 2>&1 & sleep 1; systemctl kill -s KILL rbee-hive.service"
    serving.run("sh", "-c", asking)
    deadline = time.monotonic() + 15
    while "sleep 600" in serving.run("ps", "-eo", "args=").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.2)
