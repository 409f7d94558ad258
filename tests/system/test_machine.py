"""The machines themselves: whatever else is tested in them rests on this."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from testbed.cgroup import cgroup_mounts
from testbed.host import PACKAGING, MachineError
from testbed.leftovers import left_behind, sweep
from testbed.machine import Machine
from testbed.trees import Trees


def test_a_machine_runs_the_systemd_of_its_suite(machine: Machine, suite: str) -> None:
    assert machine.run("systemctl", "is-system-running").stdout == "running\n"
    assert machine.run("cat", "/proc/1/comm").stdout == "systemd\n"
    assert f"VERSION_CODENAME={suite}\n" in machine.run("cat", "/etc/os-release").stdout


def test_ada_is_in_group_rbee_and_mallory_is_not(machine: Machine) -> None:
    assert "rbee" in machine.run("id", "-nG", user="ada").stdout.split()
    assert "rbee" not in machine.run("id", "-nG", user="mallory").stdout.split()


def test_a_login_from_before_the_group_is_without_it(machine: Machine) -> None:
    assert machine.run("id", "-nG", user="ada", groups=()).stdout == "ada\n"
    assert machine.run("id", "-nG", user="ada", groups=("users",)).stdout == "ada users\n"


def test_two_machines_at_once_are_two(machine: Machine) -> None:
    with Machine(machine.tree) as other:
        assert other.run("cat", "/etc/machine-id").stdout != machine.run("cat", "/etc/machine-id").stdout
        # Units of the same name are apart: in a shared cgroup the one's would count as the other's.
        for one in (machine, other):
            one.run("systemd-run", "--unit=sleeper", "sleep", "600")
        other.run("systemctl", "stop", "sleeper.service")
        assert machine.run("systemctl", "is-active", "sleeper.service").stdout == "active\n"
        shown = machine.run("systemctl", "show", "--property=ControlGroup", "--value", "sleeper.service")
        processes = machine.run("cat", f"/sys/fs/cgroup{shown.stdout.strip()}/cgroup.procs").stdout.split()
        assert len(processes) == 1
        other.run("touch", "/root/of-the-other")
        assert machine.run("test", "-e", "/root/of-the-other", check=False).returncode == 1


@pytest.mark.skipif(len(cgroup_mounts()) < 3, reason="no legacy hierarchy of the controller cpu")
def test_a_machine_that_is_put_first_gets_the_processors(machine: Machine) -> None:
    all_at_once = "for one in $(seq $(nproc)); do while :; do :; done & done; wait"
    with Machine(machine.tree) as other:
        for one in (machine, other):
            one.run("systemd-run", "--unit=busy", "sh", "-c", all_at_once)
        machine.cgroup.put_first()
        machine.run("systemctl", "restart", "busy")
        before = used(machine), used(other)
        time.sleep(1)
        after = used(machine), used(other)
    assert after[0] - before[0] > 10 * (after[1] - before[1])


def used(machine: Machine) -> int:
    """Nanoseconds of processors that busy.service has had."""
    return int(machine.run("systemctl", "show", "-P", "CPUUsageNSec", "busy").stdout)


def test_a_reboot_keeps_files_and_restarts_systemd(machine: Machine) -> None:
    machine.run("touch", "/root/kept")
    before = machine.run("cat", "/proc/sys/kernel/random/boot_id").stdout
    machine.reboot()
    machine.run("test", "-e", "/root/kept")
    assert machine.run("cat", "/proc/sys/kernel/random/boot_id").stdout != before


def test_a_command_that_still_runs_holds_up_no_reboot(machine: Machine) -> None:
    process = machine.popen("sleep", "600")
    began = time.monotonic()
    machine.reboot()
    # Where it is held up, systemd waits for its 90 s.
    assert time.monotonic() - began < 30
    assert process.wait(5) > 128


def test_a_second_machine_sees_nothing_of_the_first(machine: Machine) -> None:
    machine.run("touch", "/root/gone")
    machine.poweroff()
    with Machine(machine.tree) as other:
        assert other.run("test", "-e", "/root/gone", check=False).returncode == 1


def test_a_failing_command_says_what_it_said(machine: Machine) -> None:
    with pytest.raises(MachineError, match=r"ls /nowhere: exit code 2\n.*No such file"):
        machine.run("ls", "/nowhere")


def test_a_command_past_its_deadline_is_ended(machine: Machine) -> None:
    with pytest.raises(MachineError, match="has not ended within"):
        machine.run("sleep", "600", timeout=0.3)
    assert machine.run("pgrep", "-x", "sleep", check=False).stdout == ""


def test_a_signal_reaches_a_command(machine: Machine) -> None:
    process = machine.popen(
        "sh", "-c", "trap 'echo heard; exit 7' INT; echo waits; while :; do sleep 0.05; done"
    )
    assert process.stdout
    assert process.stdout.readline() == "waits\n"
    machine.signal(process, signal.SIGINT)
    assert process.stdout.read() == "heard\n"
    assert process.wait(5) == 7


def test_a_file_and_a_directory_can_be_copied_in(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "few/one").write_text("1\n")
    machine.copy_in(tmp_path / "few", "/opt/many")
    machine.copy_in(tmp_path / "few/one", "/opt/many/another")
    assert machine.run("sh", "-c", "cat /opt/many/*").stdout == "1\n1\n"


def test_the_journal_can_be_searched(machine: Machine) -> None:
    machine.run("logger", "--tag=bee", "hum")
    assert [entry["MESSAGE"] for entry in machine.journal("SYSLOG_IDENTIFIER=bee")] == ["hum"]


BOOT = """
import signal, sys
from pathlib import Path
from testbed.machine import Machine

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
# A shell's job in the background inherits SIGINT ignored, and Python leaves that so.
signal.signal(signal.SIGINT, signal.default_int_handler)
with Machine(Path(sys.argv[1])) as machine:
    machine.popen("sleep", "600")
    print("booted", flush=True)
    machine.run("sleep", "600", timeout=600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_interrupted_leaves_nothing(
    suite: str, trees: Trees, debs: list[Path], number: signal.Signals
) -> None:
    command = [sys.executable, "-c", BOOT, str(trees.installed(suite, debs))]
    path = {"PYTHONPATH": str(PACKAGING)}
    with subprocess.Popen(
        command, env=os.environ | path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as run:
        assert run.stdout
        assert run.stdout.readline() == b"booted\n"
        assert left_behind(run.pid) != []
        run.send_signal(number)
        run.wait(20)
    deadline = time.monotonic() + 20
    # After SIGKILL nobody is left to clean up. The machine goes down all the same; the next runs sweep, and
    # some of them at once.
    with ThreadPoolExecutor(8) as runs:
        while left := left_behind(run.pid):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
            if number == signal.SIGKILL:
                for swept in [runs.submit(sweep) for _ in range(8)]:
                    swept.result()
