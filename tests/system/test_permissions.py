"""Who may do what: systemd's units by polkit, sockets and files by the kernel, routes by the peer's uid."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.machine import Machine
from testbed.trees import Trees

from rbee.wire.routes import LeaseRoutes, QueenRoutes
from tests.system.commands import (
    FETCH,
    GATEWAY,
    HIVE,
    QUEEN,
    SOCKETS,
    WORKER,
    active,
    add_hive,
    await_state,
    curl,
    main_pid,
    override,
    put,
    rows,
    unit,
)

FORGET = "queen-rbee-forget.service"
TCP_SOCKET = "queen-rbee-tcp.socket"
REDIAL = "rbee-hive-redial.service"
GATEWAY_SOCKETS = ("rbee-gateway.socket", "rbee-gateway-tcp.socket")
UNITS = (
    *(QUEEN, HIVE, *SOCKETS, TCP_SOCKET, REDIAL, "rbee.target", FORGET),
    *(GATEWAY, *GATEWAY_SOCKETS, WORKER, FETCH),
)
# Only root may join, and what root's helpers are asked by sockets nobody else starts.
OTHERS = (
    *("systemd-journald.service", "rbee.slice", "rbee-hive-join.service"),
    *("rbee-hive-control.socket", "rbee-hive-control@x.service", "rbee-orphans.service"),
    "rbee-estimate.service",
)
DAEMONS = ("queen-rbee", "rbee-hive", "rbee-gateway", "rbee-fetch")

# -- polkit ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Who:
    """A process's user, and its supplementary groups where they are not the user's."""

    name: str
    user: str
    groups: tuple[str, ...] | None = None
    may: dict[str, set[str]] = field(default_factory=dict)


EVERYBODY = (
    Who(
        "ada",
        "ada",
        may={
            **{name: {"start", "stop", "restart", "reset-failed"} for name in UNITS},
            # systemd asks nobody about a unit that it has not loaded.
            **{name: {"start", "stop", "restart"} for name in (FORGET, REDIAL, WORKER, FETCH)},
        },
    ),
    Who("mallory", "mallory"),
    Who("the queen", "queen-rbee"),
    Who("the queen in group rbee", "queen-rbee", ("rbee",)),
    Who("the hive", "rbee-hive"),
    Who(
        "the hive in group rbee, as its drop-in has it",
        "rbee-hive",
        ("rbee",),
    ),
    Who("the gateway, as its unit has it", "rbee-gateway", ("rbee",)),
    Who("a fetch", "rbee-fetch"),
    # Its user is of no name in a user database while no worker runs.
    Who("a worker in groups rbee-hive and video", "nobody", ("rbee-hive", "video")),
)

# systemd decides whether somebody may before it looks at a job's mode: "isolate" asks
# whether, and nothing happens. rbee's units may not be isolated, nor may a stop ask for it.
VERBS = {
    "start": ("StartUnit", "ss", "isolate"),
    "stop": ("StopUnit", "ss", "isolate"),
    "restart": ("RestartUnit", "ss", "isolate"),
    "reload": ("ReloadUnit", "ss", "isolate"),
    "try-restart": ("TryRestartUnit", "ss", "isolate"),
    "reload-or-restart": ("ReloadOrRestartUnit", "ss", "isolate"),
    "reload-or-try-restart": ("ReloadOrTryRestartUnit", "ss", "isolate"),
    "reset-failed": ("ResetFailedUnit", "s"),
    "kill": ("KillUnit", "ssi", "all", "18"),
    "freeze": ("FreezeUnit", "s"),
    "thaw": ("ThawUnit", "s"),
    "set-property": ("SetUnitProperties", "sba(sv)", "true", "0"),
    "clean": ("CleanUnit", "sas", "1", "runtime"),
    "ref": ("RefUnit", "s"),
    "bind": ("BindMountUnit", "sssbb", "/etc", "/run/etc", "true", "true"),
    "transient": ("StartTransientUnit", "ssa(sv)a(sa(sv))", "replace", "0", "0"),
}

TRICKS = (
    "queen-rbee.service/../systemd-journald.service",
    "../queen-rbee.service",
    "queen-rbee@x.service",
    "rbee@.target",
    "queen-rbee.service.d",
    "xqueen-rbee.service",
    "queen-rbee.servicex",
    "Queen-rbee.service",
    "queen-rbee.service ",
    "queen-rbee.mount",
    "queen\\x2drbee.service",
    "a,queen-rbee.service",
    "rbee-worker@.service",
    "rbee-worker@Bee.service",
    "rbee-worker@-.service",
    f"rbee-worker@{'a' * 25}.service",
    "rbee-worker@bee.timer",
    "rbee-worker@bee@bee.service",
    "rbee-worker@bee.service.service",
    "rbee-fetch@a_b.service",
    "xrbee-fetch@a.service",
    "",
)

ASK = """
import json, subprocess, sys
from pystemd.dbuslib import DBus
manager = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
kinds = {"s": str.encode, "i": int, "u": int, "b": json.loads}
def ask(bus, method, signature, *values):
    if set(signature) <= set(kinds):  # a third of what a process costs
        typed = [(ord(kind), kinds[kind](value)) for kind, value in zip(signature, values)]
        bus.call_method(*(name.encode() for name in manager), method.encode(), typed)
        return "done"
    asked = subprocess.run(
        ["busctl", "--allow-interactive-authorization=no", "call", *manager, method, signature, *values],
        capture_output=True, text=True,
    )
    return asked.stderr.removeprefix("Call failed: ").strip() if asked.returncode else "done"
answers = []
with DBus() as bus:
    bus.set_allow_interactive_authorization(False)
    for argv in json.load(sys.stdin):
        try:
            answers.append(ask(bus, *argv))
        except Exception as error:
            answers.append(error.args[0].split("b'", 1)[-1].rstrip("'\\""))
print(json.dumps(answers))
"""

NO_UNIT = ("nvalid", "not valid", "not loaded", "missing the instance name", "not member of any unit")

# The last is the bus's own: its policy lets nobody but root send some of the calls.
REFUSALS = ("Interactive authentication required.", "Access denied", "Permission denied", "Rejected send")


def ask(machine: Machine, who: Who, calls: Iterable[Sequence[str]]) -> list[str]:
    """What systemd answers to each call: "done", or its words."""
    gids = [machine.run("getent", "group", name).stdout.split(":")[2] for name in who.groups or ()]
    groups = None if who.groups is None else gids
    asked = machine.run(
        "python3", "-c", ASK, user=who.user, groups=groups, input=json.dumps(list(calls)), timeout=120
    )
    answers: list[str] = json.loads(asked.stdout)
    return answers


def is_refused(answer: str) -> bool:
    return answer.startswith(REFUSALS)


def call(verb: str, name: str) -> list[str]:
    method, signature, *rest = VERBS[verb]
    return [method, signature, name, *rest]


def snapshot(machine: Machine) -> str:
    """What whoever is refused must have left as it was."""
    return machine.run(
        "sh",
        "-c",
        "systemctl show -p Id,ActiveState,FreezerState,InvocationID,CPUWeight,Job "
        f"{' '.join(UNITS + OTHERS)};"
        "systemctl show-environment; systemctl get-default;"
        "find /etc/systemd /run/systemd/system /run/systemd/transient /run/systemd/system.control | sort;"
        "systemctl list-jobs --no-legend slow.service",
    ).stdout


def test_each_verb_on_each_unit_is_allowed_to_whom_the_rule_names_and_to_nobody_else(
    machine: Machine,
) -> None:
    add_hive(machine)
    put(machine, "/run/systemd/system/slow.service", "[Service]\nType=oneshot\nExecStart=sleep 600\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "--no-block", "slow.service")
    job = machine.run("systemctl", "list-jobs", "--no-legend", "slow.service").stdout.split()[0]
    whole = (
        ["Reload", ""],
        ["Reexecute", ""],
        ["ResetFailed", ""],
        ["ClearJobs", ""],
        ["CancelJob", "u", job],
        ["SetEnvironment", "as", "1", "LD_PRELOAD=/tmp/evil.so"],
        ["UnsetEnvironment", "as", "1", "PATH"],
        ["SetDefaultTarget", "sb", "rescue.target", "true"],
        ["PresetAllUnitFiles", "sbb", "full", "true", "true"],
        ["EnableUnitFiles", "asbb", "1", QUEEN, "true", "true"],
        ["DisableUnitFiles", "asb", "1", QUEEN, "true"],
        ["MaskUnitFiles", "asbb", "1", QUEEN, "true", "true"],
        ["RevertUnitFiles", "as", "1", QUEEN],
        ["LinkUnitFiles", "asbb", "1", "/tmp/evil.service", "true", "true"],
    )
    before = snapshot(machine)
    for who in EVERYBODY:
        table = [(v, name) for v in VERBS for name in UNITS + OTHERS if v != "bind" or name in (QUEEN, HIVE)]
        answers = dict(zip(table, ask(machine, who, [call(*row) for row in table]), strict=True))
        # A oneshot is unloaded when it is over; of what is not loaded nothing can be asked.
        allowed = {
            row for row, answer in answers.items() if not is_refused(answer) and "not loaded" not in answer
        }
        assert allowed == {(verb, name) for name, verbs in who.may.items() for verb in verbs}, who.name
        for verb, name in allowed:
            wanted = "done" if verb == "reset-failed" else "solate"
            assert wanted in answers[verb, name], (who.name, verb, name, answers[verb, name])
        for asked, answer in zip(whole, ask(machine, who, whole), strict=True):
            assert is_refused(answer), (who.name, asked, answer)
        # Not polkit's: systemd lets a unit's own user attach what is his, and nobody's unit is ada's.
        # 0 is the asker itself.
        attach = [
            ["AttachProcessesToUnit", "ssau", name, "", "1", pid] for name in (QUEEN, HIVE) for pid in "01"
        ]
        assert "done" not in ask(machine, who, attach), who.name
        tricks = [call(verb, name) for verb in ("start", "reset-failed") for name in TRICKS]
        for asked, answer in zip(tricks, ask(machine, who, tricks), strict=True):
            is_no_unit = any(words in answer for words in NO_UNIT)
            assert is_refused(answer) or is_no_unit, (who.name, asked, answer)
    assert snapshot(machine) == before


def test_what_a_person_may_not_type_does_nothing(machine: Machine) -> None:
    add_hive(machine)
    before = snapshot(machine)
    words = [
        f"systemctl isolate rbee.target; systemctl freeze {QUEEN}; systemctl thaw {QUEEN}",
        f"systemctl kill --signal=KILL {QUEEN}; systemctl kill {HIVE}; systemctl reload {QUEEN}",
        f"systemctl enable {QUEEN}; systemctl disable rbee-hive.socket; systemctl mask --runtime {HIVE}",
        f"systemctl edit {QUEEN}; systemctl edit --runtime --full {HIVE}; systemctl revert {QUEEN}",
        f"systemctl set-property --runtime {HIVE} CPUWeight=1; systemctl clean --what=state {HIVE}",
        "systemctl daemon-reload; systemctl daemon-reexec; systemctl set-environment A=b",
        f"systemd-run true; systemd-run --scope true; systemd-run --unit={HIVE} true",
        "systemd-run --unit=queen-rbee-x.service true; systemctl cancel; systemctl stop rbee.slice",
        "systemctl restart systemd-journald.service; systemctl poweroff; kill -KILL 1",
        f"systemd-run --unit={WORKER} true; systemd-run --unit={FETCH} true; systemctl edit {WORKER}",
        f"systemctl service-log-level {QUEEN} debug; systemctl bind {QUEEN} /etc /tmp",
    ]
    typed = [one.replace(" ", " --no-ask-password ", one[0] == "s") for one in "; ".join(words).split("; ")]
    script = "\n".join(f"{one} </dev/null >/dev/null 2>&1; echo $?" for one in typed)
    for user in ("ada", "mallory", *DAEMONS):
        env = {"SYSTEMD_EDITOR": "true"}
        codes = machine.run("sh", "-c", script, user=user, env=env, timeout=60).stdout.split()
        assert [one for one, code in zip(typed, codes, strict=True) if code == "0"] == [], user
    assert snapshot(machine) == before
    # And what ada may type works.
    for one in (
        "restart " + QUEEN,
        "stop " + HIVE,
        "start " + HIVE,
        "reset-failed " + HIVE,
        "stop rbee.target",
    ):
        machine.run("systemctl", "--no-ask-password", *one.split(), user="ada")
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive"] * 4
    machine.run("systemctl", "--no-ask-password", "start", "queen-rbee.socket", QUEEN, user="ada")
    assert active(machine, QUEEN) == ["active"]


def test_where_no_hive_is_installed_its_name_starts_nobody_s_command(machine: Machine) -> None:
    """systemd 257 asks polkit about `systemd-run --unit=NAME` as about `systemctl start NAME`."""
    machine.run("dpkg", "--remove", "--force-depends", "rbee-hive")
    assert unit(machine, HIVE, "LoadState")["LoadState"] == "not-found"
    for name in (HIVE, WORKER, FETCH):
        evil = ("systemd-run", "--no-ask-password", f"--unit={name}", "--wait", "touch", "/run/evil")
        for user in ("ada", "mallory", *DAEMONS):
            done = machine.run(*evil, user=user, check=False)
            assert done.returncode != 0, (name, user, done.stdout, done.stderr)
    assert machine.run("test", "-e", "/run/evil", check=False).returncode == 1
    machine.run(*evil)  # it is a command that works, for root
    machine.run("test", "-e", "/run/evil")


# -- the sockets and the files -----------------------------------------------------------------------------

LOOK = """
import json, os, socket, sys
def reach(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(path)
def read(path):
    os.listdir(path) if os.path.isdir(path) else open(path, "rb").read()
def write(path):
    open(path + "/written", "x").close()
    os.unlink(path + "/written")
found = {}
for how, path in json.load(sys.stdin):
    try:
        globals()[how](path)
        found[f"{how} {path}"] = True
    except PermissionError:
        found[f"{how} {path}"] = False
print(json.dumps(found))
"""

QUEEN_SOCKET, HIVE_SOCKET = "reach /run/rbee/queen.sock", "reach /run/rbee/hive.sock"
OPENAI = "reach /run/rbee/openai.sock"
QUEEN_CONTROL, HIVE_CONTROL = "reach /run/rbee/control.sock", "reach /run/rbee/hive-control.sock"
PLACES = (
    QUEEN_SOCKET,
    HIVE_SOCKET,
    OPENAI,
    QUEEN_CONTROL,
    HIVE_CONTROL,
    "read /var/lib/queen-rbee",
    "read /var/lib/queen-rbee/catalog.db",
    "read /var/lib/rbee-hive",
    "read /run/queen-rbee",
    "read /run/queen-rbee/events",
    "write /run/rbee",
    "write /etc/rbee",
    "write /var/lib/queen-rbee",
    "write /var/lib/rbee-hive",
    "write /run/queen-rbee",
)
QUEENS = {
    *("read /var/lib/queen-rbee", "read /var/lib/queen-rbee/catalog.db", "write /var/lib/queen-rbee"),
    *("read /run/queen-rbee", "read /run/queen-rbee/events", "write /run/queen-rbee"),
}
HIVES = {"read /var/lib/rbee-hive", "write /var/lib/rbee-hive"}


def fields_of(text: str) -> dict[str, str]:
    """/proc/PID/status as fields."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def look(machine: Machine, user: str | None, groups: tuple[str, ...] | None = None) -> set[str]:
    """Which of PLACES the user gets at."""
    wanted = json.dumps([place.split(" ", 1) for place in PLACES])
    told = machine.run("python3", "-c", LOOK, user=user, groups=groups, input=wanted).stdout
    return {place for place, is_open in json.loads(told).items() if is_open}


def test_each_gets_at_its_own_socket_and_files_and_at_nothing_else(machine: Machine) -> None:
    add_hive(machine)
    rbee = machine.run("getent", "group", "rbee").stdout.split(":")[2]
    assert look(machine, None) == set(PLACES)
    assert look(machine, "ada") == {QUEEN_SOCKET, OPENAI}
    assert look(machine, "ada", ()) == set()
    assert look(machine, "mallory") == set()
    assert look(machine, "queen-rbee") == {HIVE_SOCKET, QUEEN_CONTROL} | QUEENS
    assert look(machine, "rbee-hive") == {HIVE_CONTROL} | HIVES
    assert look(machine, "rbee-hive", (rbee,)) == {QUEEN_SOCKET, OPENAI, HIVE_CONTROL} | HIVES
    assert look(machine, "rbee-gateway") == set()
    assert look(machine, "rbee-gateway", (rbee,)) == {QUEEN_SOCKET, OPENAI}
    assert look(machine, "rbee-fetch") == set()
    for user in ("ada", "mallory", *DAEMONS):
        said = machine.run("journalctl", "-q", "--no-pager", f"_SYSTEMD_UNIT={QUEEN}", user=user, check=False)
        assert "hive" not in said.stdout, user
    # The daemons themselves are as setpriv had them.
    processes = {
        name: machine.run("cat", f"/proc/{main_pid(machine, name)}/status").stdout
        for name in (QUEEN, HIVE, GATEWAY)
    }
    groups = {name: set(fields_of(text)["Groups"].split()) for name, text in processes.items()}
    own = {user: machine.run("id", "-g", user).stdout.strip() for user in DAEMONS}
    video = machine.run("getent", "group", "video").stdout.split(":")[2]
    assert groups == {
        QUEEN: {own["queen-rbee"]},
        HIVE: {own["rbee-hive"], rbee, video},
        GATEWAY: {own["rbee-gateway"], rbee},
    }


def test_where_there_is_no_queen_the_hive_s_socket_is_root_s(machine: Machine) -> None:
    machine.run("dpkg", "--purge", "rbee", "rbee-gateway", "rbee-queen")
    machine.run("userdel", "queen-rbee")
    machine.run("systemctl", "restart", "rbee-hive.socket")
    assert machine.run("stat", "-c", "%a %U %G", "/run/rbee/hive.sock").stdout == "660 root root\n"
    machine.run("systemctl", "start", HIVE)
    url = ("curl", "--silent", "--unix-socket", "/run/rbee/hive.sock", "http://localhost/health")
    assert json.loads(machine.run(*url).stdout)["status"] == "ok"
    for user in ("ada", "mallory", "rbee-hive", "rbee-fetch"):
        assert machine.run(*url, user=user, check=False).returncode == 7, user  # could not connect


def test_a_hive_that_is_installed_while_the_queen_is_awake_beats_and_is_no_operator(
    suite: str, trees: Trees, debs: list[Path]
) -> None:
    with Machine(trees.installed(suite, debs)) as machine:
        (deb,) = [deb for deb in debs if deb.name.startswith("rbee-hive_")]
        machine.copy_in(deb, "/root/rbee-hive.deb")
        machine.run("dpkg", "--remove", "--force-depends", "rbee-hive")
        machine.run("userdel", "rbee-hive")
        assert curl(machine, "/health")[0] == 200
        queen = main_pid(machine, QUEEN)
        machine.run("dpkg", "--install", "/root/rbee-hive.deb")
        rbee = machine.run("getent", "group", "rbee").stdout.split(":")[2]
        status, problem = as_daemon(machine, "rbee-hive", rbee, "/v1/hives")
        assert (status, problem["type"]) == (403, "urn:rbee:problem:not-permitted")
        add_hive(machine)
        assert await_state(machine, "online")["reason"] == "heartbeats received"
        assert main_pid(machine, QUEEN) == queen


# -- the queen's routes ------------------------------------------------------------------------------------

BEAT = {"hive_id": "localhost", "timestamp": "2026-01-31T12:00:00Z", "workers": [], "instance": "0" * 32}


def as_daemon(machine: Machine, user: str, rbee: str, path: str, *options: str) -> tuple[int, Any]:
    """curl() as the hive's process is, or the gateway's: its user, and group rbee on top."""
    done = machine.run(
        *("curl", "--silent", "--unix-socket", "/run/rbee/queen.sock", "--write-out", "\n%{http_code}"),
        *(*options, f"http://localhost{path}"),
        user=user,
        groups=(rbee,),
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def test_the_hive_s_user_gets_heartbeats_and_nothing_else_and_nobody_beats_in_its_name(
    machine: Machine,
) -> None:
    add_hive(machine)
    rbee = machine.run("getent", "group", "rbee").stdout.split(":")[2]
    job = rbeectl_job(machine)
    for route in (*QueenRoutes.ALL, *LeaseRoutes.ALL):
        path = route.path.replace("{hive_id}", "localhost").replace("{job_id}", job)
        body = BEAT if route is QueenRoutes.HEARTBEAT else {"host": "localhost"}
        posted = ("-X", route.method, "-d", json.dumps(body)) if route.method != "GET" else ()
        status, answer = as_daemon(machine, "rbee-hive", rbee, path, *posted)
        if route is QueenRoutes.HEARTBEAT:
            assert (status, answer["status"]) == (200, "ok")
            status, answer = curl(machine, path, *posted)  # ada
        assert (status, answer["type"]) == (403, "urn:rbee:problem:not-permitted"), route.name
        assert "rbee-hive" in answer["detail"]
    assert len(rows(machine)) == 1
    assert active(machine, QUEEN, HIVE) == ["active", "active"]


def test_the_gateway_s_user_gets_leases_and_nobody_else_does(machine: Machine) -> None:
    add_hive(machine)
    rbee = machine.run("getent", "group", "rbee").stdout.split(":")[2]
    job = rbeectl_job(machine)
    for route in QueenRoutes.ALL:
        path = route.path.replace("{hive_id}", "localhost").replace("{job_id}", job)
        posted = ("-X", route.method, "-d", "{}") if route.method != "GET" else ()
        status, answer = as_daemon(machine, "rbee-gateway", rbee, path, *posted)
        if route is QueenRoutes.HEALTH:
            assert (status, answer["status"]) == (200, "ok")
            continue
        assert (status, answer["type"]) == (403, "urn:rbee:problem:not-permitted"), route.name
    for route in LeaseRoutes.ALL:
        status, answer = curl(machine, route.path)  # ada
        assert (status, answer["type"]) == (403, "urn:rbee:problem:not-permitted"), route.name
        assert "rbee-gateway" in answer["detail"]
    status, answer = as_daemon(machine, "rbee-gateway", rbee, LeaseRoutes.OPEN_MODELS.path)
    assert (status, answer) == (200, {"models": []})
    assert as_daemon(machine, "rbee-gateway", rbee, LeaseRoutes.LEASE.path)[0] == 400  # without an upgrade
    assert len(rows(machine)) == 1
    assert active(machine, QUEEN, HIVE) == ["active", "active"]


def rbeectl_job(machine: Machine) -> str:
    status, listed = curl(machine, "/v1/jobs")
    assert status == 200
    return str(listed["jobs"][0]["id"])


# -- the audit ---------------------------------------------------------------------------------------------


def changes(machine: Machine, *matches: str) -> list[dict[str, Any]]:
    return machine.journal("--unit=queen-rbee.service", "RBEE_EVENT=catalog-changed", *matches)


def fields(entry: dict[str, Any]) -> tuple[str, str, str]:
    return entry["MESSAGE"], entry["RBEE_ACTOR_UID"], entry["RBEE_ACTOR_PID"]


def with_pid(machine: Machine, *argv: str, user: str | None) -> str:
    """Run rbeectl to its end; the pid that it had."""
    done = machine.run("sh", "-c", 'echo "pid $$"; exec rbeectl "$@"', "sh", *argv, user=user)
    return done.stdout.splitlines()[0].removeprefix("pid ")


def await_change(machine: Machine, text: str, count: int) -> None:
    """Until the journal has so many changes with that text."""
    told = f"journalctl -q --no-pager -u {QUEEN} RBEE_EVENT=catalog-changed | grep -c {text!r}"
    machine.run("sh", "-c", f"until [ $({told}) -ge {count} ]; do sleep 0.05; done", timeout=20)


def test_each_change_of_the_catalog_is_one_line_with_who_made_it(machine: Machine) -> None:
    wanted = "hive localhost (host localhost) should be online"
    online = "hive localhost is online in the hive catalog, with its devices"
    removed = "hive localhost is removed from the hive catalog"
    uids = {name: machine.run("id", "-u", name).stdout.strip() for name in ("ada", "queen-rbee", "rbee-hive")}

    ada = with_pid(machine, "add-hive", "localhost", user="ada")
    root = with_pid(machine, "remove-hive", "localhost", user=None)
    with_pid(machine, "remove-hive", "localhost", user=None)  # there is nothing to change
    again = with_pid(machine, "add-hive", "localhost", user="ada")
    queen = str(main_pid(machine, QUEEN))
    told = changes(machine)
    assert [fields(entry) for entry in told] == [
        (wanted, uids["ada"], ada),
        (online, uids["ada"], ada),
        (removed, "0", root),
        (wanted, uids["ada"], again),
        (online, uids["ada"], again),
    ]
    jobs = [entry["RBEE_JOB_ID"] for entry in told]
    assert [jobs.count(job) for job in jobs] == [2, 2, 1, 2, 2]
    assert {entry["RBEE_HIVE"] for entry in told} == {"localhost"}
    assert {entry["_PID"] for entry in told} == {queen}

    # By systemd's word the queen decides herself; who comes back by a beat is the hive.
    machine.run("systemctl", "stop", HIVE)
    await_change(machine, "is offline, and should stay offline", 1)
    machine.run("systemctl", "start", HIVE)
    await_change(machine, "is online", 3)
    first = str(main_pid(machine, HIVE))
    machine.run("kill", "-KILL", first)
    await_change(machine, "is online", 4)
    second = str(main_pid(machine, HIVE))
    told = changes(machine)[5:]
    assert [fields(entry) for entry in told] == [
        ("hive localhost is offline, and should stay offline", uids["queen-rbee"], queen),
        (online, uids["rbee-hive"], first),
        ("hive localhost is offline in the hive catalog", uids["queen-rbee"], queen),
        (online, uids["rbee-hive"], second),
    ]
    assert not any("RBEE_JOB_ID" in entry for entry in told)

    # What the manual page says to type: by whom, and whatever anybody else writes is not the queen's.
    forged = (
        f"MESSAGE=forged\nRBEE_EVENT=catalog-changed\nRBEE_HIVE=localhost\nRBEE_ACTOR_UID={uids['ada']}\n"
    )
    machine.run("logger", "--journald", user="mallory", input=forged)
    assert [e["MESSAGE"] for e in machine.journal("RBEE_EVENT=catalog-changed")][-1] == "forged"
    by_ada = changes(machine, f"RBEE_ACTOR_UID={uids['ada']}")
    assert [entry["MESSAGE"] for entry in by_ada] == [wanted, online] * 2
    explained = machine.run(
        "journalctl", "-x", "--no-pager", "-u", QUEEN, "RBEE_EVENT=catalog-changed"
    ).stdout
    assert f"RBEE_EVENT=catalog-changed RBEE_ACTOR_UID={uids['ada']}" in explained


# -- what the daemons may ----------------------------------------------------------------------------------


def test_what_a_daemon_can_write_it_cannot_execute(machine: Machine) -> None:
    # A library that is installed can be preloaded, as tests do.
    library = "/usr/lib/x86_64-linux-gnu/libz.so.1"
    daemons = {QUEEN: "queen-rbee", HIVE: "rbee-hive"}
    for service in daemons:
        override(machine, service, f"[Service]\nEnvironment=LD_PRELOAD={library}\n")
    add_hive(machine)
    for service, user in daemons.items():
        pid = main_pid(machine, service)
        assert "libz.so" in machine.run("cat", f"/proc/{pid}/maps").stdout
        told = fields_of(machine.run("cat", f"/proc/{pid}/status").stdout)
        assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")
        assert {told[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        # In its own mounts, as its user: every place that takes a file, tried with a program.
        inside = ("nsenter", f"--target={pid}", "--mount", "setpriv", f"--reuid={user}", "--clear-groups")
        tries = """
            { echo /; cut -d' ' -f5 /proc/self/mountinfo; } | while read -r mount; do
                find "$mount" -xdev -maxdepth 3 -type d -writable ! -path '/proc/*' 2>/dev/null
            done | sort -u | while read -r place; do
                cp /bin/true "$place/program" 2>/dev/null || continue
                "$place/program" 2>/dev/null
                echo "$place $?"
                rm "$place/program"
            done
        """
        tried = dict(line.split() for line in machine.run(*inside, "sh", "-c", tries).stdout.splitlines())
        assert {"/dev/shm", "/tmp", "/var/tmp", f"/var/lib/{user}"} <= set(tried), service
        assert (service == QUEEN) == ("/run/queen-rbee" in tried)
        assert set(tried.values()) == {"126"}, (service, tried)
