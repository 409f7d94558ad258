"""How hives end, and what is said of it: a reboot, a stop in the middle of a dial, two operators at once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.commands import HIVE, active, configure, put, rbeectl, type_in
from tests.system.fleet.fleet import MEMBERSHIP, PORT, SUITES, Fleet, at, fleet_of
from tests.system.fleet.ssh import give_ssh


@pytest.fixture(scope="module", params=SUITES)
def fleet(request: pytest.FixtureRequest, trees: Trees, debs: list[Path]) -> Iterator[Fleet]:
    """A queen, and gpu1 of either Debian, which each test leaves online."""
    with fleet_of(trees, debs, queen=request.param) as fleet:
        gpu1 = fleet.boot("gpu1", request.param)
        joined = rbeectl(gpu1, "join", f"queen:{PORT}", "--token", fleet.token(), user=None)
        assert joined.code == 0, joined
        fleet.await_state("gpu1", "online")
        yield fleet


@pytest.fixture
def gpu1(fleet: Fleet) -> Machine:
    return fleet.hives["gpu1"]


def stopped_in(machine: Machine, name: str = HIVE) -> float:
    """Seconds that a stop of the unit took, by the one clock that all machines here have."""
    machine.cgroup.put_first()
    began = time.monotonic()
    machine.run("systemctl", "stop", name, timeout=20)
    return time.monotonic() - began


def reasons(fleet: Fleet, since: float) -> list[str]:
    """What the queen has said of gpu1's ends since then."""
    told = [entry for entry in fleet.told("hive-offline", hive="gpu1") if at(entry) > since]
    return [str(entry["MESSAGE"]) for entry in told]


@contextmanager
def swallowed(machine: Machine, hook: str, *what: str) -> Iterator[None]:
    """The machine drops what comes or goes so, and nobody is told."""
    machine.run("nft", "add", "table", "inet", "blackhole")
    machine.run(
        "nft", "add", "chain", "inet", "blackhole", hook, f"{{ type filter hook {hook} priority 0; }}"
    )
    machine.run("nft", "add", "rule", "inet", "blackhole", hook, *what, "drop")
    try:
        yield
    finally:
        machine.run("nft", "delete", "table", "inet", "blackhole")


@pytest.mark.parametrize("seconds", [0.1, 0.6, 1.2])
def test_a_stop_while_it_dials_a_queen_who_drops_all_takes_no_second(
    fleet: Fleet, gpu1: Machine, seconds: float
) -> None:
    with swallowed(gpu1, "output", "tcp", "dport", str(PORT)):
        gpu1.run("systemctl", "restart", HIVE)
        dials = f"until ss -Htn state syn-sent dport = :{PORT} | grep -q .; do sleep 0.02; done"
        gpu1.run("sh", "-c", dials, timeout=10)
        time.sleep(seconds)  # in the middle of the dial, of which nothing tells
        assert stopped_in(gpu1) < 1.0
    assert gpu1.run("systemctl", "show", "-P", "Result", HIVE).stdout == "success\n"
    gpu1.run("systemctl", "start", HIVE)
    fleet.await_state("gpu1", "online")


def test_a_stop_while_its_connection_is_dead_takes_no_second(fleet: Fleet, gpu1: Machine) -> None:
    with swallowed(gpu1, "output", "tcp", "dport", str(PORT)):
        fleet.await_state("gpu1", "offline")
        assert stopped_in(gpu1) < 1.0
    gpu1.run("systemctl", "start", HIVE)
    fleet.await_state("gpu1", "online")


def test_a_stop_while_the_queens_name_is_looked_up_takes_no_second(fleet: Fleet, gpu1: Machine) -> None:
    hosts = gpu1.run("cat", "/etc/hosts").stdout
    gpu1.run("mv", "/etc/resolv.conf", "/etc/resolv.conf.own")
    put(gpu1, "/etc/resolv.conf", f"nameserver {fleet.queen.address}\n")
    put(gpu1, "/etc/hosts", "127.0.0.1 localhost\n")
    try:
        with swallowed(fleet.queen, "input", "udp", "dport", "53"):
            gpu1.run("systemctl", "restart", HIVE)
            looks_up = "until ss -Hun dport = :53 | grep -q .; do sleep 0.02; done"
            gpu1.run("sh", "-c", looks_up, timeout=10)
            assert stopped_in(gpu1) < 1.0
    finally:
        put(gpu1, "/etc/hosts", hosts)
        gpu1.run("mv", "/etc/resolv.conf.own", "/etc/resolv.conf")
        gpu1.run("systemctl", "start", HIVE)
    fleet.await_state("gpu1", "online")


def test_a_stop_while_it_joins_takes_no_second(fleet: Fleet, gpu1: Machine) -> None:
    with swallowed(gpu1, "output", "tcp", "dport", str(PORT)):
        gpu1.run("systemctl", "stop", HIVE)
        token = fleet.token()
        joining = gpu1.popen("rbeectl", "join", f"queen:{PORT}", "--token", token)
        dials = f"until ss -Htn state syn-sent dport = :{PORT} | grep -q .; do sleep 0.02; done"
        gpu1.run("sh", "-c", dials, timeout=10)
        time.sleep(0.6)  # in the middle of the dial, of which nothing tells
        assert stopped_in(gpu1, "rbee-hive-join.service") < 1.0
        joining.communicate(timeout=20)
    gpu1.run("systemctl", "start", HIVE)
    fleet.await_state("gpu1", "online")


def test_a_reboot_is_not_somebody_s_stop(fleet: Fleet, gpu1: Machine) -> None:
    since = time.time()
    gpu1.reboot()
    fleet.await_state("gpu1", "online", 30)
    assert reasons(fleet, since) == ["the beehive gpu1 is offline: its machine is rebooting"]

    since = time.time()
    gpu1.run("systemctl", "stop", HIVE)
    fleet.await_state("gpu1", "offline")
    gpu1.run("systemctl", "start", HIVE)
    fleet.await_state("gpu1", "online")
    assert reasons(fleet, since) == ["the beehive gpu1 is offline: stopped by an administrator"]


def test_a_reboot_of_the_queens_machine_is_not_somebody_s_stop(fleet: Fleet) -> None:
    added = rbeectl(fleet.queen, "add-hive", "localhost")
    assert added.code == 0, added
    since = time.time()
    fleet.queen.reboot()
    for name in ("localhost", "gpu1"):
        fleet.await_state(name, "online", 30)
    said = [str(entry["MESSAGE"]) for entry in fleet.told("hive-offline") if at(entry) > since]
    assert [line for line in said if "administrator" in line] == []
    assert rbeectl(fleet.queen, "remove-hive", "localhost").code == 0


def test_a_machine_that_is_switched_off_is_not_stopped_by_somebody(fleet: Fleet) -> None:
    gpu2 = fleet.boot("gpu2")
    joined = rbeectl(gpu2, "join", f"queen:{PORT}", "--token", fleet.token(), user=None)
    assert joined.code == 0, joined
    fleet.await_state("gpu2", "online")
    fleet.retire("gpu2")
    assert fleet.await_state("gpu2", "offline")["reason"] == "its machine is shutting down"

    # Nobody can tell it that it is removed, and nobody knows whether it runs.
    assert rbeectl(fleet.queen, "remove-hive", "gpu2").code != 0
    removed = rbeectl(fleet.queen, "remove-hive", "--force", "gpu2")
    assert removed.code == 0, removed
    assert "could not be asked to leave" in removed.out
    assert "is stopped" not in removed.out
    assert removed.lines[-2:] == [
        "(queen bee)  the beehive gpu2 is no longer in the hive catalog; whether it runs is not known",
        "Hive gpu2 is removed",
    ]


def test_two_operators_who_add_one_hive_both_see_it_online(fleet: Fleet) -> None:
    gpu3 = fleet.boot("gpu3")
    give_ssh(fleet, gpu3)
    adding = "rbeectl add-hive gpu3 --user root --no-color"
    both = "; ".join(
        f"{{ sleep {pause}; {adding} >/tmp/out{number} 2>&1; echo $? >/tmp/code{number}; }} &"
        for number, pause in ((1, 0), (2, 0.3))
    )
    for _ in range(3):
        done = type_in(
            fleet.queen, f"{both.replace('&;', '&')} wait; tail -n +1 /tmp/code? /tmp/out?", user="ada"
        )
        assert re.findall(r"(?m)^==> /tmp/code\d <==\n(\d+)", done.out) == ["0", "0"], done.out
        assert done.out.count("Hive gpu3 is Online") == 2, done.out
        fleet.await_state("gpu3", "online")
        assert active(gpu3, HIVE) == ["active"]
        gpu3.run("systemctl", "stop", HIVE)
        gpu3.run("rm", MEMBERSHIP)
        fleet.await_state("gpu3", "offline")
    gpu3.run("systemctl", "start", HIVE, check=False)
    rbeectl(fleet.queen, "remove-hive", "--force", "gpu3")
    fleet.retire("gpu3")


@pytest.mark.parametrize("is_dialled", [True, False], ids=["a-hive-dials", "nobody-dials"])
def test_a_configuration_that_cannot_be_used_is_said_each_time(
    fleet: Fleet, gpu1: Machine, is_dialled: bool
) -> None:
    queen = fleet.queen
    if not is_dialled:
        gpu1.run("systemctl", "stop", HIVE)
    assert rbeectl(queen, "sleep").code == 0
    configure(queen, "[Queen]\nHeartbeatIntervalSec=soon\n")
    waking = [["wake"], ["add-hive", "localhost"], ["tcp", "enable"], ["token", "create"]] * 3
    # Where nobody has systemd start her again, looking says it, too.
    looking = [] if is_dialled else [["list-hives"], ["top", "-n", "1"], ["catalog", "backup", "/tmp/x"]]
    for verb in (*waking, *looking):
        failed = rbeectl(queen, *verb)
        assert failed.code == 78, (verb, failed)
        assert "HeartbeatIntervalSec" in failed.err, (verb, failed)
    if not is_dialled:
        # Clients at her socket have systemd try until it gives up.
        asks = "curl --silent --max-time 1 --unix-socket /run/rbee/queen.sock http://x/"
        queen.run("sh", "-c", f"for i in $(seq 30); do {asks}; done; true", timeout=90)
        for verb in (*looking, ["wake"]):
            failed = rbeectl(queen, *verb)
            assert failed.code == 78, (verb, failed)
            assert "HeartbeatIntervalSec" in failed.err, (verb, failed)
    configure(queen, "")
    assert rbeectl(queen, "wake").code == 0
    gpu1.run("systemctl", "start", HIVE)
    fleet.await_state("gpu1", "online", 30)


def test_a_hive_that_cannot_use_its_configuration_is_said_so_each_time(fleet: Fleet) -> None:
    queen = fleet.queen
    assert rbeectl(queen, "wake").code == 0
    configure(queen, "[Hive]\nDetectTimeoutSec=never\nNvmlTimeoutSec=soon\n")
    for _ in range(3):
        failed = rbeectl(queen, "add-hive", "localhost")
        assert failed.code == 78, failed
        assert "TimeoutSec" in failed.err, failed
    configure(queen, "")
    assert rbeectl(queen, "add-hive", "localhost").code == 0
    assert rbeectl(queen, "remove-hive", "localhost").code == 0
