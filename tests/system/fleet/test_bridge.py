"""Machines on a bridge: whatever is tested of a fleet rests on this."""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from testbed.bridge import Bridge
from testbed.host import PACKAGING, MachineError
from testbed.leftovers import left_behind, sweep
from testbed.machine import Machine
from testbed.relay import Relay
from testbed.trees import Trees

from tests.system.fleet.faults import Direction, dropped, rejected_with_reset

PORT = 8000

SERVE = """
import socket
with socket.create_server(("", 8000)) as listener:
    print("serves", flush=True)
    while True:
        connection, (address, _) = listener.accept()
        with connection:
            connection.sendall(f"{socket.gethostname()} to {address}".encode())
"""

ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])) as connection:
        print(connection.recv(100).decode())
except OSError as error:
    print(type(error).__name__)
"""


SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as connection:
    connection.sendall(b"one")
    input()
    connection.sendall(b"two")
    connection.recv(1)
"""


def serve(machine: Machine) -> None:
    process = machine.popen("python3", "-c", SERVE)
    assert process.stdout
    assert process.stdout.readline() == "serves\n"


def ask(machine: Machine, whom: str, port: int = PORT, *, patience: float = 5) -> str:
    """What it says, or how that failed within so many seconds."""
    return machine.run("python3", "-c", ASK, whom, str(port), str(patience)).stdout.strip()


@pytest.fixture(scope="module")
def bridge(trees: Trees) -> Iterator[Bridge]:
    with Bridge() as bridge:
        yield bridge


@pytest.fixture(scope="module")
def gpu1(bridge: Bridge, trees: Trees) -> Iterator[Machine]:
    """A Debian 12 that serves its name."""
    with Machine(trees.base("bookworm"), bridge=bridge, hostname="gpu1") as machine:
        serve(machine)
        yield machine


@pytest.fixture(scope="module")
def gpu2(bridge: Bridge, trees: Trees) -> Iterator[Machine]:
    """A Debian 13 that serves its name."""
    with Machine(trees.base("trixie"), bridge=bridge, hostname="gpu2") as machine:
        serve(machine)
        yield machine


def test_two_machines_know_each_other_by_name(gpu1: Machine, gpu2: Machine) -> None:
    assert ask(gpu1, "gpu2") == f"gpu2 to {gpu1.address}"
    assert ask(gpu2, "gpu1") == f"gpu1 to {gpu2.address}"
    # Its own name leads to its address on the bridge, too, as DNS would have it.
    assert ask(gpu1, "gpu1") == f"gpu1 to {gpu1.address}"


def test_two_machines_are_two(gpu1: Machine, gpu2: Machine) -> None:
    for command in (("cat", "/etc/machine-id"), ("hostname",), ("cat", "/etc/hostname")):
        assert gpu1.run(*command).stdout != gpu2.run(*command).stdout, command
    for machine, name in ((gpu1, "gpu1"), (gpu2, "gpu2")):
        assert machine.run("hostname").stdout == f"{name}\n"
        [link] = json.loads(machine.run("ip", "-json", "-4", "address", "show", "host0").stdout)
        assert [told["local"] for told in link["addr_info"]] == [machine.address]
    assert gpu1.address != gpu2.address


def test_the_bridge_leads_to_this_computer_and_nowhere_else(bridge: Bridge, gpu1: Machine) -> None:
    with socket.create_connection((gpu1.address, PORT), 5) as connection:
        assert connection.recv(100).decode() == f"gpu1 to {bridge.address}"
    [route] = json.loads(gpu1.run("ip", "-json", "route").stdout)
    assert route["dst"] == str(ipaddress.ip_network(f"{bridge.address}/24", strict=False))


def test_a_link_that_is_cut_is_silent_until_it_is_mended(gpu1: Machine, gpu2: Machine) -> None:
    gpu1.cut()
    try:
        assert ask(gpu2, "gpu1", patience=0.5) == "TimeoutError"
        assert ask(gpu1, "gpu2", patience=0.5) == "TimeoutError"
        # It knows that its plug is out, and keeps what it had.
        assert "NO-CARRIER" in (told := gpu1.run("ip", "address", "show", "host0").stdout)
        assert gpu1.address in told
        assert ask(gpu1, "gpu1") == f"gpu1 to {gpu1.address}"
    finally:
        gpu1.mend()
    assert ask(gpu2, "gpu1") == f"gpu1 to {gpu2.address}"
    assert ask(gpu1, "gpu2") == f"gpu2 to {gpu1.address}"


def test_a_connection_outlives_a_link_that_was_cut(bridge: Bridge, gpu1: Machine) -> None:
    with socket.create_server((bridge.address, 0)) as listener:
        listener.settimeout(5)
        process = gpu1.popen(
            "python3", "-c", SEND, bridge.address, str(listener.getsockname()[1]), reads_input=True
        )
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            assert connection.recv(3) == b"one"
            gpu1.cut()
            assert process.stdin
            process.stdin.write("go on\n")
            process.stdin.flush()
            connection.settimeout(0.5)
            with pytest.raises(TimeoutError):
                connection.recv(3)
            gpu1.mend()
            connection.settimeout(10)
            assert connection.recv(3) == b"two"
        assert process.wait(5) == 0


@pytest.mark.parametrize("direction", ["in", "out", "both"])
def test_dropped_packets_are_counted(gpu1: Machine, gpu2: Machine, direction: Direction) -> None:
    with dropped(gpu1, direction, port=PORT) as fault:
        assert fault.packets == 0
        # Not what it says to itself.
        assert ask(gpu1, "gpu1") == f"gpu1 to {gpu1.address}"
        assert fault.packets == 0
        assert ask(gpu2, "gpu1", patience=0.5) == "TimeoutError"
        assert fault.packets > 0
        before = fault.packets
        assert ask(gpu1, "gpu2", patience=0.5) == "TimeoutError"
        assert fault.packets > before
    assert fault.packets > before
    assert ask(gpu2, "gpu1") == f"gpu1 to {gpu2.address}"


def test_packets_of_one_peer_are_dropped_and_of_no_other(
    bridge: Bridge, gpu1: Machine, gpu2: Machine
) -> None:
    with dropped(gpu1, peer=gpu2.address) as fault:
        assert ask(gpu2, "gpu1", patience=0.5) == "TimeoutError"
        struck = fault.packets
        assert struck > 0
        with socket.create_connection((gpu1.address, PORT), 5) as connection:
            assert connection.recv(100).decode() == f"gpu1 to {bridge.address}"


def test_dropped_is_of_its_port_only(gpu1: Machine, gpu2: Machine) -> None:
    with dropped(gpu1, port=PORT + 1) as fault:
        assert ask(gpu2, "gpu1") == f"gpu1 to {gpu2.address}"
        assert fault.packets == 0


@pytest.mark.parametrize(
    ("direction", "refused"), [("in", {"gpu2"}), ("out", {"gpu1"}), ("both", {"gpu1", "gpu2"})]
)
def test_a_rejected_connection_is_refused(
    gpu1: Machine, gpu2: Machine, direction: Direction, refused: set[str]
) -> None:
    ways = {"gpu1": (gpu1, "gpu2"), "gpu2": (gpu2, "gpu1")}
    for peer in (None, gpu2.address):
        with rejected_with_reset(gpu1, direction, port=PORT, peer=peer) as fault:
            for name in refused:
                before = fault.packets
                assert ask(*ways[name]) == "ConnectionRefusedError"
                assert fault.packets > before
    for who, whom in ways.values():
        assert ask(who, whom) == f"{whom} to {who.address}"


def test_a_relay_stands_between_two_machines(bridge: Bridge, gpu1: Machine, gpu2: Machine) -> None:
    address = bridge.host("gpu2-remote")
    with Relay((address, PORT), (gpu2.address, PORT), delay=0.1) as relay:
        began = time.monotonic()
        # gpu2 sees the relay.
        assert ask(gpu1, "gpu2-remote").startswith("gpu2 to ")
        assert time.monotonic() - began >= 0.2
        assert (relay.accepted, relay.up_bytes) == (1, 0)
        assert relay.down_bytes > 0
        relay.blackhole()
        assert ask(gpu1, "gpu2-remote", patience=0.5) == "TimeoutError"


def test_sshd_runs_once_it_is_wanted(gpu1: Machine, gpu2: Machine) -> None:
    for machine in (gpu1, gpu2):
        assert machine.run("sh", "-c", "ls /etc/ssh/ssh_host_*", check=False).stdout == ""
        assert machine.run("systemctl", "is-active", "ssh.service", check=False).stdout == "inactive\n"
        machine.run("ssh-keygen", "-A")
        machine.run("systemctl", "start", "ssh.service")
    scanned = gpu1.run("ssh-keyscan", "-t", "ed25519", "gpu2").stdout
    assert scanned.split()[2] in gpu2.run("cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout
    assert scanned.split()[2] not in gpu1.run("cat", "/etc/ssh/ssh_host_ed25519_key.pub").stdout


def test_a_machine_keeps_its_place_over_a_reboot_and_for_the_next_of_its_name(
    bridge: Bridge, gpu1: Machine, trees: Trees
) -> None:
    with Machine(trees.base("bookworm"), bridge=bridge, hostname="cpu1") as cpu1:
        address = cpu1.address
        cpu1.reboot()
        serve(cpu1)
        assert ask(gpu1, "cpu1") == f"cpu1 to {gpu1.address}"
        cpu1.cut()
        cpu1.cut_power()
        serve(cpu1)
        # Nobody has put the plug back in.
        assert ask(gpu1, "cpu1", patience=0.5) == "TimeoutError"
        cpu1.mend()
        assert ask(gpu1, "cpu1") == f"cpu1 to {gpu1.address}"
        with (
            pytest.raises(MachineError, match="There is a cpu1 on"),
            Machine(trees.base("trixie"), bridge=bridge, hostname="cpu1"),
        ):
            pass
    with Machine(trees.base("trixie"), bridge=bridge, hostname="cpu1") as cpu1:
        assert cpu1.address == address
        serve(cpu1)
        assert ask(gpu1, "cpu1") == f"cpu1 to {gpu1.address}"


def test_machines_boot_side_by_side(bridge: Bridge, trees: Trees) -> None:
    with ExitStack() as ends, ThreadPoolExecutor() as threads:
        waiting = [
            Machine(trees.base(suite), bridge=bridge, hostname=f"side-{suite}")
            for suite in ("bookworm", "trixie")
        ]
        booted = list(threads.map(ends.enter_context, waiting))
        for machine, other in (booted, booted[::-1]):
            assert other.address in machine.run("getent", "hosts", other.hostname).stdout


def test_a_machine_off_a_bridge_can_have_a_name(trees: Trees) -> None:
    with Machine(trees.base("bookworm"), hostname="alone") as machine:
        assert machine.run("hostname").stdout == "alone\n"
        assert machine.run("hostname", "--ip-address").stdout == "127.0.1.1\n"
        assert machine.address == ""


HOLD = """
import sys
from testbed.bridge import Bridge

with Bridge() as bridge:
    print(bridge.name, bridge.address, flush=True)
    sys.stdin.read()
"""


def test_bridges_at_once_are_apart_and_one_that_was_killed_is_swept() -> None:
    path = {"PYTHONPATH": str(PACKAGING)}
    with ExitStack() as ends:
        runs = [
            ends.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", HOLD],
                    env=os.environ | path,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(4)
        ]
        told = [run.stdout.readline().split() for run in runs if run.stdout]
        names = [name for name, _ in told]
        assert len(set(names)) == 4
        assert max(map(len, names)) <= 15
        assert len({ipaddress.ip_network(f"{address}/24", strict=False) for _, address in told}) == 4
        killed, *others = runs
        killed.kill()
        killed.wait(5)
        assert left_behind(killed.pid) == [f"bridge {names[0]}"]
        sweep()
        assert left_behind(killed.pid) == []
        links = [name for _, name in socket.if_nameindex()]
        assert set(names[1:]) <= set(links)
        for run in others:
            run.communicate(timeout=5)
            assert run.returncode == 0
            assert left_behind(run.pid) == []
