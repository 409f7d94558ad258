"""Root can stop what runs and reboot the machine, whatever the user of a daemon does meanwhile."""

from __future__ import annotations

import shlex

import pytest
from testbed.machine import Machine

from tests.system.commands import HIVE, QUEEN, WORKER, active, add_hive, await_stopped, override, put, unit

REDIAL = "rbee-hive-redial.service"
ROOTS_WAIT = 60
"""Seconds that root has to wait at the most: JobRunningTimeoutSec= of the units, and room."""

ATTACK = """
import os, signal, sys, time
from pystemd.dbuslib import DBus
MANAGER = (b"org.freedesktop.systemd1", b"/org/freedesktop/systemd1", b"org.freedesktop.systemd1.Manager")
UNITS = (
    b"rbee-hive-redial.service", b"rbee-hive.service", b"rbee.target", b"rbee-hive.socket",
    b"queen-rbee.service", b"queen-rbee.socket", b"queen-rbee-tcp.socket", b"queen-rbee-forget.service",
    b"rbee-hive-resume.service", b"queen-rbee-resume.service", b"rbee.slice", b"rbee-gateway.service",
    b"rbee-worker@bee.service", b"rbee-fetch@bee.service", b"rbee-hive-control.socket",
    b"rbee-orphans.timer",
)
MODES = (
    b"fail", b"replace", b"replace-irreversibly", b"isolate", b"flush", b"ignore-dependencies",
    b"ignore-requirements", b"triggering",
)
METHODS = (
    b"StartUnit", b"StopUnit", b"RestartUnit", b"TryRestartUnit", b"ReloadOrRestartUnit", b"ReloadUnit",
)
def stop_own_processes():
    for name in os.listdir("/proc"):
        try:
            is_own = name.isdecimal() and os.stat(f"/proc/{name}").st_uid == os.getuid()
            if is_own and int(name) != os.getpid():
                os.kill(int(name), signal.SIGSTOP)
        except OSError:
            pass
allowed, rounds = set(), 0
with DBus() as bus:
    bus.set_allow_interactive_authorization(False)
    while True:
        for unit in UNITS:
            for mode in MODES:
                for method in METHODS:
                    try:
                        bus.call_method(*MANAGER, method, [(ord("s"), unit), (ord("s"), mode)])
                        allowed.add(b" ".join((method, unit, mode)).decode())
                    except Exception as error:
                        said = repr(error)
                        if "denied" not in said and "authentication" not in said and "ejected" not in said:
                            allowed.add(b" ".join((method, unit, mode)).decode() + ": " + said)
                    stop_own_processes()
        rounds += 1
        with open(sys.argv[1], "w") as file:
            print(rounds, *sorted(allowed), sep="\\n", file=file)
"""


def begin_attack(machine: Machine, user: str) -> list[str]:
    """Have that user ask for everything in every mode, and stop its processes, without end.

    Returns what it was allowed in a first round.
    """
    put(machine, "/usr/lib/attack.py", ATTACK)
    machine.run("install", "-o", user, "-d", "/run/attack")
    begin = f"setsid setpriv --reuid={user} --regid={user} --clear-groups python3 /usr/lib/attack.py"
    machine.run("sh", "-c", f"{begin} /run/attack/allowed </dev/null >/run/attack.err 2>&1 &")
    until = "until test -s /run/attack/allowed; do sleep 0.05; done"
    machine.run("sh", "-c", until, timeout=60)
    return machine.run("cat", "/run/attack/allowed").stdout.splitlines()[1:]


def boot_id(machine: Machine) -> str:
    return machine.run("cat", "/proc/1/stat").stdout.split()[21] + str(machine.leader)


def test_what_the_hive_s_user_asks_for_keeps_root_from_nothing(machine: Machine) -> None:
    """It could start a unit in a mode that nothing replaces, and then hold it up."""
    add_hive(machine)

    assert begin_attack(machine, "rbee-hive") == []

    for name in (HIVE, REDIAL, "rbee.target"):
        machine.run("systemctl", "stop", name, timeout=ROOTS_WAIT)
    assert set(active(machine, HIVE, REDIAL, QUEEN)) <= {"inactive", "failed"}
    before = boot_id(machine)
    machine.reboot()
    assert boot_id(machine) != before


@pytest.mark.parametrize("user", ["rbee-gateway", "rbee-fetch"])
def test_what_a_client_s_daemon_asks_for_keeps_root_from_nothing(machine: Machine, user: str) -> None:
    add_hive(machine)

    assert begin_attack(machine, user) == []

    machine.run("systemctl", "stop", "rbee.target", timeout=ROOTS_WAIT)
    before = boot_id(machine)
    machine.reboot()
    assert boot_id(machine) != before


def test_what_the_queen_s_user_asks_for_keeps_root_from_nothing(machine: Machine) -> None:
    """Polkit allowed it the hive's start, and so, by the mode `flush`, to cancel any job."""
    add_hive(machine)

    assert begin_attack(machine, "queen-rbee") == []

    for name in (HIVE, QUEEN, "rbee.target"):
        machine.run("systemctl", "stop", name, timeout=ROOTS_WAIT)
    assert set(active(machine, HIVE, QUEEN)) <= {"inactive", "failed"}
    before = boot_id(machine)
    machine.reboot()
    assert boot_id(machine) != before


CONTROLS = """
import os, pathlib, signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
PATH, UNIT, *OTHERS = sys.argv[2:]
REQUESTS = (
    *OTHERS, f"start {UNIT} flush", "stop systemd-journald.service", "stop *", "start ../../x",
    "start --job-mode=flush", f"start {UNIT};reboot", f"$(reboot) {UNIT}", "reset-failed dbus.service",
    f"restart {UNIT}", f"kill {UNIT}", f"START {UNIT}", "", "x" * 100_000, f"stop {UNIT} x",
    f"-n start {UNIT}",
)
def ask(request):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(PATH)
        connection.sendall(request.encode() + b"\\n")
        return connection.makefile().read()
answers = {request[:40]: ask(request) for request in REQUESTS}
wrong = {request: answer for request, answer in answers.items() if "may not have this done" not in answer}
pathlib.Path(sys.argv[1]).write_text(repr(wrong))
held = []
while True:
    for request in (f"start {UNIT}", f"reset-failed {UNIT}", None):
        try:
            if request is not None:
                ask(request)
                continue
            held.append(socket.socket(socket.AF_UNIX))
            held[-1].connect(PATH)
            del held[:-20]
        except OSError:
            pass
"""


FETCH_OF_64 = f"rbee-fetch@{'a' * 64}.service"
CONTROL = {
    QUEEN: ("/run/rbee/control.sock", HIVE, "start queen-rbee.service", f"start {WORKER}"),
    HIVE: (
        *("/run/rbee/hive-control.sock", WORKER, "start rbee-hive.service", "start queen-rbee.service"),
        *("stop rbee.target", "start rbee-worker@Bee.service", f"start rbee-worker@{'a' * 25}.service"),
        *("start rbee-worker@.service", "start rbee-worker@../x.service", "start rbee-worker@bee.timer"),
        *("start rbee-worker@bee@bee.service", "start rbee-fetch@a_b.service", "stop rbee-worker@*.service"),
        *(
            f"start a{FETCH_OF_64}",
            f"start {FETCH_OF_64.replace('@', '@a')}",
            "stop rbee-worker@[a-z].service",
        ),
        *("start rbee-estimate@bee.service", "start arbee-estimate.service", "log rbee-estimate.service"),
        *("log rbee-fetch@bee.service", "log systemd-journald.service", f"log {WORKER} -f"),
        *(f"start {WORKER} 1", f"log {WORKER} 1 2 3", f"log {WORKER} -1 2", f"log {WORKER} 1 2;reboot"),
    ),
}
"""The socket where a daemon has root's things done, a unit of which it may, and what else it might ask."""


@pytest.mark.parametrize("daemon", CONTROL)
def test_who_has_taken_over_a_daemon_can_have_nothing_done_but_what_it_does(
    machine: Machine, daemon: str
) -> None:
    add_hive(machine)
    put(machine, "/usr/lib/controls.py", CONTROLS)
    # In its own service, where whoever has taken it over would be; once, as what it runs is the package's.
    report = f"/var/lib/{daemon.removesuffix('.service')}/wrong"
    put(
        machine,
        "/usr/lib/begin",
        shlex.join(["exec", "python3", "/usr/lib/controls.py", report, *CONTROL[daemon]]),
    )
    begin = "test -e /run/begin || exit 0; setsid --fork sh /usr/lib/begin"
    override(machine, daemon, f"[Service]\nExecStartPost=/bin/sh -c '{begin}'\n")
    machine.run("touch", "/run/begin")
    machine.run("systemctl", "restart", daemon)
    machine.run("rm", "/run/begin")
    machine.run("sh", "-c", f"until test -s {report}; do sleep 0.05; done", timeout=60)
    assert machine.run("cat", report).stdout == "{}"

    machine.run("systemctl", "stop", "rbee.target", timeout=ROOTS_WAIT)
    assert set(active(machine, HIVE, QUEEN)) <= {"inactive", "failed"}
    machine.run("systemctl", "reset-failed")
    machine.run("touch", "/run/begin")
    machine.run("systemctl", "start", QUEEN, HIVE)
    machine.run("rm", "/run/begin")
    before = boot_id(machine)
    machine.reboot()
    assert boot_id(machine) != before


def test_only_the_user_of_a_daemon_may_have_something_done(machine: Machine) -> None:
    machine.run("systemctl", "start", QUEEN, HIVE)
    users = ("queen-rbee", "rbee-hive", "rbee-gateway", "rbee-fetch", "ada", "mallory")
    for path, allowed in (("control.sock", "queen-rbee"), ("hive-control.sock", "rbee-hive")):
        connect = f"import socket; socket.socket(socket.AF_UNIX).connect('/run/rbee/{path}')"
        for user in users:
            done = machine.run("python3", "-c", connect, user=user, check=False)
            assert (done.returncode == 0) == (user == allowed), (path, user, done.stderr)


@pytest.mark.parametrize("mode", ["replace-irreversibly", "flush", "ignore-dependencies"])
def test_a_wait_for_the_queen_that_is_held_up_is_in_no_reboot_s_way(machine: Machine, mode: str) -> None:
    """An operator, or root, may start it in any mode: its start job is over before anybody can hold it."""
    put(machine, "/usr/lib/waits.py", "import signal\nsignal.pause()\n")
    waits = "[Unit]\nConditionPathExists=\n[Service]\nExecStart=\nExecStart=python3 /usr/lib/waits.py\n"
    override(machine, REDIAL, waits)
    machine.run("systemctl", "start", "--no-block", f"--job-mode={mode}", REDIAL)
    hold = f'until [ "$(systemctl is-active {REDIAL})" = active ]; do sleep 0.02; done'
    machine.run("sh", "-c", hold, timeout=10)
    machine.run("pkill", "-STOP", "-u", "rbee-hive", user="rbee-hive")
    assert machine.run("systemctl", "list-jobs", "--no-legend").stdout == ""

    before = boot_id(machine)
    machine.reboot()
    assert boot_id(machine) != before


REFUSES_TO_END = """
import os, signal, socket, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
channel.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\\0"))
channel.send(b"READY=1")
while True:
    channel.send(b"EXTEND_TIMEOUT_USEC=3600000000\\nWATCHDOG=1")
    time.sleep(0.2)
"""


@pytest.mark.parametrize("name", [HIVE, QUEEN])
def test_a_daemon_that_refuses_to_end_is_not_waited_for_without_end(
    machine: Machine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sd_notify(3) lets a service put off its own time-out as often as it likes."""
    put(machine, "/usr/lib/refuses.py", REFUSES_TO_END)
    # For a test: a job has 40 s as shipped, which is more than each of the unit's own time-outs.
    shipped = unit(machine, name, "JobRunningTimeoutUSec", "TimeoutStartUSec", "TimeoutStopUSec")
    assert (shipped["JobRunningTimeoutUSec"], shipped["TimeoutStartUSec"]) == ("40s", "30s")
    override(
        machine,
        name,
        "[Unit]\nJobRunningTimeoutSec=6s\n[Service]\nExecStart=\nExecStart=python3 /usr/lib/refuses.py\n",
    )
    machine.run("systemctl", "start", name)

    stopped = machine.run("systemctl", "stop", name, check=False, timeout=ROOTS_WAIT)
    assert "timed out" in stopped.stderr
    # What the manual page says to type then.
    machine.run("systemctl", "kill", "--signal=KILL", name)
    await_stopped(machine, name)

    machine.run("systemctl", "reset-failed")
    machine.run("systemctl", "start", name)
    monkeypatch.setattr("testbed.machine.POWEROFF_SECONDS", float(ROOTS_WAIT))
    before = boot_id(machine)
    machine.reboot()
    assert boot_id(machine) != before
