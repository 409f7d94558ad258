"""The queen's metrics in a booted machine: over her socket, by rbeectl, and for node_exporter."""

from __future__ import annotations

import re
from collections.abc import Iterable

from machines import Machine
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as old_format

from tests.system.house import QUEEN, SOCKETS, active, add_hive, rbeectl, unit

FOLDER = "/var/lib/prometheus/node-exporter"
TEXTFILE = f"{FOLDER}/rbee.prom"
TIMER, SERVICE = "rbee-metrics.timer", "rbee-metrics.service"


def samples(families: Iterable[Metric]) -> dict[tuple[str, ...], float]:
    told = (sample for family in families for sample in family.samples)
    return {(sample.name, *sample.labels.values()): sample.value for sample in told}


def with_node_exporter(machine: Machine) -> None:
    """As Debian's prometheus-node-exporter leaves a machine: its user, and its directory."""
    machine.run("adduser", "--quiet", "--system", "--group", "--home", "/var/lib/prometheus", "prometheus")
    machine.run("install", "-d", "-o", "prometheus", "-g", "prometheus", "-m", "0755", FOLDER)


def await_run(machine: Machine, before: str) -> str:
    """The invocation of the service that came after `before`, once it has ended."""
    program = f"""
until id=$(systemctl show -P InvocationID {SERVICE}) && [ -n "$id" ] && [ "$id" != "{before}" ] &&
    [ $(systemctl show -P ActiveState {SERVICE}) = inactive ]; do sleep 0.1; done
echo $id"""
    return machine.run("sh", "-c", program, timeout=60).stdout.strip()


def test_rbeectl_prints_what_the_queen_tells(machine: Machine) -> None:
    add_hive(machine)

    answer = rbeectl(machine, "metrics")
    told = samples(openmetrics(answer.out))  # type: ignore[no-untyped-call]  # the library has it untyped
    scraped = machine.run(
        "curl", "--silent", "--fail", "--unix-socket", "/run/rbee/queen.sock", "http://localhost/metrics",
        "--header", "Accept: text/plain", user="ada",
    ).stdout  # fmt: skip

    assert answer.code == 0
    assert told["rbee_hives", "online"] == 1
    assert told["rbee_hive_cpu_threads", "localhost"] == int(machine.run("nproc", "--all").stdout)
    assert told["rbee_jobs_total", "add-hive", "done"] == 1
    assert samples(old_format(scraped))["rbee_hives", "online"] == 1
    assert rbeectl(machine, "metrics", user="mallory").code == 77


def test_metrics_wake_nobody(machine: Machine) -> None:
    answer = rbeectl(machine, "metrics")
    assert (answer.code, answer.out) == (3, "")

    asleep = rbeectl(machine, "metrics", "--textfile", "/tmp/rbee.prom")

    assert (asleep.code, asleep.out) == (0, "")
    assert samples(old_format(machine.run("cat", "/tmp/rbee.prom").stdout)) == {("rbee_queen_up",): 0}
    assert machine.run("stat", "-c", "%a", "/tmp/rbee.prom").stdout == "644\n"
    assert active(machine, QUEEN) == ["inactive"]
    assert [unit(machine, one, "NAccepted")["NAccepted"] for one in SOCKETS] == ["0", "0"]


def test_a_queen_who_hangs_is_not_up_and_the_old_file_does_not_say_so(machine: Machine) -> None:
    add_hive(machine)
    assert rbeectl(machine, "metrics", "--textfile", "/tmp/rbee.prom").code == 0
    assert "rbee_queen_up 1" in machine.run("cat", "/tmp/rbee.prom").stdout
    machine.run("systemctl", "kill", "--signal=STOP", QUEEN)

    answer = rbeectl(machine, "metrics", "--textfile", "/tmp/rbee.prom", "--timeout", "2s")

    assert answer.code == 1
    assert "rbee_queen_up 0" in machine.run("cat", "/tmp/rbee.prom").stdout


def test_a_file_that_cannot_be_written_is_named(machine: Machine) -> None:
    answer = rbeectl(machine, "metrics", "--textfile", "/nowhere/rbee.prom")

    assert answer.code == 1
    assert "--textfile: /nowhere/rbee.prom cannot be written: No such file or directory" in answer.err
    assert rbeectl(machine, "metrics", "--textfile", "/etc/rbee.prom").code == 1


def test_the_timer_is_not_enabled_and_does_nothing_without_node_exporter(machine: Machine) -> None:
    assert machine.run("systemctl", "is-enabled", TIMER, check=False).stdout == "disabled\n"
    assert active(machine, TIMER) == ["inactive"]

    machine.run("systemctl", "start", SERVICE)

    assert unit(machine, SERVICE, "ConditionResult")["ConditionResult"] == "no"
    assert machine.run("systemd-analyze", "verify", SERVICE, TIMER).stderr == ""


def test_the_timer_writes_for_node_exporter_and_wakes_nobody(machine: Machine) -> None:
    with_node_exporter(machine)
    machine.run("mkdir", "-p", f"/run/systemd/system/{TIMER}.d")
    machine.run("tee", f"/run/systemd/system/{TIMER}.d/50-test.conf", input="[Timer]\nOnUnitInactiveSec=1s\n")
    machine.run("systemctl", "daemon-reload")

    machine.run("systemctl", "enable", "--now", TIMER)
    first = await_run(machine, "")

    assert unit(machine, SERVICE)["Result"] == "success"
    assert machine.run("stat", "-c", "%U %a", TEXTFILE).stdout == "prometheus 644\n"
    assert "rbee_queen_up 0" in machine.run("cat", TEXTFILE).stdout
    assert active(machine, QUEEN) == ["inactive"]

    add_hive(machine)
    await_run(machine, await_run(machine, first))
    assert samples(old_format(machine.run("cat", TEXTFILE).stdout))["rbee_hives", "online"] == 1
    assert machine.run("sh", "-c", f"ls -A {FOLDER}").stdout == "rbee.prom\n"  # nothing half-written

    rbeectl(machine, "shutdown")
    await_run(machine, await_run(machine, ""))
    assert "rbee_queen_up 0" in machine.run("cat", TEXTFILE).stdout
    assert active(machine, QUEEN, *SOCKETS) == ["inactive"] * 3


def test_the_service_is_hardened(machine: Machine) -> None:
    told = machine.run("systemd-analyze", "security", "--no-pager", SERVICE, check=False).stdout
    found = re.search(r"exposure level for .*: ([0-9.]+)", told)
    assert found
    assert float(found[1]) <= 2.0
