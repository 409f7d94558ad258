"""The queen's metrics in a booted machine: over her socket, by rbeectl, and for node_exporter."""

from __future__ import annotations

import re
from collections.abc import Iterable

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as old_format
from testbed.debian import install_from_archive
from testbed.machine import Machine

from tests.system.commands import QUEEN, SOCKETS, active, add_hive, override, put, rbeectl, unit

FOLDER = "/var/lib/prometheus/node-exporter"
TEXTFILE = f"{FOLDER}/rbee.prom"
EXAMPLES = "/usr/share/doc/rbee-queen/examples/prometheus"
TIMER, SERVICE = "rbee-metrics.timer", "rbee-metrics.service"


def samples(families: Iterable[Metric]) -> dict[tuple[str, ...], float]:
    told = (sample for family in families for sample in family.samples)
    return {(sample.name, *sample.labels.values()): sample.value for sample in told}


def with_node_exporter(machine: Machine) -> None:
    """Debian's own, installed as the operator's page says; it answers once its port is open."""
    install_from_archive(machine, "prometheus-node-exporter")
    assert machine.run("stat", "-c", "%U %G %a", FOLDER).stdout == "root root 755\n"
    await_port(machine, 9100)


def await_port(machine: Machine, port: int) -> None:
    listening = f"ss --listening --tcp --numeric --no-header 'sport = :{port}' | grep -q ."
    machine.run("sh", "-c", f"until {listening}; do sleep 0.05; done", timeout=30)


def scrape(machine: Machine) -> str:
    """What node_exporter answers Prometheus with."""
    return machine.run("curl", "--silent", "--fail", "http://localhost:9100/metrics").stdout


def every_second(machine: Machine) -> None:
    override(machine, TIMER, "[Timer]\nOnUnitInactiveSec=1s\n")


def await_scrape(machine: Machine, line: str) -> None:
    told = f"curl --silent --fail http://localhost:9100/metrics | grep -qx '{line}'"
    machine.run("sh", "-c", f"until {told}; do sleep 0.1; done", timeout=30)


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
    assert rbeectl(machine, "metrics", "--textfile", "/etc/rbee.prom").code == 77


def test_the_timer_is_not_enabled_and_does_nothing_without_node_exporter(machine: Machine) -> None:
    assert machine.run("systemctl", "is-enabled", TIMER, check=False).stdout == "disabled\n"
    assert active(machine, TIMER) == ["inactive"]

    machine.run("systemctl", "start", SERVICE)

    assert unit(machine, SERVICE, "ConditionResult")["ConditionResult"] == "no"
    assert machine.run("systemd-analyze", "verify", SERVICE, TIMER).stderr == ""


def test_prometheus_gets_the_metrics_from_the_real_node_exporter_and_nobody_is_woken(
    machine: Machine,
) -> None:
    with_node_exporter(machine)

    machine.run("systemctl", "enable", "--now", TIMER)
    await_scrape(machine, "rbee_queen_up 0")
    assert unit(machine, SERVICE)["Result"] == "success"
    assert machine.run("stat", "-c", "%F, %U %a", TEXTFILE).stdout == "regular file, root 644\n"
    assert machine.run("stat", "-c", "%U %G %a", FOLDER).stdout == "root root 755\n"
    assert active(machine, QUEEN) == ["inactive"]

    add_hive(machine)
    every_second(machine)
    await_scrape(machine, 'rbee_hives{state="online"} 1')
    told = scrape(machine)
    assert "\nrbee_queen_up 1\n" in told
    assert "\nnode_textfile_scrape_error 0\n" in told
    assert f'node_textfile_mtime_seconds{{file="{TEXTFILE}"}}' in told

    rbeectl(machine, "shutdown")
    await_scrape(machine, "rbee_queen_up 0")
    assert active(machine, QUEEN, *SOCKETS) == ["inactive"] * 3
    machine.run("systemctl", "stop", TIMER)
    assert machine.run("sh", "-c", f"ls -A {FOLDER}").stdout == "rbee.prom\n"  # nothing half-written


def test_the_timer_goes_on_when_node_exporter_is_installed_after_it(machine: Machine) -> None:
    every_second(machine)
    machine.run("systemctl", "enable", "--now", TIMER)
    looked = f"until [ $(systemctl show -P ConditionTimestampMonotonic {SERVICE}) != 0 ]; do sleep 0.1; done"
    machine.run("sh", "-c", looked, timeout=30)
    assert unit(machine, SERVICE, "ConditionResult")["ConditionResult"] == "no"

    with_node_exporter(machine)

    await_scrape(machine, "rbee_queen_up 0")


def test_a_queen_who_hangs_is_not_up_for_node_exporter_either(machine: Machine) -> None:
    with_node_exporter(machine)
    add_hive(machine)
    machine.run("systemctl", "start", SERVICE)
    assert "\nrbee_queen_up 1\n" in scrape(machine)
    override(
        machine,
        SERVICE,
        "[Service]\nExecStart=\n"
        "ExecStart=/usr/bin/rbeectl metrics --textfile=/run/rbee-metrics/rbee.prom --timeout=2s\n",
    )
    machine.run("systemctl", "kill", "--signal=STOP", QUEEN)

    machine.run("systemctl", "start", SERVICE, check=False)

    assert unit(machine, SERVICE)["Result"] == "exit-code"
    assert "\nrbee_queen_up 0\n" in scrape(machine)


def test_a_folder_that_was_given_to_prometheus_is_written_to_as_well(machine: Machine) -> None:
    with_node_exporter(machine)
    machine.run("chown", "prometheus:prometheus", FOLDER)  # as 0.4.0 needed it

    machine.run("systemctl", "start", SERVICE)

    assert "\nrbee_queen_up 0\n" in scrape(machine)


def test_a_link_in_the_place_of_the_metrics_shows_nobody_another_file(machine: Machine) -> None:
    with_node_exporter(machine)
    link = "/usr/bin/ln --symbolic /etc/shadow /run/rbee-metrics/rbee.prom"
    override(machine, SERVICE, f"[Service]\nExecStart=\nExecStart={link}\n")

    machine.run("systemctl", "start", SERVICE, check=False)

    assert machine.run("stat", "-c", "%F", TEXTFILE).stdout == "symbolic link\n"
    assert machine.run("cat", TEXTFILE, user="prometheus", check=False).returncode != 0
    assert "root:" not in scrape(machine)


def test_a_link_in_the_way_leads_the_metrics_into_no_other_folder(machine: Machine) -> None:
    with_node_exporter(machine)
    machine.run("chown", "prometheus:prometheus", FOLDER)
    machine.run("sh", "-c", f"cd {FOLDER}; mkdir other; ln -s other .rbee.prom.new", user="prometheus")

    machine.run("systemctl", "start", SERVICE)

    assert machine.run("ls", f"{FOLDER}/other").stdout == ""
    assert "\nrbee_queen_up 0\n" in scrape(machine)


def test_no_metrics_of_a_queen_who_was_removed_stay_behind(machine: Machine) -> None:
    with_node_exporter(machine)
    machine.run("systemctl", "enable", "--now", TIMER)
    machine.run("systemctl", "start", SERVICE)

    machine.run(
        "apt-get", "remove", "--yes", "rbee-queen", env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=120
    )

    assert machine.run("sh", "-c", f"ls -A {FOLDER}").stdout == ""


# The real Prometheus


def test_promtool_approves_of_the_examples_and_of_the_metrics(machine: Machine) -> None:
    install_from_archive(machine, "prometheus")
    add_hive(machine)
    answer = machine.run(
        "sh",
        "-c",
        "rbeectl metrics --textfile /tmp/rbee.prom && promtool check metrics </tmp/rbee.prom",
        check=False,
    )
    rules = machine.run("promtool", "check", "rules", f"{EXAMPLES}/rbee-alerts.yml", check=False)
    config = machine.run("promtool", "check", "config", f"{EXAMPLES}/rbee.yml", check=False)

    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert rules.returncode == 0, rules
    assert "SUCCESS: 8 rules found" in rules.stdout
    assert config.returncode == 0, config


def test_the_real_prometheus_scrapes_node_exporter_and_raises_the_alerts(machine: Machine) -> None:
    with_node_exporter(machine)
    add_hive(machine)
    machine.run("systemctl", "start", SERVICE)
    install_from_archive(machine, "prometheus")
    put(
        machine,
        "/etc/prometheus/prometheus.yml",
        "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\n"
        f"rule_files: [{EXAMPLES}/rbee-alerts.yml]\n"
        "scrape_configs:\n"
        "  - job_name: node\n    static_configs: [{targets: ['localhost:9100']}]\n",
    )
    machine.run("systemctl", "restart", "prometheus")
    await_port(machine, 9090)

    await_query(machine, "rbee_queen_up", "1")
    await_query(machine, 'rbee_hives{state="online"}', "1")
    # The file is old as soon as nobody writes it.
    machine.run("touch", "--date=10 minutes ago", TEXTFILE)
    await_query(machine, 'count(ALERTS{alertname="MetricsStale",alertstate="firing"})', "1")


def await_query(machine: Machine, query: str, value: str) -> None:
    """Until Prometheus answers a query with one sample of this value."""
    asked = 'curl --silent --get http://localhost:9090/api/v1/query --data-urlencode "query=$1"'
    found = f"until {asked} | grep -q '\"{value}\"\\]'; do sleep 0.2; done"
    machine.run("sh", "-c", found, "sh", query, timeout=60)


def test_the_service_is_hardened(machine: Machine) -> None:
    told = machine.run("systemd-analyze", "security", "--no-pager", SERVICE, check=False).stdout
    found = re.search(r"exposure level for .*: ([0-9.]+)", told)
    assert found
    assert float(found[1]) <= 2.0
