"""rbeectl doctor on machines that are really broken: what it says, what mends them, and that --fix does.

After a fault nobody types anything but what stands behind `try:`.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time

import pytest
from testbed.debian import install_from_archive
from testbed.machine import Machine

from rbee.systemd.exitstatus import SETUPS
from tests.system.commands import (
    CATALOG,
    HIVE,
    QUEEN,
    SOCKETS,
    Answer,
    active,
    add_hive,
    await_state,
    await_stopped,
    configure,
    main_pid,
    override,
    put,
    rbeectl,
    rows,
    unit,
)

SOCKET = SOCKETS[0]
CRASHING = "[Service]\nExecStart=\nExecStart=/bin/false\n"


def tries(answer: Answer) -> list[str]:
    """The commands that rbeectl told the user to type."""
    lines = (answer.out + answer.err).splitlines()
    return [line.removeprefix("  try: ") for line in lines if line.startswith("  try: ")]


def problems(answer: Answer) -> list[str]:
    return [line for line in answer.lines if line.startswith("problem ")]


def assert_refused_and_sent_to_the_doctor(answer: Answer) -> None:
    assert answer.code not in (0, 3), answer
    assert "sudo rbeectl doctor" in tries(answer), answer


def type_what_it_says(machine: Machine, answer: Answer) -> None:
    """Type each command behind `try:`, in this order, and insist that the machine is well then."""
    assert answer.code == 1, answer
    assert tries(answer), answer
    for command in tries(answer):
        machine.run("sh", "-c", command)
    assert_well(machine)


def assert_well(machine: Machine) -> None:
    answer = rbeectl(machine, "doctor", user=None)
    assert (answer.code, answer.lines[-1]) == (0, "All is well."), answer
    add_hive(machine)


def fix(machine: Machine) -> Answer:
    """Have the doctor mend it as root, and insist that it did."""
    answer = rbeectl(machine, "doctor", "--fix", user=None, timeout=90)
    assert (answer.code, answer.lines[-1]) == (0, "All is well now."), answer
    shown = answer.lines[: answer.lines.index("Looking again:")]
    offered = [line.removeprefix("  try: ") for line in shown if line.startswith("  try: ")]
    run = [line.removeprefix("run      ") for line in shown if line.startswith("run ")]
    assert set(run) == set(offered), "what is shown is what is run"
    assert "  failed: " not in answer.out
    assert_well(machine)
    return answer


def test_a_healthy_machine_gets_a_clean_bill_asleep_awake_and_off(machine: Machine) -> None:
    def bill(*, awake: bool) -> None:
        before = active(machine, QUEEN, HIVE, *SOCKETS)
        by_ada, by_root = rbeectl(machine, "doctor"), rbeectl(machine, "doctor", user=None)
        assert (by_ada.code, by_root.code) == (0, 0), (by_ada, by_root)
        # The models and workers are an awake queen's to report.
        assert [line.split()[0] for line in by_root.lines] == ["ok"] * (11 if awake else 10) + ["All"]
        assert "catalog is not checked: only root may read it" in by_ada.out
        told = rbeectl(machine, "doctor", "--json", user=None)
        assert told.code == 0
        assert told.json["ok"] is True
        assert told.json["ran"] == []
        assert all(check["ok"] and not check["complaints"] for check in told.json["checks"])
        mended = rbeectl(machine, "doctor", "--fix", user=None)
        assert (mended.code, mended.lines[-1]) == (0, "All is well."), mended
        # Looking changes nothing and wakes nobody.
        assert active(machine, QUEEN, HIVE, *SOCKETS) == before
        assert (before[0] == "active") is awake

    bill(awake=False)
    add_hive(machine)
    pids = main_pid(machine, QUEEN), main_pid(machine, HIVE)
    bill(awake=True)
    assert (main_pid(machine, QUEEN), main_pid(machine, HIVE)) == pids
    assert rbeectl(machine, "shutdown").code == 0
    bill(awake=False)
    refused = rbeectl(machine, "doctor", "--fix")
    assert (refused.code, tries(refused)) == (77, ["sudo rbeectl doctor --fix"])


def crash_until_the_socket_gives_up(machine: Machine) -> None:
    """A client waits while the queen crashes, and at last the cause is put right."""
    # A limit that does not mend itself as time goes by.
    override(machine, QUEEN, f"[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=1h\n{CRASHING}")
    machine.run(
        "curl", "--silent", "--max-time", "20", "--unix-socket", "/run/rbee/queen.sock", "http://localhost/",
        user="ada", check=False,
    )  # fmt: skip
    await_stopped(machine, QUEEN, SOCKET)
    assert active(machine, QUEEN, SOCKET) == ["failed", "failed"]
    assert unit(machine, SOCKET)["Result"] == "service-start-limit-hit"
    machine.run("rm", "-r", f"/run/systemd/system/{QUEEN}.d")


def test_a_socket_that_gave_up_on_a_crashing_queen_listens_again(machine: Machine) -> None:
    crash_until_the_socket_gives_up(machine)
    assert tries(rbeectl(machine, "list-hives")) == ["sudo rbeectl doctor"]
    answer = rbeectl(machine, "doctor")
    changed, failed = problems(answer)
    assert "drop-in was changed" in changed
    assert f"{SOCKET} has failed and does not listen: its service was woken repeatedly" in failed
    assert "(service-start-limit-hit)" in failed
    assert f"{QUEEN} has failed: it ended with exit status 1" in failed
    type_what_it_says(machine, answer)
    machine.run("systemctl", "stop", QUEEN)
    crash_until_the_socket_gives_up(machine)
    fix(machine)


def trigger_too_often(machine: Machine) -> None:
    override(machine, QUEEN, f"{CRASHING}Restart=no\n")
    override(machine, SOCKET, "[Socket]\nTriggerLimitBurst=2\nTriggerLimitIntervalSec=1h\n")
    machine.run(
        "curl", "--silent", "--max-time", "20", "--unix-socket", "/run/rbee/queen.sock", "http://localhost/",
        user="ada", check=False,
    )  # fmt: skip
    await_stopped(machine, SOCKET)
    assert unit(machine, SOCKET)["Result"] == "trigger-limit-hit"
    machine.run("rm", "-r", f"/run/systemd/system/{QUEEN}.d", f"/run/systemd/system/{SOCKET}.d")


def test_a_socket_that_was_triggered_too_often_listens_again(machine: Machine) -> None:
    trigger_too_often(machine)
    answer = rbeectl(machine, "doctor")
    assert "(trigger-limit-hit)" in answer.out
    assert f"{SOCKET} has failed and does not listen" in answer.out
    type_what_it_says(machine, answer)
    machine.run("systemctl", "stop", QUEEN)
    trigger_too_often(machine)
    fix(machine)


def test_masked_units_are_unmasked_whichever_way_they_were_masked(machine: Machine) -> None:
    # The socket listens, and loses its descriptor by that; just unmasking it would not do.
    machine.run("systemctl", "mask", SOCKET)
    assert_refused_and_sent_to_the_doctor(rbeectl(machine, "add-hive", "localhost"))
    answer = rbeectl(machine, "doctor")
    assert problems(answer) == [
        f"problem  units: {SOCKET} is masked: systemd refuses to start it and what depends on it"
    ]
    type_what_it_says(machine, answer)

    assert rbeectl(machine, "shutdown").code == 0
    machine.run("systemctl", "mask", "--runtime", QUEEN)
    assert unit(machine, QUEEN, "UnitFileState")["UnitFileState"] == "masked-runtime"
    assert_refused_and_sent_to_the_doctor(rbeectl(machine, "add-hive", "localhost"))
    assert f"run      systemctl unmask --runtime {QUEEN}" in fix(machine).lines

    # Both ways at once: the one is seen when the other is gone. And the queen tells it, too.
    machine.run("systemctl", "stop", HIVE)
    machine.run("systemctl", "mask", HIVE)
    machine.run("systemctl", "mask", "--runtime", HIVE)
    assert_refused_and_sent_to_the_doctor(rbeectl(machine, "add-hive", "localhost"))
    assert fix(machine).out.count("Looking again:") == 2


def test_a_socket_that_was_unmasked_by_hand_and_has_lost_its_descriptor_is_found(machine: Machine) -> None:
    for mend in (lambda: type_what_it_says(machine, rbeectl(machine, "doctor")), lambda: fix(machine)):
        machine.run("systemctl", "mask", SOCKET)
        machine.run("systemctl", "unmask", SOCKET)
        assert active(machine, SOCKET) == ["active"]
        assert f"nobody listens on /run/rbee/queen.sock, although systemd shows {SOCKET} as active" in (
            rbeectl(machine, "doctor").out
        )
        failed = rbeectl(machine, "add-hive", "localhost")
        assert "systemd handed over no socket" in failed.err
        assert_refused_and_sent_to_the_doctor(failed)
        mend()
        machine.run("systemctl", "stop", QUEEN)


def test_a_masked_polkit_is_unmasked(machine: Machine) -> None:
    def break_it() -> None:
        assert rbeectl(machine, "shutdown").code == 0
        machine.run("systemctl", "mask", "polkit.service")
        machine.run("systemctl", "stop", "polkit.service")
        assert_refused_and_sent_to_the_doctor(rbeectl(machine, "add-hive", "localhost"))

    break_it()
    answer = rbeectl(machine, "doctor")
    assert problems(answer) == [
        "problem  polkit: polkit.service is masked, so that only root can turn rbee on and off"
    ]
    type_what_it_says(machine, answer)
    break_it()
    fix(machine)


MIRROR = """
import hashlib, os, shutil, subprocess
def said(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
for path in said("dpkg-query", "--listfiles", "polkitd").split():
    copy = "/srv/polkitd" + path
    if os.path.isdir(path):
        os.makedirs(copy, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(copy), exist_ok=True)
        shutil.copy2(path, copy, follow_symlinks=False)
os.makedirs("/srv/polkitd/DEBIAN")
for name in said("dpkg-query", "--control-list", "polkitd").split():
    shutil.copy2(said("dpkg-query", "--control-path", "polkitd", name).strip(), "/srv/polkitd/DEBIAN/" + name)
fields = ("Package", "Version", "Architecture", "Maintainer", "Pre-Depends", "Depends", "Description")
shown = {field: said("dpkg-query", "--show", "--showformat=${" + field + "}", "polkitd") for field in fields}
control = "".join(f"{field}: {value}\\n" for field, value in shown.items() if value)
open("/srv/polkitd/DEBIAN/control", "w").write(control)
said("dpkg-deb", "--build", "/srv/polkitd", "/srv/polkitd.deb")
package = open("/srv/polkitd.deb", "rb").read()
where = f"Filename: ./polkitd.deb\\nSize: {len(package)}\\nSHA256: {hashlib.sha256(package).hexdigest()}\\n"
open("/srv/Packages", "w").write(control + where)
shutil.rmtree("/etc/apt/sources.list.d", ignore_errors=True)
open("/etc/apt/sources.list", "w").write("deb [trusted=yes] file:/srv ./\\n")
said("apt-get", "update")
"""
"""Makes a mirror of one package, packed again from the files that it installed: machines have no network."""


def test_a_removed_polkit_is_installed_again(machine: Machine) -> None:
    machine.run("python3", "-c", MIRROR)
    machine.run("dpkg", "--remove", "--force-depends", "polkitd")
    assert unit(machine, "polkit.service", "LoadState")["LoadState"] == "not-found"
    assert_refused_and_sent_to_the_doctor(rbeectl(machine, "add-hive", "localhost"))
    answer = rbeectl(machine, "doctor")
    assert problems(answer) == [
        "problem  polkit: polkit is not installed, so that only root can turn rbee on and off"
    ]
    assert tries(answer) == ["sudo apt-get install --yes polkitd"]
    fix(machine)


def test_a_stopped_bus_is_started_and_the_hive_is_online_again(machine: Machine) -> None:
    def stop_it() -> None:
        machine.run("systemctl", "stop", "dbus.socket", "dbus.service")
        assert active(machine, "dbus.socket", "dbus.service") == ["inactive"] * 2
        refused = rbeectl(machine, "status")
        assert "the system bus does not answer" in refused.err
        assert_refused_and_sent_to_the_doctor(refused)

    add_hive(machine)
    (before,) = rows(machine)
    stop_it()
    answer = rbeectl(machine, "doctor")
    assert problems(answer) == [
        "problem  bus: D-Bus is stopped: without it nobody can ask systemd to wake the queen or its hive"
    ]
    assert "note     units: not checked: the system bus does not answer" in answer.lines
    for command in tries(answer):
        machine.run("sh", "-c", command)
    # She saw her bus go, and systemd tries again and again to start her: nobody has to add the hive.
    await_state(machine, "online", seconds=20)
    assert_well(machine)
    machine.run("systemctl", "mask", "dbus.service")
    machine.run("systemctl", "mask", "--runtime", "dbus.socket")
    stop_it()
    answer = rbeectl(machine, "doctor", "--fix", user=None, timeout=90)
    assert "D-Bus is stopped and masked" in answer.out
    assert (answer.code, answer.lines[-1]) == (0, "All is well now."), answer
    await_state(machine, "online", seconds=20)
    assert_well(machine)
    (after,) = rows(machine)
    assert after["created_at_ms"] == before["created_at_ms"]


def test_somebody_outside_the_group_is_let_in(machine: Machine) -> None:
    def outside() -> Answer:
        refused = rbeectl(machine, "add-hive", "localhost", user="mallory")
        assert refused.code == 77
        return rbeectl(machine, "doctor", user="mallory")

    answer = outside()
    assert problems(answer) == [
        "problem  group: mallory is not in group rbee, and only its members and root may use rbee"
    ]
    assert tries(answer) == ["sudo adduser mallory rbee"]
    # A login from before knows nothing of it: no fault of the machine's.
    type_what_it_says(machine, answer)
    stale = rbeectl(machine, "doctor", user="mallory", groups=())
    assert stale.code == 0
    assert "this login does not know it yet" in stale.out
    assert rbeectl(machine, "list-hives", user="mallory").code == 0

    machine.run("deluser", "mallory", "rbee")
    outside()
    put(machine, "/etc/sudoers.d/mallory", "mallory ALL=(root) NOPASSWD: ALL\n")
    mended = machine.run("sudo", "rbeectl", "doctor", "--fix", user="mallory")
    assert "run      adduser mallory rbee" in mended.stdout
    assert rbeectl(machine, "list-hives", user="mallory").code == 0


def test_a_deleted_run_rbee_is_made_again_and_nobody_was_woken_for_it(machine: Machine) -> None:
    machine.run("rm", "-r", "/run/rbee")
    answer = rbeectl(machine, "doctor")
    assert problems(answer) == [
        "problem  sockets: /run/rbee is gone, and with it the sockets by which queen and hive are reached"
    ]
    assert tries(answer) == [
        "sudo systemd-tmpfiles --create rbee.conf",
        "sudo systemctl restart rbee.target",
    ]
    type_what_it_says(machine, answer)
    assert rbeectl(machine, "shutdown").code == 0
    machine.run("systemctl", "start", *SOCKETS)
    machine.run("rm", "-r", "/run/rbee")
    answer = rbeectl(machine, "doctor", "--fix", user=None)
    assert answer.code == 0, answer
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive", "inactive", "active", "active"]
    assert_well(machine)


def test_a_run_rbee_that_was_deleted_under_an_awake_queen_is_made_again_and_the_hive_is_back(
    machine: Machine,
) -> None:
    add_hive(machine)
    for mend in ("typed", "fixed", "as rbeectl itself says"):
        machine.run("rm", "-r", "/run/rbee")
        refused = rbeectl(machine, "list-hives")
        assert_refused_and_sent_to_the_doctor(refused)
        if mend == "typed":
            for command in tries(rbeectl(machine, "doctor")):
                machine.run("sh", "-c", command)
        elif mend == "fixed":
            assert rbeectl(machine, "doctor", "--fix", user=None, timeout=90).code == 0
        else:
            # Who has no root has the group's way out.
            machine.run("sh", "-c", tries(refused)[0], user="ada")
        assert await_state(machine, "online")["reason"] == "heartbeats received"
        assert_well(machine)


def hold_the_catalog(machine: Machine) -> subprocess.Popen[str]:
    """An sqlite3 shell that somebody left in the middle of a transaction."""
    shell = machine.popen("sqlite3", CATALOG, reads_input=True)
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write("BEGIN IMMEDIATE;\nDELETE FROM hives;\nSELECT 'held';\n")
    shell.stdin.flush()
    assert shell.stdout.readline() == "held\n"
    return shell


def test_a_stale_lock_on_the_catalog_is_found_and_its_holder_ended(machine: Machine) -> None:
    add_hive(machine)
    shell = hold_the_catalog(machine)
    refused = rbeectl(machine, "add-hive", "localhost")
    assert "database is locked" in refused.err
    assert_refused_and_sent_to_the_doctor(refused)
    assert "catalog is not checked" in rbeectl(machine, "doctor").out
    answer = rbeectl(machine, "doctor", user=None)
    (problem,) = problems(answer)
    assert f"(sqlite3 {CATALOG}) holds a lock on the catalog" in problem
    type_what_it_says(machine, answer)
    assert shell.wait(5) == 128 + signal.SIGTERM

    # SIGTERM would not end one that is stopped.
    shell = hold_the_catalog(machine)
    machine.signal(shell, signal.SIGSTOP)
    fix(machine)
    assert shell.wait(5) == 128 + signal.SIGKILL
    (row,) = rows(machine)
    assert row["id"] == "localhost", "what the shell had not committed is rolled back"


def test_owners_and_modes_are_put_right(machine: Machine) -> None:
    add_hive(machine)
    machine.run("chown", "root:root", "/run/rbee/hive.sock")
    machine.run("chmod", "0666", "/run/rbee/queen.sock")
    machine.run("chmod", "0700", "/run/rbee")
    # As after a copy that root put there.
    machine.run("chown", "root:", CATALOG)
    machine.run("chmod", "0755", "/var/lib/queen-rbee")
    pids = main_pid(machine, QUEEN), main_pid(machine, HIVE)
    answer = rbeectl(machine, "doctor", user=None)
    assert len(problems(answer)) == 5, answer
    fix(machine)
    assert (main_pid(machine, QUEEN), main_pid(machine, HIVE)) == pids


def test_what_no_command_mends_is_explained_and_left(machine: Machine) -> None:
    configure(machine, "[Queen]\nHeartbeatIntervalSec=soon\n")
    assert rbeectl(machine, "add-hive", "localhost").code == 78
    machine.run("mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", "/var/lib/queen-rbee")
    machine.run("chown", "queen-rbee:", "/var/lib/queen-rbee")
    machine.run("sh", "-c", "cat /dev/zero > /var/lib/queen-rbee/ballast", check=False)
    answer = rbeectl(machine, "doctor", "--fix", user=None)
    assert answer.code == 1, answer
    failed, wrong, full = problems(answer)
    assert f"{QUEEN} cannot run: /etc/rbee/rbee.conf.d/50-test.conf: [Queen] HeartbeatIntervalSec=" in failed
    assert "configuration: /etc/rbee/rbee.conf.d/50-test.conf: [Queen] HeartbeatIntervalSec=" in wrong
    assert "the file system of /var/lib/queen-rbee is full" in full
    assert answer.lines[-1] == "3 problems."
    machine.run("mount", "-o", "remount,ro", "/var/lib/queen-rbee")
    assert "the file system of /var/lib/queen-rbee is read-only" in (
        rbeectl(machine, "doctor", user=None).out
    )
    # Once it is mended, waking her is all that is needed, as the hint says.
    machine.run("umount", "/var/lib/queen-rbee")
    machine.run("rm", "/etc/rbee/rbee.conf.d/50-test.conf")
    assert "  hint: Mend that; then wake it with: rbeectl add-hive localhost" in answer.lines
    add_hive(machine)
    assert_well(machine)


def test_missing_users_and_groups_are_made_again(machine: Machine) -> None:
    machine.run("delgroup", "--quiet", "rbee")
    answer = fix_without_ada(machine)
    assert "the group rbee is missing, which the package rbee-queen makes" in answer.out
    assert machine.run("stat", "-c", "%G", "/run/rbee/queen.sock").stdout == "rbee\n"


def fix_without_ada(machine: Machine) -> Answer:
    """Ada's membership went with the group."""
    answer = rbeectl(machine, "doctor", "--fix", user=None)
    assert answer.code == 0, answer
    assert rbeectl(machine, "add-hive", "localhost", user=None).code == 0
    return answer


def test_a_bus_that_hangs_is_said_to_within_seconds_and_set_going(machine: Machine) -> None:
    began = time.monotonic()
    machine.run("systemctl", "kill", "--signal=STOP", "dbus.service")
    assert_refused_and_sent_to_the_doctor(rbeectl(machine, "status"))
    answer = fix(machine)
    assert "the system bus is there and does not answer" in answer.out
    assert time.monotonic() - began < 30, "of a bus that hangs the library itself waits 90 s"


def test_the_story_for_programs_is_one_object(machine: Machine) -> None:
    machine.run("rm", "-r", "/run/rbee")
    told = rbeectl(machine, "doctor", "--json", user=None)
    assert told.code == 1
    (broken,) = [check for check in told.json["checks"] if not check["ok"]]
    assert broken["check"] == "sockets"
    cures = [["systemd-tmpfiles", "--create", "rbee.conf"], ["systemctl", "restart", "rbee.target"]]
    assert broken["complaints"][0]["cures"] == cures
    mended = rbeectl(machine, "doctor", "--fix", "--json", user=None)
    assert (mended.code, mended.json["ok"], mended.json["ran"]) == (0, True, cures)


def test_a_damaged_catalog_is_named_with_its_way_out(machine: Machine) -> None:
    add_hive(machine)
    assert rbeectl(machine, "shutdown").code == 0
    machine.run("truncate", "--size=5000", CATALOG)
    answer = rbeectl(machine, "doctor", user=None)
    assert answer.code == 1, answer
    assert f"{CATALOG} is damaged" in answer.out
    assert "rbeectl catalog restore FILE" in answer.out


@pytest.mark.parametrize(
    ("setting", "status", "asked"),
    [
        ("ReadWritePaths=/nonexistent", "226/NAMESPACE", "ReadWritePaths=/nonexistent"),
        ("BindPaths=/nonexistent", "226/NAMESPACE", "BindPaths=/nonexistent:/nonexistent:rbind"),
        ("ExecStart=\nExecStart=/nonexistent", "203/EXEC", "/nonexistent"),
        ("User=nosuch", "217/USER", "User=nosuch"),
        ("WorkingDirectory=/nonexistent", "200/CHDIR", "WorkingDirectory=/nonexistent"),
    ],
    ids=["ReadWritePaths", "BindPaths", "ExecStart", "User", "WorkingDirectory"],
)
def test_a_unit_that_systemd_cannot_set_up_names_the_status_the_setting_and_no_well_being(
    machine: Machine, setting: str, status: str, asked: str
) -> None:
    override(machine, HIVE, f"[Service]\n{setting}\nRestartSec=10min\n")

    refused = rbeectl(machine, "add-hive", "localhost")

    assert refused.code == 1
    assert (
        f"{HIVE} did not start: its result is 'exit-code' (exit status {status}: systemd could not"
        in refused.err
    )
    # What it says is typed as it stands, and shows the setting that is wrong.
    assert asked in machine.run("sh", "-c", tries(refused)[0], user="ada").stdout

    told = rbeectl(machine, "doctor", user=None)
    assert told.code == 1
    (problem,) = problems(told)
    assert f"{HIVE} fails and is restarted" in problem
    assert f"exit status {status}: systemd could not" in problem
    shown = rbeectl(machine, "status")
    assert f"Result: exit-code (exit status {status}: systemd could not" in shown.out
    assert "Try: sudo journalctl -u rbee-hive.service -e" in shown.out


def test_a_queen_that_systemd_restarts_all_the_time_is_found_at_whichever_moment(machine: Machine) -> None:
    # She would be woken by nobody but the socket; the limit of starts would end it.
    dropin = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nReadWritePaths=/nonexistent\n"
    override(machine, QUEEN, dropin)
    machine.run("systemctl", "start", QUEEN, check=False)

    for _ in range(5):
        told = rbeectl(machine, "doctor", user=None)

        assert told.code == 1, told
        assert f"{QUEEN} fails and is restarted repeatedly" in problems(told)[0]
        assert "226/NAMESPACE" in problems(told)[0]


def test_the_statuses_that_rbeectl_explains_are_those_of_this_systemd(machine: Machine) -> None:
    listed = machine.run("systemd-analyze", "exit-status", "--no-pager").stdout

    statuses = {int(number): name for name, number in re.findall(r"(?m)^(\w+) +(\d+) +systemd *$", listed)}

    assert statuses.pop(255) == "EXCEPTION"
    assert len(statuses) > 40
    assert statuses.items() <= {number: setup.name for number, setup in SETUPS.items()}.items()
    known = machine.run("systemctl", "show", "--all", HIVE).stdout
    settings = {setting for number in statuses for setting in SETUPS[number].settings}
    # Those of a socket, and what `show` leaves out where it is not set.
    unknown = {setting for setting in settings if f"\n{setting}=" not in f"\n{known}"}
    assert unknown <= {"SocketUser", "SocketGroup", "LoadCredential", "SetCredential", "NetworkNamespacePath"}


def test_a_member_whom_only_a_directory_knows_is_well(machine: Machine) -> None:
    """As with SSSD or LDAP; libnss-extrausers is the smallest directory that Debian has."""
    install_from_archive(machine, "libnss-extrausers")
    machine.run(
        "sed", "-i", "-E", r"s/^((passwd|group|shadow):\s+files)/\1 extrausers/", "/etc/nsswitch.conf"
    )
    group = machine.run("getent", "group", "rbee").stdout.split(":")[2]
    people = "".join(
        f"{name}:x:{uid}:20000::/home/{name}:/bin/bash\n" for name, uid in (("dirk", 20000), ("erik", 20001))
    )
    put(machine, "/var/lib/extrausers/passwd", people)
    # Without an entry here sudo takes the account for a locked one.
    put(machine, "/var/lib/extrausers/shadow", "dirk:*:19000:0:99999:7:::\nerik:*:19000:0:99999:7:::\n")
    put(machine, "/var/lib/extrausers/group", f"directory:x:20000:\nrbee:x:{group}:dirk\n")
    put(machine, "/etc/sudoers.d/directory", "%directory ALL=(root) NOPASSWD: ALL\n")
    before = machine.run("cat", "/etc/group").stdout

    def as_user(name: str, *command: str) -> Answer:
        done = machine.run("runuser", "-u", name, "--", *command, check=False)
        return Answer(done.returncode, done.stdout, done.stderr)

    assert "dirk" not in machine.run("getent", "group", "rbee").stdout  # the group itself does not list him
    add_hive(machine)
    assert as_user("dirk", "rbeectl", "list-hives").code == 0
    well = as_user("dirk", "sudo", "rbeectl", "doctor", "--fix")
    assert (well.code, problems(well)) == (0, []), well
    assert machine.run("cat", "/etc/group").stdout == before
    # A login from before he was made a member.
    early = machine.run(
        "setpriv", "--reuid=20000", "--regid=20000", "--clear-groups", "rbeectl", "list-hives", check=False
    )
    assert "newgrp rbee" in early.stderr
    (problem,) = problems(as_user("erik", "sudo", "rbeectl", "doctor"))
    assert "erik is not in group rbee" in problem
