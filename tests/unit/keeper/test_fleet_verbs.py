"""Machines brought by ssh and removed, from rbeectl's arguments to its exit code; and what programs read.

There is an ssh in PATH that is played, and behind it the systemd of the other machine is played, too.
"""

from __future__ import annotations

import io
import json
import os
import socket
import ssl
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

import rbee.keeper.fleet.address
import rbee.keeper.fleet.bring
import rbee.keeper.fleet.find_queen
import rbee.keeper.fleet.join
import rbee.keeper.fleet.reach
from rbee import tls
from rbee.contracts import (
    Audit,
    AuditEntry,
    CreatedToken,
    CreateToken,
    Done,
    HiveView,
    JobStarted,
    Label,
    QueenRoutes,
    Route,
    Tcp,
    Tokens,
    TokenView,
    decode,
    encode,
)
from rbee.errors import HiveNotOnline, RbeeError, TcpClosed, UnitFailed, UnknownHive, UnknownToken
from rbee.keeper.fleet.bring import TOKEN_LIFE
from rbee.keeper.fleet.invitation import STATE
from rbee.scope import HIVE_UNIT, JOIN_UNIT, QUEEN_UNIT
from rbee.server.app import Handler
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import BEGUN, JOB, Bus, Ran, Rbeectl, WithQueen, line, listing, story
from tests.unit.played_systemd import INACTIVE
from tests.unit.shapes import HIVE_VIEW

CA = ssl.DER_cert_to_PEM_cert(b"the certificate of the queen's CA")
FINGERPRINT = tls.fingerprint(CA)
TEXT = f"0123abcd.{'A' * 32}.{FINGERPRINT}"
TOKEN = TokenView("0123abcd", "gpu1", 1, 1_700_000_000_000, 4_000_000_000_000, False)
GPU1 = replace(
    HIVE_VIEW,
    id="gpu1",
    host="gpu1",
    is_remote=True,
    address="10.0.0.7",
    labels=(Label("rack", "3"),),
    cordoned="a fan is loud",
)
MEMBER = {"hive_id": "gpu1", "host": "10.0.0.1", "port": 8500, "ca": CA}
NOT_FOUND = UnitState("not-found", "inactive", "dead")
RESTARTED = [("start", JOIN_UNIT), ("stop", HIVE_UNIT), ("start", HIVE_UNIT)]
OPEN = Tcp(True, ("[::]:8500",), FINGERPRINT, 4_000_000_000_000)
ENTRY = AuditEntry(1, 1_700_000_000_000, "hive gpu1 was labelled", "gpu1", 1000, None, None)

SSH = """#!/bin/sh
# As ssh: options, --, the target, and one line for the shell there, which is a real one. The programs that
# it runs are played: what each is given is noted.
while [ "$1" != -- ]; do
    [ "$1" = exit ] && exit 0
    shift
done
printf '%s\\n' "$2" >>"{folder}/targets"
case login in {fails}) echo "{says}" >&2; exit {status} ;; esac
eval "set -- $3"
while [ "$1" != sh ]; do
    [ "$1" = sudo ] && export BY_SUDO=yes
    shift
done
shift
PATH="{folder}/there:/usr/bin:/bin" exec /bin/sh "$@"
"""

PROGRAM = """#!/bin/sh
PATH=/usr/bin:/bin
number=$(ls "{folder}/noted" | wc -l)
printf '%s\\0' "$(basename "$0")" "$@" >"{folder}/noted/$number.argv"
cat >"{folder}/noted/$number.content"
printf '%s' "$BY_SUDO" >"{folder}/noted/$number.sudo"
case "$(basename "$0") $*" in
    {fails}) echo "{says}" >&2; exit {status} ;;
    *SSH_CONNECTION*) printf 'rbeectl: 10.0.0.1 %s ada /usr/bin/sudo\\n' {uid} ;;
    *membership*) cat "{folder}/membership" ;;
    mktemp*) echo /tmp/there ;;
esac
"""

PROGRAMS = ("sh", "env", "install", "mktemp", "chmod", "rm", "setpriv")


@dataclass(frozen=True)
class Command:
    argv: list[str]
    content: str
    is_by_sudo: bool


@dataclass
class Elsewhere:
    """The other machine. `fails` is a pattern of the shell for the command that exits with `status`."""

    folder: Path
    bus: Bus = field(default_factory=Bus)
    uid: int = 0

    def play(self, *, fails: str = "nothing", says: str = "", status: int = 1) -> None:
        values = {"folder": self.folder, "uid": self.uid, "fails": fails, "says": says, "status": status}
        for path, script in (
            (self.folder / "bin/ssh", SSH),
            *((self.folder / "there" / name, PROGRAM) for name in PROGRAMS),
        ):
            path.write_text(script.format(**values))
            path.chmod(0o755)

    def is_a(self, **told: Any) -> None:
        """It has joined already: its membership's first line."""
        (self.folder / "membership").write_text(f"# {json.dumps(told)}\n")

    @property
    def targets(self) -> set[str]:
        return set((self.folder / "targets").read_text().splitlines())

    @property
    def ran(self) -> list[Command]:
        """Every command but the first, which asks who is there."""
        noted = self.folder / "noted"
        # Three files a command, each of which is numbered with how many there were.
        numbers = range(0, len(list(noted.iterdir())), 3)
        return [
            Command(
                (noted / f"{number}.argv").read_text().split("\0")[:-1],
                (noted / f"{number}.content").read_text(),
                bool((noted / f"{number}.sudo").read_text()),
            )
            for number in numbers
        ][1:]

    @property
    def programs(self) -> list[str]:
        return [command.argv[0] for command in self.ran]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """A machine that ssh reaches and that reaches the queen, with rbee-hive installed and no queen."""
    for name in ("bin", "noted", "tmp", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "membership").touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    there = Elsewhere(tmp_path)
    there.bus.states = {HIVE_UNIT: INACTIVE, QUEEN_UNIT: NOT_FOUND}
    there.play()
    monkeypatch.setattr(rbee.keeper.fleet.bring, "RemoteUnits", lambda ssh: there.bus)
    for module in (rbee.keeper.fleet.find_queen, rbee.keeper.fleet.bring):
        monkeypatch.setattr(module, "try_from_there", lambda *_asked: "")
    return there


class Queen:
    """Open to other machines; a hive is online as soon as she is asked to add it, but for what she `refuses`
    the first time.
    """

    def __init__(self, *hives: HiveView, tcp: Tcp = OPEN, refuses: RbeeError | None = None) -> None:
        self.refuses = refuses
        self.hives = hives
        self.tcp = tcp
        self.tokens: list[CreateToken] = []
        self.added: list[Any] = []

    @property
    def handlers(self) -> dict[Route, Handler]:
        async def tcp(_request: Request) -> Tcp:
            return self.tcp

        async def create(request: Request) -> CreatedToken:
            self.tokens.append(decode(CreateToken, json.loads(await request.body())))
            return CreatedToken(TEXT, TOKEN)

        async def add(request: Request) -> Any:
            self.added.append(json.loads(await request.body()))
            if "text/event-stream" not in request.headers["accept"]:
                return JobStarted("gpu1", JOB, f"/v1/jobs/{JOB}/events")
            end = ("done", encode(Done(GPU1)))
            if self.refuses is not None:
                end, self.refuses = ("error", self.refuses.to_problem()), None
            return await story(BEGUN, line("queen bee", "gpu1 joins."), end)(request)

        return {
            **listing(*self.hives),
            QueenRoutes.TCP: tcp,
            QueenRoutes.CREATE_TOKEN: create,
            QueenRoutes.ADD_HIVE: add,
        }


# Bringing a machine


def test_a_machine_is_looked_at_handed_an_invitation_started_and_seen_online(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    queen = Queen()
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", "--user", "root"))

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[:7] == [
        "(bee keeper) queen is awake and healthy.",
        "(bee keeper) looking at gpu1 by ssh",
        "(bee keeper) handing gpu1 the queen's address, 10.0.0.1:8500, and a token for one use",
        f"(bee keeper) starting {HIVE_UNIT} on gpu1",
        "(bee keeper) Requesting queen to add gpu1 to hive catalog",
        "(queen bee)  gpu1 joins.",
        "Hive gpu1 is Online",
    ]
    assert queen.tokens == [CreateToken(TOKEN_LIFE, 1, "gpu1")]
    assert queen.added == [{"host": "gpu1", "port": None}]
    owned = ["-o", "rbee-hive", "-g", "rbee-hive"]
    folder, invitation = elsewhere.ran
    assert folder.argv == ["install", "-d", *owned, "-m", "0700", STATE]
    # In the folder of user rbee-hive root does nothing with its own rights.
    as_hive = ["setpriv", "--reuid=rbee-hive", "--regid=rbee-hive", "--clear-groups", "--", "sh", "-c"]
    assert invitation.argv[:-3] == as_hive
    assert invitation.argv[-2:] == [f"{STATE}/invitation", f"{STATE}/.invitation.new"]
    told = {"host": "10.0.0.1", "port": 8500, "name": "gpu1", "token": TEXT}
    assert json.loads(invitation.content) == told
    assert elsewhere.targets == {"root@gpu1"}
    assert not any(command.is_by_sudo for command in elsewhere.ran)
    assert elsewhere.bus.asked == RESTARTED
    assert awake.asked == []


@pytest.mark.parametrize("options", [(), ("--user", "ada")], ids=["", "--user"])
def test_who_to_be_there_may_stand_before_the_host_as_for_ssh(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere, options: tuple[str, ...]
) -> None:
    queen = Queen()
    assert with_queen(queen.handlers, lambda: rbeectl("add-hive", "ada@gpu1", *options)).code == 0

    assert elsewhere.targets == {"ada@gpu1"}
    assert queen.added == [{"host": "gpu1", "port": None}]


def test_two_users_are_one_too_many(bus: Bus, rbeectl: Rbeectl, elsewhere: Elsewhere) -> None:
    ran = rbeectl("add-hive", "ada@gpu1", "--user", "root")

    assert (ran.code, ran.out, bus.asked) == (2, "", [])
    assert ran.err == (
        "rbeectl: HOST must not have another user before its @ than --user has\n"
        "  try: rbeectl add-hive gpu1 --user root\n"
    )


def test_the_token_is_in_no_command_line_and_in_no_story(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    ran = with_queen(Queen().handlers, lambda: rbeectl("add-hive", "gpu1", "--json"))

    assert ran.code == 0
    assert "A" * 32 not in ran.out
    assert not any("A" * 32 in word for command in elsewhere.ran for word in command.argv)


def test_a_program_reads_each_step_and_the_hive(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    ran = with_queen(Queen().handlers, lambda: rbeectl("add-hive", "gpu1", "--json"))

    assert [told.get("kind", told["event"]) for told in ran.json] == [
        "queen-awake", "looking-at-host", "handing-over", "starting-hive", "requesting", "job", "adding",
        "done",
    ]  # fmt: skip
    assert ran.json[-1] == {"event": "done", "hive": encode(GPU1)}


def test_without_waiting_the_machine_is_brought_and_the_job_goes_on(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    ran = with_queen(Queen().handlers, lambda: rbeectl("add-hive", "gpu1", "--no-wait"))

    assert ran.code == 0
    assert ran.out.splitlines()[-1] == f"Job {JOB} goes on; follow it: sudo rbeectl logs -f --job {JOB}"
    assert ("start", HIVE_UNIT) in elsewhere.bus.asked


def test_who_is_not_root_there_goes_by_sudo(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    elsewhere.uid = 1000
    elsewhere.play()
    assert with_queen(Queen().handlers, lambda: rbeectl("add-hive", "gpu1")).code == 0

    assert [(command.argv[0], command.is_by_sudo) for command in elsewhere.ran] == [
        ("install", True), ("setpriv", True),
    ]  # fmt: skip
    assert elsewhere.targets == {"gpu1"}


def test_the_queen_s_address_may_be_given_where_ssh_comes_from_another(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    arguments = ("add-hive", "gpu1", "--queen", "[fd00::1]:9000")
    assert with_queen(Queen().handlers, lambda: rbeectl(*arguments)).code == 0

    told = json.loads(elsewhere.ran[-1].content)
    assert (told["host"], told["port"]) == ("fd00::1", 9000)


def test_a_hive_of_this_queen_that_is_silent_is_only_started(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    elsewhere.is_a(**MEMBER)
    queen = Queen(replace(GPU1, state="offline"))
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1"))

    assert ran.code == 0
    assert queen.tokens == []
    assert elsewhere.programs == ["setpriv"]  # which reads its membership
    assert elsewhere.bus.asked == RESTARTED


def test_a_hive_that_dials_elsewhere_is_given_the_new_address_and_keeps_its_credential(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.is_a(**{**MEMBER, "host": "10.0.0.9"})

    def reach(_ssh: Any, host: str, *_asked: Any) -> str:
        return "No route to host" if host == "10.0.0.9" else ""

    monkeypatch.setattr(rbee.keeper.fleet.find_queen, "try_from_there", reach)
    monkeypatch.setattr(rbee.keeper.fleet.bring, "try_from_there", reach)
    queen = Queen(replace(GPU1, state="offline"))
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1"))

    assert ran.code == 0, ran
    assert "(bee keeper) handing gpu1 the queen's new address, 10.0.0.1:8500" in ran.out
    assert json.loads(elsewhere.ran[-1].content) == {
        "host": "10.0.0.1", "port": 8500, "name": None, "token": None,
    }  # fmt: skip
    assert queen.tokens == []
    assert elsewhere.bus.asked == [RESTARTED[0], *RESTARTED]


@pytest.mark.parametrize("state", ["offline", "online"])
def test_an_address_that_is_typed_is_handed_to_a_hive_that_has_joined_too(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere, state: Any
) -> None:
    elsewhere.is_a(**MEMBER)
    queen = Queen(replace(GPU1, state=state, last_beat_ms=1))
    assert with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", "--queen", "queen2")).code == 0

    told = json.loads(elsewhere.ran[-1].content)
    assert (told["host"], told["port"], told["token"]) == ("queen2", 8500, None)


def test_a_hive_that_is_online_is_not_restarted_for_the_address_that_it_has(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    elsewhere.is_a(**MEMBER)
    queen = Queen(replace(GPU1, state="online", last_beat_ms=1))
    assert with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", "--queen", "10.0.0.1")).code == 0

    assert elsewhere.bus.asked == []


def test_a_hive_that_cannot_follow_with_its_credential_is_given_a_token(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    elsewhere.is_a(**MEMBER)
    elsewhere.bus.passing["start", JOIN_UNIT] = UnitFailed("joining failed: it was removed")
    queen = Queen(replace(GPU1, state="offline"))
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", "--queen", "queen2"))

    assert ran.code == 0, ran
    assert "could not follow her there: joining failed: it was removed" in ran.out
    assert queen.tokens == [CreateToken(TOKEN_LIFE, 1, "gpu1")]
    assert json.loads(elsewhere.ran[-1].content)["token"] == TEXT


def test_a_hive_whose_credential_is_refused_joins_anew(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    elsewhere.is_a(**MEMBER)
    queen = Queen(replace(GPU1, state="offline"), refuses=UnknownHive("it comes with another credential"))
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1"))

    assert ran.code == 0, ran
    assert len(queen.added) == 2
    assert queen.tokens == [CreateToken(TOKEN_LIFE, 1, "gpu1")]
    assert elsewhere.bus.asked == [*RESTARTED, *RESTARTED]


@pytest.mark.parametrize(
    ("is_known", "told"),
    [
        (True, {}),
        (True, {**MEMBER, "hive_id": "gpu2"}),
        (True, {**MEMBER, "ca": ssl.DER_cert_to_PEM_cert(b"another queen's")}),
        (True, {**MEMBER, "ca": "no certificate"}),
        (True, {"hive_id": "gpu1"}),
        (False, MEMBER),
    ],
    ids=["nobody's", "of another name", "another queen's", "no CA", "half", "not in the catalog"],
)
def test_a_membership_that_is_of_no_use_to_this_queen_gives_way_to_another(
    awake: Bus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    elsewhere: Elsewhere,
    is_known: bool,
    told: dict[str, Any],
) -> None:
    elsewhere.is_a(**told)
    queen = Queen(*[replace(GPU1, state="offline")] * is_known)

    assert with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1")).code == 0
    assert len(queen.tokens) == 1


# What keeps a machine from being brought


def failing(
    rbeectl: Rbeectl, with_queen: WithQueen, queen: Queen, elsewhere: Elsewhere, *options: str
) -> Ran:
    """How adding gpu1 failed; nothing was started there, no token made, nothing left of the connection."""
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", *options))
    assert queen.added == queen.tokens == []
    assert ("start", HIVE_UNIT) not in elsewhere.bus.asked
    assert list((elsewhere.folder / "tmp").iterdir()) == []
    return ran


def test_a_queen_who_is_closed_is_to_be_opened_before_anybody_is_called(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    queen = Queen(tcp=replace(OPEN, is_open=False, listens=()))
    ran = failing(rbeectl, with_queen, queen, elsewhere)

    assert ran.code == TcpClosed.exit_code
    assert ran.err == "rbeectl: the queen is not open to other machines\n  try: rbeectl tcp enable\n"
    assert list((elsewhere.folder / "noted").iterdir()) == []


def test_a_machine_that_ssh_does_not_reach_is_told_in_ssh_s_words(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    elsewhere.play(fails="login", says="gpu1: Name or service not known", status=255)
    ran = failing(rbeectl, with_queen, Queen(), elsewhere, "--user", "ada")

    assert ran.code == 1
    assert "ssh to ada@gpu1 failed: gpu1: Name or service not known" in ran.err
    assert "  try: ssh ada@gpu1\n" in ran.err


def test_a_machine_without_the_package_is_told_both_ways_to_install_it(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    elsewhere.bus.states[HIVE_UNIT] = NOT_FOUND
    ran = failing(rbeectl, with_queen, Queen(), elsewhere)

    assert ran.code == 1
    assert ran.err == (
        "rbeectl: rbee-hive is not installed on gpu1\n"
        "  try: With the packages in a folder here: rbeectl add-hive gpu1 --install FOLDER\n"
        "  try: Or on gpu1, with rbee's packages in this folder: "
        "sudo apt install ./python3-rbee_*.deb ./rbee-hive_*.deb\n"
    )


def test_a_machine_with_a_queen_of_its_own_is_left_alone(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    elsewhere.bus.states[QUEEN_UNIT] = INACTIVE
    ran = failing(rbeectl, with_queen, Queen(), elsewhere)

    assert ran.code == 1
    assert "gpu1 has a queen of its own" in ran.err
    assert "try: What that queen has: ssh -t gpu1 rbeectl list-hives\n" in ran.err
    assert "try: If nobody needs her any more: ssh -t gpu1 sudo apt remove rbee-queen" in ran.err
    assert elsewhere.programs == ["sh"]  # which reads whose machine it is


def test_an_address_of_hers_that_is_none_is_refused_by_its_option_and_makes_no_token(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    ran = failing(rbeectl, with_queen, Queen(), elsewhere, "--queen", "queen:0", "--json")

    assert (ran.code, ran.json[-1]["event"], ran.json[-1]["field"]) == (2, "error", "--queen")


@pytest.mark.parametrize("host", ["gpu 1", "user@gpu 1", "@gpu1", "a@b@gpu1 2", "-oProxyCommand=x", ""])
def test_a_host_that_can_have_no_such_name_is_refused_before_anybody_is_woken(
    bus: Bus, rbeectl: Rbeectl, elsewhere: Elsewhere, host: str
) -> None:
    ran = rbeectl("add-hive", "--", host)

    assert (ran.code, ran.out) == (2, "")
    assert "HOST must" in ran.err
    assert bus.asked == []


def test_a_hive_that_does_not_start_there_is_told_with_the_machine_s_name(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    elsewhere.bus.refusals["start", HIVE_UNIT] = UnitFailed(
        "it said: joining failed: the name is taken", hint="rbeectl list-hives"
    )
    queen = Queen()
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1"))

    assert (ran.code, queen.added) == (1, [])
    assert "rbeectl: on gpu1: it said: joining failed: the name is taken\n" in ran.err
    assert "  try: rbeectl list-hives\n" in ran.err


def test_a_hive_that_had_failed_there_may_start_again(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere
) -> None:
    elsewhere.bus.after_stop[HIVE_UNIT] = UnitState("loaded", "failed", "failed", result="exit-code")
    assert with_queen(Queen().handlers, lambda: rbeectl("add-hive", "gpu1")).code == 0

    assert [verb for verb, _ in elsewhere.bus.asked] == ["start", "stop", "reset-failed", "start"]


# Interrupted


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("find_queen", "nothing was changed on gpu1"),
        ("install", "an apt that was begun on gpu1 may go on there"),
        ("Visit._hand_over", "gpu1 has rbee-hive, and has not joined"),
        ("restart_hive", "the hive of gpu1 is what it was, or starts by itself as what it has become"),
    ],
)
def test_who_interrupts_it_is_told_what_goes_on_over_there(
    awake: Bus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    elsewhere: Elsewhere,
    packages: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    told: str,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"rbee.keeper.fleet.bring.{place}", interrupt)
    arguments = ("add-hive", "root@gpu1", "--install", str(packages))
    ran = with_queen(Queen().handlers, lambda: rbeectl(*arguments))

    assert ran.code == 130
    again = f"rbeectl add-hive root@gpu1 --install {packages}"
    assert ran.err == f"rbeectl: interrupted; {told}\n  try: To go on: {again}\n"


# Installing


@pytest.fixture
def packages(elsewhere: Elsewhere, tmp_path: Path) -> Path:
    """A folder with rbee's packages, for a machine that has none of them."""
    elsewhere.bus.states[HIVE_UNIT] = NOT_FOUND
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in ("python3-rbee", "rbeectl", "rbee-hive", "rbee-queen"):
        (folder / f"{name}_0.4.0_all.deb").write_text(f"the package {name}")
    return folder


def test_of_a_folder_the_packages_that_a_hive_needs_are_installed_and_taken_away_again(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere, packages: Path
) -> None:
    arguments = ("add-hive", "gpu1", "--install", str(packages))
    ran = with_queen(Queen().handlers, lambda: rbeectl(*arguments))

    assert ran.code == 0
    names = ["python3-rbee_0.4.0_all.deb", "rbee-hive_0.4.0_all.deb", "rbeectl_0.4.0_all.deb"]
    assert f"(bee keeper) installing {', '.join(names)} on gpu1\n" in ran.out
    programs = ["mktemp", "sh", "sh", "sh", "chmod", "env", "env", "rm", "install", "setpriv"]
    assert elsewhere.programs == programs
    copied = {command.argv[-1]: command.content for command in elsewhere.ran if command.argv[0] == "sh"}
    assert copied == {f"/tmp/there/{name}": f"the package {name.partition('_')[0]}" for name in names}
    hive, command = elsewhere.ran[5].argv, elsewhere.ran[6].argv
    assert "apt-get" in hive
    assert hive[-2:] == [f"/tmp/there/{name}" for name in names[:2]]
    # Which recommends a queen.
    assert command[-2:] == ["--no-install-recommends", f"/tmp/there/{names[2]}"]
    assert elsewhere.ran[7].argv[-1] == "/tmp/there"
    assert ("start", HIVE_UNIT) in elsewhere.bus.asked


@pytest.mark.parametrize("state", ["offline", "online"])
def test_where_the_package_is_installed_already_it_is_said_that_nothing_is(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere, packages: Path, state: Any
) -> None:
    elsewhere.bus.states[HIVE_UNIT] = INACTIVE
    elsewhere.is_a(**MEMBER)
    queen = Queen(replace(GPU1, state=state, last_beat_ms=1))
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", "--install", str(packages)))

    assert ran.code == 0, ran
    assert "(bee keeper) gpu1 has rbee-hive already: --install changes nothing there\n" in ran.out
    assert not any("apt-get" in command.argv for command in elsewhere.ran)


@pytest.mark.parametrize("name", ["rbeectl_0.4.0_all.deb", "python3-rbee_0.4.0_all.deb", ""])
def test_packages_that_make_no_hive_are_refused_before_anything_is_copied(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere, packages: Path, name: str
) -> None:
    (packages / "rbee-hive_0.4.0_all.deb").unlink()
    ran = failing(rbeectl, with_queen, Queen(), elsewhere, "--install", str(packages / name))

    assert (ran.code, elsewhere.programs) == (2, [])
    assert "does not have what makes a hive: the packages rbee-hive and python3-rbee\n" in ran.err


def test_a_hive_s_package_alone_that_apt_refuses_wants_the_other(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere, packages: Path
) -> None:
    elsewhere.play(fails="*apt-get*", says="E: Unmet dependencies", status=100)
    path = packages / "rbee-hive_0.4.0_all.deb"
    ran = failing(rbeectl, with_queen, Queen(), elsewhere, "--install", str(path))

    assert ran.code == 1
    assert "try: With the package python3-rbee in the folder, too: rbeectl add-hive " in ran.err


def test_a_package_that_is_not_there_is_named_before_anything_is_copied(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere, packages: Path
) -> None:
    arguments = ("add-hive", "gpu1", "--install", str(packages / "none"))
    ran = with_queen(Queen().handlers, lambda: rbeectl(*arguments))

    assert (ran.code, elsewhere.programs) == (2, [])
    assert f"rbeectl: {packages}/none cannot be read: No such file or directory\n" in ran.err


def test_an_installation_that_fails_is_told_and_leaves_no_package_there(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, elsewhere: Elsewhere, packages: Path
) -> None:
    elsewhere.play(fails="*apt-get*", says="E: Unmet dependencies", status=100)
    ran = failing(rbeectl, with_queen, Queen(), elsewhere, "--install", str(packages))

    assert ran.code == 1
    assert "E: Unmet dependencies" in ran.err
    assert elsewhere.programs[-1] == "rm"


@pytest.mark.parametrize("what", ["an empty folder", "no file"])
def test_what_is_no_package_is_refused_by_its_option(
    awake: Bus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    elsewhere: Elsewhere,
    packages: Path,
    tmp_path: Path,
    what: str,
) -> None:
    path = tmp_path / "nothing"
    if what == "an empty folder":
        path.mkdir()
    ran = failing(rbeectl, with_queen, Queen(), elsewhere, "--install", str(path), "--json")

    assert (ran.code, ran.json[-1]["field"]) == (2, "--install")
    assert str(path) in ran.json[-1]["detail"]


# Removing by force


@pytest.mark.parametrize(("options", "force"), [((), "0"), (("--force",), "1")], ids=["", "--force"])
def test_removing_says_to_the_queen_whether_it_is_by_force(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, options: tuple[str, ...], force: str
) -> None:
    asked: list[dict[str, str]] = []

    async def remove(request: Request) -> Any:
        asked.append(dict(request.query_params))
        return await story(BEGUN, ("done", encode(Done(None))))(request)

    handlers: dict[Route, Handler] = {QueenRoutes.REMOVE_HIVE: remove}
    told = with_queen(handlers, lambda: rbeectl("remove-hive", "gpu1", *options))
    read = with_queen(handlers, lambda: rbeectl("remove-hive", "gpu1", *options, "--json"))

    assert asked == [{"force": force}] * 2
    assert (told.code, told.out.splitlines()[-1]) == (0, "Hive gpu1 is removed")
    assert read.json[-1] == {"event": "done", "hive": None, "was_there": True}


def test_a_hive_that_cannot_be_told_is_kept_and_the_hint_is_force(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    refusal = HiveNotOnline("gpu1 cannot be told", hint="rbeectl remove-hive gpu1 --force")
    handlers = {QueenRoutes.REMOVE_HIVE: story(BEGUN, ("error", refusal.to_problem()))}
    ran = with_queen(handlers, lambda: rbeectl("remove-hive", "gpu1"))

    assert ran.code == HiveNotOnline.exit_code
    assert ran.err == "rbeectl: gpu1 cannot be told\n  try: rbeectl remove-hive gpu1 --force\n"


# What programs read, and who is woken


def answering(route: Route, answer: Any) -> dict[Route, Handler]:
    async def handler(_request: Request) -> Any:
        if isinstance(answer, RbeeError):
            raise answer
        return answer

    return {route: handler}


@pytest.mark.parametrize(
    ("arguments", "route", "answer", "told"),
    [
        (("label", "gpu1", "rack=3"), QueenRoutes.SET_LABELS, GPU1, {"event": "done", "hive": encode(GPU1)}),
        (("cordon", "gpu1", "why"), QueenRoutes.SET_CORDON, GPU1, {"event": "done", "hive": encode(GPU1)}),
        (("uncordon", "gpu1"), QueenRoutes.SET_CORDON, GPU1, {"event": "done", "hive": encode(GPU1)}),
        (("token", "revoke", TEXT), QueenRoutes.REVOKE_TOKEN, TOKEN, {"event": "done", **encode(TOKEN)}),
        (("token", "list"), QueenRoutes.TOKENS, Tokens((TOKEN,)), encode(Tokens((TOKEN,)))),
        (("audit",), QueenRoutes.AUDIT, Audit((ENTRY,)), encode(Audit((ENTRY,)))),
        (("tcp", "status"), QueenRoutes.TCP, OPEN, encode(OPEN)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_program_reads_the_answer_as_one_object(
    awake: Bus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    arguments: tuple[str, ...],
    route: Route,
    answer: Any,
    told: Any,
) -> None:
    ran = with_queen(answering(route, answer), lambda: rbeectl(*arguments, "--json"))

    assert (ran.code, ran.json, ran.err) == (0, [told], "")


def test_a_program_reads_the_token_with_what_is_known_of_it(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(Queen().handlers, lambda: rbeectl("token", "create", "--json"))

    assert ran.json == [encode(CreatedToken(TEXT, TOKEN))]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("label", "gpu 1", "a=b"), "HIVE"),
        (("label", "gpu1", "a b=1"), "KEY"),
        (("label", "gpu1", "a=b c"), "VALUE"),
        (("label", "gpu1", "x"), "KEY"),
        (("cordon", "gpu 1", "why"), "HIVE"),
        (("cordon", "gpu1", "\t"), "REASON"),
        (("uncordon", "gpu 1"), "HIVE"),
        (("audit", "gpu 1"), "HIVE"),
        (("token", "create", "--ttl", "31d"), "--ttl"),
        (("token", "create", "--hive", "gpu 1"), "--hive"),
        (("token", "revoke", "0123"), "TOKEN"),
        (("join", "queen:0"), "QUEEN"),
        (("join", "queen", "--name", "gpu 1"), "--name"),
        (("join", "queen", "--token", "secret"), "token"),
        (("tcp", "enable", "--listen", "queen"), "--listen"),
        (("remove-hive", "gpu 1", "--force"), "HIVE"),
        (("list-hives", "-l", "a b"), "-l"),
        (("list-devices", "-l", ""), "-l"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_a_program_reads_which_input_was_wrong_and_nobody_is_woken(
    bus: Bus, rbeectl: Rbeectl, arguments: tuple[str, ...], named: str
) -> None:
    ran = rbeectl("--json", *arguments)

    (told,) = ran.json
    assert (ran.code, told["event"], told["status"], told["field"]) == (2, "error", 400, named)
    assert "secret" not in ran.out + ran.err
    assert bus.asked == []


@pytest.mark.parametrize(
    "arguments",
    [("audit",), ("token", "list"), ("tcp", "status"), ("list-hives", "-l", "rack")],
    ids=" ".join,
)
def test_looking_wakes_nobody(bus: Bus, rbeectl: Rbeectl, arguments: tuple[str, ...]) -> None:
    ran = rbeectl(*arguments)

    assert (ran.code, ran.out) == (3, "")
    assert ran.err == "rbeectl: the queen is asleep; looking does not wake her\n  try: rbeectl wake\n"
    assert bus.asked == []


@pytest.mark.parametrize(
    ("arguments", "route", "answer"),
    [
        (("label", "gpu1", "rack=3"), QueenRoutes.SET_LABELS, GPU1),
        (("cordon", "gpu1", "why"), QueenRoutes.SET_CORDON, GPU1),
        (("uncordon", "gpu1"), QueenRoutes.SET_CORDON, GPU1),
        (("token", "revoke", "0123abcd"), QueenRoutes.REVOKE_TOKEN, TOKEN),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_changing_wakes_her_and_quietly_says_nothing(
    bus: Bus, rbeectl: Rbeectl, with_queen: WithQueen, arguments: tuple[str, ...], route: Route, answer: Any
) -> None:
    ran = with_queen(answering(route, answer), lambda: rbeectl(*arguments, "--quiet"))

    assert ran == Ran(0, "", "")
    assert bus.asked == [("start", QUEEN_UNIT)]


def test_what_there_is_none_of_is_said_to_people_alone(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    handlers = {**answering(QueenRoutes.TOKENS, Tokens(())), **answering(QueenRoutes.AUDIT, Audit(()))}

    assert with_queen(handlers, lambda: rbeectl("token", "list")).out == (
        "No tokens. Make one: rbeectl token create\n"
    )
    assert with_queen(handlers, lambda: rbeectl("audit")).out == "No changes yet\n"
    assert with_queen(handlers, lambda: rbeectl("audit", "-n", "0")).out == ""
    for arguments in (("token", "list"), ("audit",)):
        ran = with_queen(handlers, lambda arguments=arguments: rbeectl(*arguments, "--no-legend"))
        assert ran == Ran(0, "", "")


@pytest.mark.parametrize(
    ("arguments", "route", "refusal"),
    [
        (
            ("token", "create"),
            QueenRoutes.CREATE_TOKEN,
            TcpClosed("the queen is not open", hint="rbeectl tcp enable"),
        ),
        (
            ("token", "revoke", "0123abcd"),
            QueenRoutes.REVOKE_TOKEN,
            UnknownToken("there is no token 0123abcd", hint="rbeectl token list"),
        ),
    ],
    ids=["create", "revoke"],
)
def test_what_she_refuses_is_told_with_its_cure_and_its_exit_code(
    awake: Bus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    arguments: tuple[str, ...],
    route: Route,
    refusal: RbeeError,
) -> None:
    ran = with_queen(answering(route, refusal), lambda: rbeectl(*arguments))

    assert (ran.code, ran.out) == (refusal.exit_code, "")
    assert ran.err == f"rbeectl: {refusal.message}\n  try: {refusal.hint}\n"


# Joining, from the machine


@pytest.fixture
def state(bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of a hive, on a machine without a queen; for root."""
    folder = tmp_path / "state"
    bus.states |= {QUEEN_UNIT: NOT_FOUND, HIVE_UNIT: INACTIVE}
    monkeypatch.setattr(rbee.keeper.fleet.join, "STATE", str(folder))
    monkeypatch.setattr(rbee.keeper.fleet.join, "INVITATION", str(folder / "invitation"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    account = SimpleNamespace(pw_uid=os.getuid(), pw_gid=os.getgid())
    monkeypatch.setattr(rbee.keeper.fleet.join, "pwd", SimpleNamespace(getpwnam=lambda name: account))
    # A queen who is there, with the keys that the token is of.
    monkeypatch.setattr(rbee.keeper.fleet.reach, "connect", lambda *_asked: socket.socket())
    monkeypatch.setattr(rbee.keeper.fleet.reach, "check_keys", lambda *_asked: None)
    return folder


def taking_up(bus: Bus, state: Path, invitations: list[Any]) -> Any:
    """rbee-hive-join.service, which takes up an invitation, and then there is a membership."""
    start = bus.start

    def started(unit: str, **options: Any) -> None:
        start(unit, **options)
        if unit != JOIN_UNIT:
            return
        told = json.loads((state / "invitation").read_text())
        invitations.append(told)
        (state / "invitation").unlink()
        head = {"hive_id": "gpu1", "host": told["host"], "port": told["port"]}
        (state / "membership").write_text(f"# {json.dumps(head)}\n")

    return started


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_token_may_come_by_stdin_where_no_command_line_shows_it(
    bus: Bus, rbeectl: Rbeectl, state: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    invitations: list[Any] = []
    monkeypatch.setattr(bus, "start", taking_up(bus, state, invitations))
    monkeypatch.setattr(sys, "stdin", stdin_of(f"{mark}{TEXT}\r\n".encode()))

    assert rbeectl("join", "queen.example", "--token", "-").code == 0
    assert invitations == [{"host": "queen.example", "port": 8500, "name": None, "token": TEXT}]
    assert state.stat().st_mode & 0o777 == 0o700


def test_an_invitation_that_cannot_be_written_is_named_and_the_hive_runs_on(
    bus: Bus, rbeectl: Rbeectl, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)

    ran = rbeectl("join", "queen.example", "--token", TEXT)

    assert (ran.code, bus.asked, os.listdir(state)) == (1, [], [])
    assert ran.err == (
        f"rbeectl: {state}/invitation cannot be written: No space left on device\n  try: df -h {state}\n"
    )


def test_a_token_that_an_editor_saved_in_utf_16_is_called_so(
    bus: Bus, rbeectl: Rbeectl, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin_of(f"{TEXT}\n".encode("utf-16")))

    ran = rbeectl("join", "queen.example", "--token", "-")

    assert (ran.code, bus.asked) == (2, [])
    assert "--token: what stdin has is no token: it is text in UTF-16, and must be UTF-8" in ran.err


def stdin_of(content: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content))


def test_a_hive_follows_its_queen_without_a_token(
    bus: Bus, rbeectl: Rbeectl, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invitations: list[Any] = []
    monkeypatch.setattr(bus, "start", taking_up(bus, state, invitations))
    state.mkdir()
    (state / "membership").write_text('# {"hive_id": "gpu1", "host": "old", "port": 8500}\n')
    ran = rbeectl("join", "10.0.0.9:9000")

    assert (ran.code, ran.out.splitlines()) == (0, [
        "(bee keeper) reaching the queen at 10.0.0.9:9000",
        "(bee keeper) following the queen to 10.0.0.9 with the key that this hive has",
        "(bee keeper) starting rbee-hive.service",
        "This machine is the hive gpu1 of the queen at 10.0.0.9:9000",
    ])  # fmt: skip
    assert invitations == [{"host": "10.0.0.9", "port": 9000, "name": None, "token": None}]


def test_a_hive_that_could_not_join_is_told_in_its_own_words(bus: Bus, rbeectl: Rbeectl, state: Path) -> None:
    bus.refusals["start", HIVE_UNIT] = UnitFailed(
        "it said: joining failed: the token has expired", hint="rbeectl token create"
    )
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert (ran.code, ran.out.splitlines()[-1]) == (1, "(bee keeper) starting rbee-hive.service")
    assert ran.err == (
        "rbeectl: it said: joining failed: the token has expired\n  try: rbeectl token create\n"
    )
