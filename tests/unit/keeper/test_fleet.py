"""rbeectl about other machines: opening the queen, joining, marks, tokens and the audit."""

from __future__ import annotations

import errno
import json
import os
import pwd
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

import rbee.keeper.fleet.address
import rbee.keeper.fleet.invitation
import rbee.keeper.fleet.join
import rbee.keeper.fleet.reach
import rbee.keeper.fleet.tcp
from rbee.contracts import (
    Audit,
    AuditEntry,
    CreatedToken,
    CreateToken,
    Label,
    QueenRoutes,
    Route,
    SetCordon,
    SetLabels,
    SetTcp,
    Tcp,
    Tokens,
    TokenView,
    decode,
)
from rbee.errors import BadInput, JobReplaced, TimedOut, UnitFailed, UnknownHive
from rbee.keeper.fleet.address import parse_address
from rbee.scope import HIVE_UNIT, JOIN_UNIT, QUEEN_UNIT, REDIAL_UNIT, TCP_SOCKET_UNIT
from rbee.server.app import Handler
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import Bus, Rbeectl, WithQueen, listing
from tests.unit.played_systemd import ACTIVE, INACTIVE
from tests.unit.shapes import HIVE_VIEW

FINGERPRINT = "f" * 64
TEXT = f"0123abcd.{'A' * 32}.{FINGERPRINT}"
TOKEN = TokenView("0123abcd", None, 1, 1_700_000_000_000, 4_000_000_000_000, False)
REMOTE = replace(HIVE_VIEW, id="gpu1", host="gpu1", is_remote=True, address="10.0.0.1")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("queen", ("queen", 8500)),
        ("queen.example:9000", ("queen.example", 9000)),
        ("10.0.0.1", ("10.0.0.1", 8500)),
        ("[fd00::1]", ("fd00::1", 8500)),
        ("[fd00::1]:9000", ("fd00::1", 9000)),
        ("queen.lan.:9000", ("queen.lan.", 9000)),
        ("queen.lan.", ("queen.lan.", 8500)),
    ],
)
def test_an_address_is_a_host_and_perhaps_a_port(text: str, found: tuple[str, int]) -> None:
    assert parse_address(text, field="QUEEN") == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":8500",
        "queen:",
        "queen:x",
        "queen:0",
        "queen:65536",
        "a b",
        "fd00::1",
        "[x]:1",
        "a:1:2",
        "ü",
        "a/b",
        "-queen",
        ".queen",
        "queen..lan",
        "queen.lan..",
        "x" * 64,
        "[]:1",
        "[fe80::1",
    ],
)
def test_what_is_no_address_is_refused_by_its_field(text: str) -> None:
    with pytest.raises(BadInput, match="QUEEN must") as caught:
        parse_address(text, field="QUEEN")
    assert caught.value.field == "QUEEN"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("::", "have an IPv6 address in brackets: [::]:8500"),
        ("fe80::1", "have an IPv6 address in brackets: [fe80::1]:8500"),
        ("fd00:0:0:0:0:0:0:1:9000", "have an IPv6 address in brackets: [fd00::1]:9000"),
        (
            ":8500",
            "be HOST:PORT, such as queen.example:8500 or [fd00::1]:8500, and has no host; "
            "all addresses are 0.0.0.0 or [::]",
        ),
    ],
)
def test_who_leaves_out_the_brackets_or_the_host_is_told_so(text: str, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_address(text, field="--listen")
    assert caught.value.message == f"--listen must {told}"


# Opening the queen


class Opened:
    """A queen who is open or not, as the played systemd starts her."""

    def __init__(self, bus: Bus, *, is_open: bool = False) -> None:
        self._bus = bus
        self.listens = self._is_open = is_open
        self.asked: list[SetTcp] = []
        restart = bus.restart

        def restarted(unit: str, **options: Any) -> None:
            restart(unit, **options)
            self.listens = bool(self.asked) and self.asked[-1].is_open

        bus.restart = restarted  # type: ignore[method-assign]

    @property
    def handlers(self) -> dict[Route, Handler]:
        async def set_tcp(request: Request) -> Tcp:
            self.asked.append(decode(SetTcp, json.loads(await request.body())))
            return self._tcp()

        async def tcp(_request: Request) -> Tcp:
            return self._tcp()

        return {QueenRoutes.SET_TCP: set_tcp, QueenRoutes.TCP: tcp}

    def _tcp(self) -> Tcp:
        wanted = self.asked[-1].is_open if self.asked else self._is_open
        return Tcp(wanted, ("[::]:8500",) if self.listens else (), FINGERPRINT, 4_000_000_000_000)


def test_enabling_restarts_her_with_the_socket_and_says_so_first(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = ["10.9.9.9", "10.0.0.5", "fd00::5"]
    monkeypatch.setattr(rbee.keeper.fleet.address, "own_addresses", lambda: addresses)
    monkeypatch.setattr(rbee.keeper.fleet.address, "_way_out", lambda: "10.0.0.5")
    queen = Opened(awake)
    ran = with_queen(queen.handlers, lambda: rbeectl("tcp", "enable"))

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "(bee keeper) queen is awake and healthy.",
        "(bee keeper) restarting the queen with her TCP socket; hives reconnect",
        f"The queen listens on [::]:8500; fingerprint {FINGERPRINT}",
        "On the machine that is to join: sudo rbeectl join 10.0.0.5:8500 --token TOKEN",
        "Where it does not reach 10.0.0.5:8500, one of: 10.9.9.9:8500 [fd00::5]:8500",
        "For a TOKEN: rbeectl token create",
    ]
    assert awake.asked == [("restart", QUEEN_UNIT)]
    assert queen.asked == [SetTcp(True)]


def test_enabling_twice_restarts_nobody(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(Opened(awake, is_open=True).handlers, lambda: rbeectl("tcp", "enable", "--json"))

    assert ran.json[-1] == {
        "event": "done", "is_open": True, "listens": ["[::]:8500"], "fingerprint": FINGERPRINT,
        "expires_ms": 4_000_000_000_000, "problem": None,
    }  # fmt: skip
    assert awake.asked == []


def test_disabling_restarts_her_without_the_socket(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(Opened(awake, is_open=True).handlers, lambda: rbeectl("tcp", "disable"))

    assert ran.out.splitlines()[-1] == "The queen listens on her own machine alone"
    assert awake.asked == [("restart", QUEEN_UNIT)]


def test_a_socket_that_does_not_open_is_named_with_where_to_look(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    queen = Opened(awake)

    def restart(unit: str, **options: Any) -> None:
        Bus.restart(awake, unit, **options)
        awake.states[TCP_SOCKET_UNIT] = UnitState("loaded", "failed", "failed", result="resources")

    awake.restart = restart  # type: ignore[method-assign]
    ran = with_queen(queen.handlers, lambda: rbeectl("tcp", "enable"))

    assert ran.code == 1
    assert f"{TCP_SOCKET_UNIT} is failed (resources); the queen listens on her own machine alone" in ran.err
    # She is not left half-open, to try it again at her next start.
    assert queen.asked == [SetTcp(True), SetTcp(False)]
    assert f"try: systemctl status {TCP_SOCKET_UNIT}" in ran.err


def test_another_address_is_a_drop_in_that_is_whole(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropin = tmp_path / "queen-rbee-tcp.socket.d/50-listen.conf"
    monkeypatch.setattr(rbee.keeper.fleet.tcp, "DROPIN", dropin)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    awake.reload = lambda: awake.asked.append(("reload", ""))  # type: ignore[attr-defined]
    queen = Opened(awake, is_open=True)

    for listen, line in (("127.0.0.1:9001", "127.0.0.1:9001"), ("[::1]", "[::1]:8500")):
        awake.asked.clear()
        ran = with_queen(queen.handlers, lambda listen=listen: rbeectl("tcp", "enable", "--listen", listen))
        assert ran.code == 0, ran
        assert dropin.read_text().splitlines()[1:] == ["[Socket]", "ListenStream=", f"ListenStream={line}"]
        assert os.listdir(dropin.parent) == ["50-listen.conf"]
        assert [verb for verb, _ in awake.asked] == ["reload", "restart"]
    awake.asked.clear()
    assert with_queen(queen.handlers, lambda: rbeectl("tcp", "enable", "--listen", "[::1]")).code == 0
    assert awake.asked == []


@pytest.mark.parametrize("before", [None, "[Socket]\nListenStream=\nListenStream=127.0.0.1:9000\n"])
@pytest.mark.parametrize("breaks", ["reload", "restart", "socket"])
def test_an_address_that_does_not_work_leaves_the_queen_listening_as_before(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    before: str | None, breaks: str,
) -> None:  # fmt: skip
    dropin = tmp_path / "50-listen.conf"
    if before is not None:
        dropin.write_text(before)
    monkeypatch.setattr(rbee.keeper.fleet.tcp, "DROPIN", dropin)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    queen = Opened(awake, is_open=True)
    works = awake.restart

    def is_new() -> bool:
        return dropin.exists() and "9001" in dropin.read_text()

    def reload() -> None:
        if breaks == "reload" and is_new():
            raise UnitFailed("reloading the unit files: no memory")

    def restart(unit: str, **options: Any) -> None:
        if breaks == "restart" and is_new():
            raise UnitFailed("it did not start")
        works(unit, **options)
        queen.listens = not is_new()

    awake.reload = reload  # type: ignore[attr-defined]
    awake.restart = restart  # type: ignore[method-assign]
    ran = with_queen(queen.handlers, lambda: rbeectl("tcp", "enable", "--listen", "127.0.0.1:9001"))

    assert ran.code == 1
    assert "; the queen listens on [::]:8500, as before" in ran.err
    assert (dropin.read_text() if dropin.exists() else None) == before


def test_an_address_where_nobody_can_listen_is_refused_before_anything_is_changed(
    bus: Bus, rbeectl: Rbeectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.fleet.tcp, "DROPIN", tmp_path / "50-listen.conf")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    # TEST-NET-1, which no machine has.
    ran = rbeectl("tcp", "enable", "--listen", "192.0.2.1:9000")
    assert (ran.code, ran.out) == (2, "")
    assert "this machine does not have the address 192.0.2.1" in ran.err
    assert "  try: ip -brief address\n" in ran.err
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = rbeectl("tcp", "enable", "--listen", f"127.0.0.1:{port}")
    assert ran.code == 2
    assert f"another program listens on port {port} already" in ran.err
    assert list(tmp_path.iterdir()) == []
    assert bus.asked == []


@pytest.mark.parametrize(
    ("listen", "code", "words"),
    [
        ("queen:9000", 2, "--listen must have an IP address"),
        ("999.1.1.1", 2, "--listen must have an IP address"),
        ("1.2:9000", 2, "--listen must have an IP address"),
        ("10.0.0.1:99999", 2, "--listen must have a port"),
        ("10.0.0.1:9000", 77, "try: sudo rbeectl tcp enable --listen 10.0.0.1:9000"),
    ],
)
def test_an_address_that_cannot_be_set_is_refused_before_anybody_is_woken(
    bus: Bus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch, listen: str, code: int, words: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ran = rbeectl("tcp", "enable", "--listen", listen)

    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert bus.asked == []


def test_her_status_is_shown_and_wakes_nobody(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(Opened(awake, is_open=True).handlers, lambda: rbeectl("tcp", "status"))

    lines = [line.strip() for line in ran.out.splitlines()]
    assert lines[1:3] == ["Listening: [::]:8500", f"Fingerprint: {FINGERPRINT}"]
    awake.states[QUEEN_UNIT] = INACTIVE
    assert rbeectl("tcp", "status").code == 3
    assert awake.asked == []


def test_keys_with_which_nobody_can_join_are_named(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def tcp(_request: Request) -> Tcp:
        return Tcp(True, ("[::]:8500",), FINGERPRINT, 4_000_000_000_000, "the CA is not valid before 2027")

    handlers: dict[Route, Handler] = {QueenRoutes.TCP: tcp, QueenRoutes.SET_TCP: tcp}
    shown = with_queen(handlers, lambda: rbeectl("tcp", "status"))
    assert shown.out.splitlines()[-1].strip() == (
        "Problem: the CA is not valid before 2027. Try: sudo rbeectl doctor"
    )
    told = with_queen(handlers, lambda: rbeectl("tcp", "status", "--json")).json[0]
    assert told["problem"] == "the CA is not valid before 2027"
    opened = with_queen(handlers, lambda: rbeectl("tcp", "enable"))
    assert "Nobody can join: the CA is not valid before 2027. Try: sudo rbeectl doctor" in opened.out


# Tokens


def test_a_token_is_printed_alone_for_who_reads_it_by_a_pipe(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    asked: list[CreateToken] = []

    async def create(request: Request) -> CreatedToken:
        asked.append(decode(CreateToken, json.loads(await request.body())))
        return CreatedToken(TEXT, TOKEN)

    handlers = {**Opened(awake, is_open=True).handlers, QueenRoutes.CREATE_TOKEN: create}
    assert with_queen(handlers, lambda: rbeectl("token", "create")).out == f"{TEXT}\n"
    options = ("--ttl", "2h 30min", "--uses", "20", "--hive", "gpu1", "--quiet")
    assert with_queen(handlers, lambda: rbeectl("token", "create", *options)).out == f"{TEXT}\n"
    assert asked == [CreateToken(3600, 1, None), CreateToken(9000, 20, "gpu1")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ttl", "31d"), "--ttl must be from 1s to 30d"),
        (("--ttl", "10ms"), "--ttl must be from 1s to 30d"),
        (("--ttl", "soon"), "is not a time span"),
        (("--uses", "0"), "--uses"),
        (("--hive", "a b"), "--hive must be made of"),
    ],
)
def test_a_token_that_cannot_be_made_is_refused_by_its_option(
    bus: Bus, rbeectl: Rbeectl, options: tuple[str, ...], words: str
) -> None:
    ran = rbeectl("token", "create", *options)

    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert bus.asked == []


def test_tokens_are_listed_with_what_has_become_of_them(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    kept = (
        TOKEN,
        replace(TOKEN, id="00000001", hive="gpu1", uses_left=0),
        replace(TOKEN, id="00000002", expires_at_ms=1_700_000_000_001),
        replace(TOKEN, id="00000003", is_revoked=True),
    )

    async def tokens(_request: Request) -> Tokens:
        return Tokens(kept)

    ran = with_queen({QueenRoutes.TOKENS: tokens}, lambda: rbeectl("token", "list", "--no-legend"))
    assert [line.split()[:4] for line in ran.out.splitlines()] == [
        ["0123abcd", "good", "any", "1"],
        ["00000001", "spent", "gpu1", "0"],
        ["00000002", "expired", "any", "1"],
        ["00000003", "revoked", "any", "1"],
    ]


def test_a_token_is_revoked_by_its_id_or_its_text(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def revoke(request: Request) -> TokenView:
        return replace(TOKEN, id=request.path_params["token_id"], is_revoked=True)

    for given in ("0123abcd", TEXT):
        ran = with_queen(
            {QueenRoutes.REVOKE_TOKEN: revoke}, lambda given=given: rbeectl("token", "revoke", given)
        )
        assert ran.out == "Token 0123abcd is revoked\n"
    assert rbeectl("token", "revoke", "nonsense").code == 2


# Marks, and who did what


def changing(route: Route, shape: Any, asked: list[Any]) -> dict[Route, Handler]:
    async def handler(request: Request) -> Any:
        if request.path_params["hive_id"] != "gpu1":
            raise UnknownHive("hive 'gpu9' is not in the hive catalog")
        body = decode(shape, json.loads(await request.body()))
        asked.append(body)
        return replace(REMOTE, labels=getattr(body, "set", ()), cordoned=getattr(body, "reason", None))

    return {route: handler}


def test_labels_are_set_and_taken_away(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    asked: list[Any] = []
    handlers = changing(QueenRoutes.SET_LABELS, SetLabels, asked)
    ran = with_queen(handlers, lambda: rbeectl("label", "gpu1", "rack=3", "spare=", "old-"))

    assert ran.out == "Hive gpu1 has the labels rack=3,spare=\n"
    assert asked == [SetLabels((Label("rack", "3"), Label("spare", "")), ("old",))]
    assert with_queen(handlers, lambda: rbeectl("label", "gpu9", "a=b")).code == 4


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("c",), "'c' is neither KEY=VALUE nor KEY-"),
        (("=3",), "KEY must have 1 to 63 characters"),
        (("a=ü",), "VALUE must be empty, or made of"),
        (("a b=1",), "KEY must be made of"),
        ((f"{'x' * 64}=1",), "KEY must have 1 to 63 characters"),
    ],
)
def test_what_is_no_label_is_refused(bus: Bus, rbeectl: Rbeectl, words: tuple[str, ...], told: str) -> None:
    ran = rbeectl("label", "gpu1", *words)

    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert bus.asked == []


def test_a_cordon_has_a_reason(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    asked: list[Any] = []
    handlers = changing(QueenRoutes.SET_CORDON, SetCordon, asked)

    assert with_queen(handlers, lambda: rbeectl("cordon", "gpu1", "a fan is loud")).out == (
        "Hive gpu1 is cordoned: a fan is loud\n"
    )
    assert with_queen(handlers, lambda: rbeectl("uncordon", "gpu1")).out == "Hive gpu1 is not cordoned\n"
    assert asked == [SetCordon("a fan is loud"), SetCordon(None)]
    assert "REASON must say something" in rbeectl("cordon", "gpu1", " ").err
    assert "REASON must have 0 to 2000 characters" in rbeectl("cordon", "gpu1", "x" * 2001).err


def test_the_audit_says_when_who_and_what(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    entries = (
        AuditEntry(1, 1_700_000_000_000, "token 0123abcd was made, for 1 use", None, 0, None, None),
        AuditEntry(2, 1_700_000_000_000, "hive gpu1 joined\x1b[31m", "gpu1", None, "c" * 16, None),
        AuditEntry(3, 1_700_000_000_000, "hive gpu1 is cordoned", "gpu1", 4_000_000, None, None),
    )
    queries: list[str] = []

    async def audit(request: Request) -> Audit:
        queries.append(request.url.query)
        return Audit(entries)

    ran = with_queen({QueenRoutes.AUDIT: audit}, lambda: rbeectl("audit", "gpu1", "-n", "5", "--no-legend"))
    assert [line[:4] for line in ran.out.splitlines()] == ["Tue "] * 3
    assert f"uid 0 ({pwd.getpwuid(0).pw_name})" in ran.out
    assert f"credential {'c' * 16}" in ran.out
    assert "uid 4000000 " in ran.out
    assert "\x1b" not in ran.out
    assert queries == ["limit=5&hive=gpu1"]


# Selecting, and removing by force


def test_lists_take_a_selector(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    hives = listing(HIVE_VIEW, replace(REMOTE, labels=(Label("rack", "3"),)))

    ran = with_queen(hives, lambda: rbeectl("list-hives", "-l", "rack=3", "--no-legend"))
    assert [line.split()[0] for line in ran.out.splitlines()] == ["gpu1"]
    assert (
        with_queen(hives, lambda: rbeectl("list-hives", "-l", "rack=4")).out == "No hive has these labels\n"
    )
    assert (
        with_queen(hives, lambda: rbeectl("list-devices", "-l", "rack=4")).out == "No hive has these labels\n"
    )


# Joining


@pytest.fixture
def joining(bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with rbee-hive and without a queen, for root; where the hive keeps its state."""
    bus.states |= {QUEEN_UNIT: UnitState("not-found", "inactive", "dead"), HIVE_UNIT: INACTIVE}
    monkeypatch.setattr(rbee.keeper.fleet.join, "STATE", str(tmp_path))
    monkeypatch.setattr(rbee.keeper.fleet.join, "INVITATION", str(tmp_path / "invitation"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    account = SimpleNamespace(pw_uid=os.getuid(), pw_gid=os.getgid())
    monkeypatch.setattr(rbee.keeper.fleet.join.pwd, "getpwnam", lambda name: account)
    # A queen who is there, with the keys that the token is of.
    monkeypatch.setattr(rbee.keeper.fleet.reach, "connect", lambda *_asked: socket.socket())
    monkeypatch.setattr(rbee.keeper.fleet.reach, "check_keys", lambda *_asked: None)
    return tmp_path


LOOKING = """\
(bee keeper) reaching the queen at queen:8500
(bee keeper) comparing her keys with those that the token is of
(bee keeper) joining the queen at queen with the token
"""


STILL = UnitState("loaded", "active", "running", status_text="queen at queen:8500, last beat 12:00:00 UTC")


def hive_joins(bus: Bus, state: Path) -> Callable[..., None]:
    """rbee-hive-join.service, which takes an invitation up, and the hive, which is what came of it."""
    start = bus.start

    def started(unit: str, **options: Any) -> None:
        start(unit, **options)
        invitation = state / "invitation"
        if unit == JOIN_UNIT:
            bus.states[unit] = INACTIVE
            assert invitation.stat().st_mode & 0o777 == 0o600
            told = json.loads(invitation.read_text())
            assert told["token"] == TEXT
            head = {"hive_id": told["name"] or "gpu1", "host": told["host"], "port": told["port"], "ca": "x"}
            (state / "membership.new").write_text(f"# {json.dumps(head)}\nkey\n")
            invitation.unlink()
        else:
            (state / "membership.new").rename(state / "membership")

    return started


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_an_operator_whose_job_another_replaced_starts_the_hive_as_the_other_does(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    bus.states |= {JOIN_UNIT: INACTIVE, REDIAL_UNIT: INACTIVE}
    replaced = [JobReplaced("somebody else has it stopped")]
    do = getattr(bus, verb)

    def done(unit: str, **options: Any) -> None:
        do(unit, **options)
        if unit == HIVE_UNIT and replaced:
            raise replaced.pop()

    monkeypatch.setattr(bus, verb, done)

    rbee.keeper.fleet.invitation.restart_hive(bus, lambda most: most)

    assert replaced == []
    assert bus.states[HIVE_UNIT] == ACTIVE


def test_joining_hands_over_an_invitation_and_starts_the_hive_once_that_was_taken_up(
    bus: Bus, rbeectl: Rbeectl, joining: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "start", hive_joins(bus, joining))
    bus.states[HIVE_UNIT] = UnitState("loaded", "failed", "failed", result="exit-code")
    bus.after_stop[HIVE_UNIT] = bus.states[HIVE_UNIT]
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        f"{LOOKING}(bee keeper) starting rbee-hive.service\n"
        "This machine is the hive gpu1 of the queen at queen:8500\n"
    )
    assert bus.asked == [
        ("start", JOIN_UNIT), ("stop", HIVE_UNIT), ("reset-failed", HIVE_UNIT), ("start", HIVE_UNIT),
    ]  # fmt: skip
    told = rbeectl("join", "queen:9000", "--token", TEXT, "--name", "blade", "--json").json[-1]
    assert told == {"event": "done", "hive_id": "blade", "queen": "queen:9000"}


def test_a_hive_of_a_version_that_takes_it_up_itself_is_only_started(
    bus: Bus, rbeectl: Rbeectl, joining: Path
) -> None:
    bus.states[JOIN_UNIT] = UnitState("not-found", "inactive", "dead")
    (joining / "membership").write_text('# {"hive_id": "gpu1", "host": "queen", "port": 8500}\n')

    assert rbeectl("join", "queen").code == 0
    assert bus.asked == [("stop", HIVE_UNIT), ("start", HIVE_UNIT)]


def test_a_hive_s_folder_that_is_read_only_is_not_said_to_be_missing(
    bus: Bus, rbeectl: Rbeectl, joining: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(rbee.keeper.fleet.join.os, "chown", refuse)

    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.code == 1
    assert f"{joining}/invitation cannot be written: Read-only file system" in ran.err
    assert f"-T {joining})" in ran.err


def test_a_join_that_another_has_overtaken_is_not_called_done(
    bus: Bus, rbeectl: Rbeectl, joining: Path
) -> None:
    (joining / "membership").write_text('# {"hive_id": "gpu1", "host": "other", "port": 8500}\n')
    ran = rbeectl("join", "queen")

    assert ran.code == 1
    assert (
        "somebody else had this machine join meanwhile: it is the hive gpu1 of the queen at other:8500"
        in (ran.err)
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (UnitState("loaded", "failed", "failed", 0, "exit-code",
            "joining failed: nobody listens on queen:8500; try: rbeectl tcp enable", exit_status=78),
         "rbeectl: joining failed: nobody listens on queen:8500; the machine is still"),
        (UnitState("loaded", "failed", "failed", 0, "timeout", "joining"),
         "rbeectl: it did not start; the machine is still"),
        (UnitState("loaded", "failed", "failed", 0, "exit-code", "joining", exit_status=226),
         "rbeectl: it did not start; the machine is still"),
    ],
)  # fmt: skip
def test_an_invitation_that_comes_to_nothing_leaves_the_hive_alone_and_no_unit_failed(
    bus: Bus, rbeectl: Rbeectl, joining: Path, state: UnitState, words: str
) -> None:
    bus.states[HIVE_UNIT] = STILL
    bus.refusals["start", JOIN_UNIT] = UnitFailed("it did not start", hint="look there")
    bus.after["start", JOIN_UNIT] = state
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.code == 1
    assert ran.err == f"{words} a hive of the queen at queen:8500\n  try: look there\n"
    assert bus.asked == [("start", JOIN_UNIT), ("reset-failed", JOIN_UNIT)]


def test_who_does_not_wait_for_the_join_has_it_stopped(bus: Bus, rbeectl: Rbeectl, joining: Path) -> None:
    bus.states[HIVE_UNIT] = STILL
    bus.refusals["start", JOIN_UNIT] = TimedOut("it was not done after 1 s")

    assert rbeectl("join", "queen", "--token", TEXT).code == 1
    assert bus.asked == [("start", JOIN_UNIT), ("stop", JOIN_UNIT)]


@pytest.mark.parametrize(
    ("is_joined", "words"),
    [
        (False, "interrupted; this machine has not joined; the machine is still a hive of the queen at"),
        (True, "interrupted; this machine has joined, and its hive is to be started with that"),
    ],
)
def test_who_interrupts_a_join_is_told_what_has_come_of_it(
    bus: Bus, rbeectl: Rbeectl, joining: Path, is_joined: bool, words: str
) -> None:
    bus.states[HIVE_UNIT] = STILL
    start = bus.start

    def interrupted(unit: str, **options: Any) -> None:
        start(unit, **options)
        if is_joined:
            (joining / "membership.new").write_text("# {}\n")
        raise KeyboardInterrupt

    bus.start = interrupted  # type: ignore[method-assign]
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.code == 130
    assert words in ran.err
    assert bus.asked == [("start", JOIN_UNIT), ("stop", JOIN_UNIT)]


@pytest.mark.parametrize("error", [UnitFailed("it did not start"), TimedOut("not done"), KeyboardInterrupt()])
@pytest.mark.parametrize("unit", [HIVE_UNIT, REDIAL_UNIT])
def test_a_hive_that_does_not_start_with_what_was_joined_is_started_with_what_it_was(
    bus: Bus, error: BaseException, unit: str
) -> None:
    bus.states[HIVE_UNIT] = INACTIVE
    bus.states[unit] = STILL
    start, tries = bus.start, iter([error])

    def started(unit: str, **options: Any) -> None:
        start(unit, **options)
        if unit == HIVE_UNIT:
            for one in tries:
                raise one
            bus.states[unit] = STILL

    bus.start = started  # type: ignore[method-assign]
    with pytest.raises(type(error)) as caught:
        rbee.keeper.fleet.invitation.restart_hive(bus, lambda most: most)  # type: ignore[arg-type]

    assert bus.asked[-2:] == [("reset-failed", HIVE_UNIT), ("start", HIVE_UNIT)]
    if isinstance(error, UnitFailed):
        assert str(caught.value) == (
            "it did not start; the machine is still a hive of the queen at queen:8500"
        )


def test_a_deadline_that_is_over_is_noticed_before_the_hive_is_stopped(bus: Bus) -> None:
    bus.states[HIVE_UNIT] = STILL
    lefts = iter([45.0])

    def left(_most: float) -> float:
        for one in lefts:
            return one
        raise TimedOut("it was not done within the 1 s of --timeout")

    with pytest.raises(TimedOut):
        rbee.keeper.fleet.invitation.restart_hive(bus, left)  # type: ignore[arg-type]
    assert bus.asked == [("start", JOIN_UNIT)]


def test_a_hive_that_was_stopped_stays_so_where_joining_fails(
    bus: Bus, rbeectl: Rbeectl, joining: Path
) -> None:
    bus.refusals["start", JOIN_UNIT] = UnitFailed("it did not start")
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.err == "rbeectl: it did not start\n"
    assert ("start", HIVE_UNIT) not in bus.asked


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("queen", "--token", "x.y.z"), 2, "the token is damaged"),
        (("queen:x", "--token", TEXT), 2, "QUEEN must be HOST:PORT"),
        (("queen",), 2, "--token is needed"),
        (("queen", "--token", TEXT, "--name", "a b"), 2, "--name must be made of"),
    ],
)
def test_what_cannot_be_joined_is_refused_and_nothing_is_stopped(
    bus: Bus, rbeectl: Rbeectl, joining: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ran = rbeectl("join", *arguments)

    assert (ran.code, ran.out) == (code, "")
    assert words in ran.err
    assert bus.asked == []
    assert list(joining.iterdir()) == []


def test_joining_is_root_s(
    bus: Bus, rbeectl: Rbeectl, joining: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ran = rbeectl("join", "queen:9000", "--token", TEXT)

    assert ran.code == 77
    assert ran.err == (
        "rbeectl: joining a queen is root's\n  try: sudo rbeectl join queen:9000 --token TOKEN\n"
    )


def test_a_machine_with_a_queen_of_its_own_does_not_join_another(
    bus: Bus, rbeectl: Rbeectl, joining: Path
) -> None:
    bus.states[QUEEN_UNIT] = ACTIVE
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.code == 1
    assert "this machine has a queen of its own" in ran.err
    assert list(joining.iterdir()) == []


def test_a_machine_without_rbee_hive_is_told_what_to_install(
    bus: Bus, rbeectl: Rbeectl, joining: Path
) -> None:
    bus.states[HIVE_UNIT] = UnitState("not-found", "inactive", "dead")
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.code == 1
    assert "sudo apt install ./python3-rbee_*.deb ./rbee-hive_*.deb" in ran.err


# Adding by ssh


def test_a_hive_that_beats_needs_no_ssh_and_one_that_does_not_is_sought(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    beats = with_queen(listing(replace(REMOTE, state="pending")), lambda: rbeectl("add-hive", "gpu1"))
    assert "Requesting queen to add gpu1" in beats.out
    handlers = {**listing(replace(REMOTE, state="offline")), **Opened(awake, is_open=True).handlers}
    gone = with_queen(handlers, lambda: rbeectl("add-hive", "gpu1"))
    assert "ssh is not installed here" in gone.err
    closed = {**listing(), **Opened(awake).handlers}
    assert "try: rbeectl tcp enable" in with_queen(closed, lambda: rbeectl("add-hive", "gpu1")).err
