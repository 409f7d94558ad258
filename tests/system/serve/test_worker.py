"""Workers of a hive on a real systemd, with an engine of the tests' own.

The hive is in no catalog: a queen stops workers of models that she does not serve.
"""

from __future__ import annotations

import re
import time

from testbed.machine import Machine

from tests.system.commands import HIVE, active, await_stopped, main_pid, override, rbeectl, unit
from tests.system.serve.workers import (
    JOB,
    awaited,
    connected,
    hive,
    install_engine,
    model,
    processes,
    start,
)

BEE = "rbee-worker@bee-1.service"


def test_a_worker_is_started_answers_and_stops(machine: Machine) -> None:
    install_engine(machine)
    machine.run("systemctl", "start", HIVE)
    path = model(machine, "bee", "load=1")

    status, engines = hive(machine, "GET", "/v1/engines")
    assert status == 200, engines
    problems = {one["name"]: one["problem"] for one in engines["engines"]}
    assert problems["test"] is None
    assert problems["llama-server"] == "/usr/bin/llama-server was not found (No such file or directory)"

    status, view = start(machine, "bee-1", path, model="bee")
    assert (status, view["state"]) == (202, "loading"), view
    assert start(machine, "bee-1", path)[0] == 409
    assert hive(machine, "GET", "/v1/workers/bee-1/connect")[0] == 400  # without an upgrade
    view = awaited(machine, "bee-1", "ready", "failed")
    assert (view["state"], view["reason"]) == ("ready", "")
    assert view["pid"] == main_pid(machine, BEE)
    assert unit(machine, BEE)["StatusText"] == "serving bee"

    # The main process is the engine, and nothing of ours stays.
    assert processes(machine, BEE) == [str(view["pid"])]
    assert "test-engine" in machine.run("ps", "-o", "args=", "-p", str(view["pid"])).stdout
    answer = connected(machine, "bee-1")
    assert (answer["alias"], answer["uid"]) == (
        "bee",
        int(machine.run("stat", "-c", "%u", "/run/rbee-worker/bee-1").stdout),
    )
    assert answer["arguments"][-2:] == ["--context", "4096"]

    # One cold start by its job: the hive's lines and the launcher's.
    told = [str(one["MESSAGE"]) for one in machine.journal(f"RBEE_JOB_ID={JOB}")]
    assert told[0] == "loading bee on ram with test"
    assert told[1].startswith("starting test for bee: /usr/local/libexec/test-engine --model")
    assert re.fullmatch(r"bee is ready in [\d.]+ s", told[2])
    assert "engine of bee: load" in machine.run("journalctl", "-o", "cat", "RBEE_WORKER=bee-1").stdout

    status, view = hive(machine, "DELETE", "/v1/workers/bee-1")
    assert (status, view["state"], view["reason"]) == (200, "stopped", "")
    assert hive(machine, "GET", "/v1/workers/bee-1")[0] == 404
    assert hive(machine, "GET", "/v1/workers")[1] == {"workers": []}
    assert machine.run("ls", "/var/lib/rbee-hive/workers", "/run/rbee-worker").stdout.split() == [
        "/run/rbee-worker:", "/var/lib/rbee-hive/workers:",
    ]  # fmt: skip
    assert processes(machine, BEE) == []


def test_each_failure_is_explained(machine: Machine) -> None:
    install_engine(machine)
    machine.run("systemctl", "start", HIVE)
    hive_pid = main_pid(machine, HIVE)

    def failure(worker: str, path: str) -> dict[str, object]:
        status, view = start(machine, worker, path)
        assert status == 202, view
        failed: dict[str, object] = awaited(machine, worker, "failed", "ready")
        assert failed["state"] == "failed"
        return failed

    override(machine, "rbee-worker@.service", "[Service]\nRestartSec=100ms\n")
    gone = failure("gone", "/srv/models/none.gguf")
    assert "the model's file /srv/models/none.gguf is gone, or on a disk that is not mounted" in str(
        gone["reason"]
    )
    secret = model(machine, "secret")
    machine.run("chmod", "0600", secret)
    unreadable = failure("secret", secret)
    assert unreadable["reason"] == (
        f"the model's file {secret} may not be read by others, and so not by its worker; "
        f"try: sudo chmod o+r {secret}"
    )
    refusing = failure("refusing", model(machine, "refusing", "exit=3"))
    assert refusing["reason"] == "given up after several starts: the engine test ended with exit status 3"
    assert refusing["log"] == ["engine of refusing: exit", "this model is not for me"] * 4
    killed = failure("killed", model(machine, "killed", "kill=11"))
    assert killed["reason"] == "given up after several starts: the engine test ended by SIGSEGV"
    override(machine, "rbee-worker@.service", "[Service]\nRestartSec=100ms\nTimeoutStartSec=1s\nRestart=no\n")
    hanging = failure("hanging", model(machine, "hanging", "hang=1"))
    assert hanging["reason"] == "it did not become ready in time: it neither read nor computed"

    for worker in ("gone", "secret", "refusing", "killed", "hanging"):
        assert hive(machine, "DELETE", f"/v1/workers/{worker}")[0] == 200
    listed = machine.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "rbee-worker@*").stdout
    assert listed == ""
    assert main_pid(machine, HIVE) == hive_pid
    status, problem = start(machine, "bee-1", "/srv/models/none.gguf", engine="llama-server")
    assert (status, problem["detail"]) == (
        409,
        "llama-server cannot be used: /usr/bin/llama-server was not found (No such file or directory)",
    )


def test_what_ignores_sigterm_is_killed_with_all_its_children(machine: Machine) -> None:
    install_engine(machine)
    machine.run("systemctl", "start", HIVE)
    start(machine, "bee-1", model(machine, "bee", "stubborn=1", "child=1"))
    awaited(machine, "bee-1", "ready")
    assert len(processes(machine, BEE)) == 2

    began = time.monotonic()
    status, view = hive(machine, "DELETE", "/v1/workers/bee-1")

    assert (status, view["state"]) == (200, "stopped")
    assert time.monotonic() - began < 9
    assert machine.run("pgrep", "-f", "test-engine", check=False).stdout == ""


def test_workers_outlive_the_hive_and_end_without_one(machine: Machine) -> None:
    install_engine(machine)
    override(machine, "rbee-orphans.timer", "[Timer]\nOnActiveSec=\nOnActiveSec=2s\nAccuracySec=100ms\n")
    machine.run("systemctl", "start", HIVE)
    start(machine, "bee-1", model(machine, "bee"))
    serial = awaited(machine, "bee-1", "ready")["serial"]
    pid = main_pid(machine, BEE)

    # Killed, and back.
    before = main_pid(machine, HIVE)
    machine.run("systemctl", "kill", "--signal=KILL", HIVE)
    is_back = f'p=$(systemctl show -P MainPID {HIVE}); [ "$p" != 0 ] && [ "$p" != {before} ]'
    machine.run("sh", "-c", f"until {is_back}; do sleep 0.05; done")
    view = awaited(machine, "bee-1", "ready")
    assert (view["pid"], main_pid(machine, BEE)) == (pid, pid)
    assert view["serial"] > serial
    assert connected(machine, "bee-1")["pid"] == pid

    # Restarted by hand, with the queen.
    machine.run("systemctl", "restart", "queen-rbee.service")
    assert awaited(machine, "bee-1", "ready")["pid"] == pid
    time.sleep(3)  # longer than the orphans' timer
    assert main_pid(machine, BEE) == pid

    # An adopted worker is followed as any other.
    machine.run("systemctl", "kill", "--signal=KILL", BEE)
    assert (
        awaited(machine, "bee-1", "loading")["reason"]
        == "the engine test ended by SIGKILL; it is started again in 2 s"
    )
    assert awaited(machine, "bee-1", "ready")["pid"] not in (pid, None)

    # So is one that ends of its own accord, as if it were done.
    machine.run("kill", "-TERM", str(main_pid(machine, BEE)))
    assert awaited(machine, "bee-1", "loading")["reason"].endswith("; it is started again in 4 s")
    awaited(machine, "bee-1", "ready")

    # No hive comes back: the timer ends it.
    machine.run("systemctl", "stop", HIVE)
    assert active(machine, BEE, "rbee-orphans.timer") == ["active", "active"]
    await_stopped(machine, BEE)
    assert machine.run("pgrep", "-f", "test-engine", check=False).stdout == ""

    # Nothing of a worker is left for the next hive.
    machine.run("systemctl", "start", HIVE)  # its socket has stopped with it
    status, view = hive(machine, "GET", "/v1/workers")
    assert (status, view) == (200, {"workers": []})
    assert machine.run("ls", "/var/lib/rbee-hive/workers").stdout == ""


def test_a_hive_that_comes_back_too_late_adopts_no_worker_that_is_about_to_end(machine: Machine) -> None:
    install_engine(machine)
    override(machine, "rbee-orphans.timer", "[Timer]\nOnActiveSec=\nOnActiveSec=1s\nAccuracySec=100ms\n")
    override(machine, "rbee-orphans.service", "[Service]\nExecStartPre=sleep 2\n")
    machine.run("systemctl", "start", HIVE)
    start(machine, "bee-1", model(machine, "bee"))
    awaited(machine, "bee-1", "ready")

    machine.run("systemctl", "stop", HIVE)
    is_ending = "systemctl show -P ActiveState rbee-orphans.service | grep -qx activating"
    machine.run("sh", "-c", f"until {is_ending}; do sleep 0.05; done")
    assert active(machine, BEE) == ["active"]
    machine.run("systemctl", "start", HIVE)

    assert active(machine, BEE) == ["inactive"]
    assert hive(machine, "GET", "/v1/workers")[1] == {"workers": []}
    assert "worker-adopted" not in {entry.get("RBEE_EVENT") for entry in machine.journal()}


def test_off_ends_workers_at_once_and_a_reboot_is_not_delayed(machine: Machine) -> None:
    install_engine(machine)
    machine.run("systemctl", "start", HIVE)
    path = model(machine, "bee")
    for number in range(3):
        start(machine, f"bee-{number}", path)
    for number in range(3):
        awaited(machine, f"bee-{number}", "ready")

    machine.cgroup.put_first()
    began = time.monotonic()
    assert rbeectl(machine, "shutdown").code == 0
    assert time.monotonic() - began < 4
    assert machine.run("pgrep", "-f", "test-engine", check=False).stdout == ""
    left = machine.run("systemctl", "list-units", "--plain", "--no-legend", "rbee*", "queen*").stdout.split(
        "\n"
    )
    # What happened may be read.
    assert [line.split()[0] for line in left if line] == ["rbee.slice", "queen-rbee-logs.socket"]

    machine.run("systemctl", "start", "rbee.target", HIVE)
    start(machine, "bee-1", path)
    awaited(machine, "bee-1", "ready")
    began = time.monotonic()
    machine.reboot()
    assert time.monotonic() - began < 15
    machine.run("systemctl", "start", HIVE)
    assert hive(machine, "GET", "/v1/workers")[1] == {"workers": []}
    assert [e["MESSAGE"] for e in machine.journal("_PID=1") if "cycle" in str(e["MESSAGE"])] == []


def test_a_worker_is_shut_in(machine: Machine) -> None:
    install_engine(machine)
    machine.run("systemctl", "start", HIVE)
    path = model(machine, "bee")
    for number in (1, 2):
        start(machine, f"bee-{number}", path)
        awaited(machine, f"bee-{number}", "ready")
    told = machine.run("systemd-analyze", "security", "--no-pager", BEE).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert found, told
    assert float(found[1]) <= 1.3

    def inside(*command: str) -> bool:
        """Does it work for the worker's user, with its view of the file system?"""
        pid = str(main_pid(machine, BEE))
        ids = machine.run("stat", "-c", "%u", f"/proc/{pid}").stdout.strip()
        group = machine.run("getent", "group", "rbee-hive").stdout.split(":")[2]
        done = machine.run(
            "nsenter", "--target", pid, "--mount", "--net", "setpriv", f"--reuid={ids}", f"--regid={group}",
            "--clear-groups", *command, check=False,
        )  # fmt: skip
        return done.returncode == 0

    assert inside("test", "-r", "/run/rbee-worker/bee-1/model")
    assert not inside("test", "-w", "/run/rbee-worker/bee-1/model")
    assert inside("test", "-S", "/run/rbee-worker/bee-1/engine.sock")
    for hidden in (
        "/run/rbee-worker/bee-2",
        "/run/rbee/hive-control.sock",
        "/run/rbee/queen.sock",
        "/srv/models/bee.gguf",
    ):
        assert not inside("test", "-e", hidden), hidden
    for kept in ("/run/lock/x", "/var/tmp/../lib/x", "/etc/x", "/run/rbee-worker/x"):
        assert not inside("touch", kept), kept
    assert not inside("ls", "/var/lib/rbee-hive")
    machine.run("systemd-run", "--quiet", "python3", "-m", "http.server", "--bind", "0.0.0.0", "8500")
    fetched = ("curl", "--silent", "--output", "/dev/null", "--max-time", "2", "http://127.0.0.1:8500")
    machine.run("sh", "-c", f"until {' '.join(fetched)}; do sleep 0.05; done", timeout=20)
    assert not inside(*fetched), "it has a network of its own, and nothing in it"
    assert (
        machine.run("stat", "-c", "%a %G", "/run/rbee-worker/bee-1/engine.sock").stdout == "770 rbee-hive\n"
    )
