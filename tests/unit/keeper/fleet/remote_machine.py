"""A machine that ssh reaches, and a queen whom it can join: ssh, systemd there and the queen are doubles."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request

from rbee import tls
from rbee.errors import RbeeError
from rbee.scope import HIVE_UNIT, JOIN_UNIT
from rbee.server.app import Handler
from rbee.systemd.unit import UnitState
from rbee.wire.catalog import AuditEntry
from rbee.wire.codec import decode, encode
from rbee.wire.fleet import CreatedToken, CreateToken, Tcp, TokenView
from rbee.wire.hives import HiveView, Label
from rbee.wire.jobs import Done, JobStarted
from rbee.wire.routes import QueenRoutes, Route
from tests.unit.keeper.doubles import BEGUN, JOB, Ran, Rbeectl, WithQueen, line, listing, story
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW

CA = ssl.DER_cert_to_PEM_cert(b"the certificate of the queen's CA")

FINGERPRINT = tls.fingerprint(CA)

TEXT = f"0123abcd.{'A' * 32}.{FINGERPRINT}"

TOKEN = TokenView("0123abcd", "gpu1", 1, 1_700_000_000_000, 4_000_000_000_000, False)

GPU1 = HIVE_VIEW._replace(
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
class RemoteMachine:
    """The other machine. `fails` is a pattern of the shell for the command that exits with `status`."""

    folder: Path
    bus: PlayedBus = field(default_factory=PlayedBus)
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


def failing(
    rbeectl: Rbeectl, with_queen: WithQueen, queen: Queen, remote: RemoteMachine, *options: str
) -> Ran:
    """How adding gpu1 failed; nothing was started there, no token made, nothing left of the connection."""
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", *options))
    assert queen.added == queen.tokens == []
    assert ("start", HIVE_UNIT) not in remote.bus.asked
    assert list((remote.folder / "tmp").iterdir()) == []
    return ran
