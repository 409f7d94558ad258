"""Opening the gateway to TCP."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbee.errors import UnitFailed
from rbee.keeper.gateway.tcp import find_tls
from rbee.scope import GATEWAY_CREDENTIALS, GATEWAY_TCP_SOCKET_UNIT, GATEWAY_UNIT, SYSTEM
from tests.integration.keeper.played_gateway_access import GatewayAccess
from tests.unit.keeper.doubles import Ran, Rbeectl, WithQueen, in_scope
from tests.unit.played_systemd import ACTIVE, LISTENING, PlayedBus

LISTEN = "rbee-gateway-tcp.socket.d/50-listen.conf"
TLS = "rbee-gateway.service.d/50-tls.conf"


@pytest.fixture
def as_root(
    awake: PlayedBus, rbeectl: Rbeectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    awake.address = "127.0.0.1:8510"
    in_scope(monkeypatch, dropins=tmp_path / "system")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    awake.reload = lambda: awake.asked.append(("reload", ""))  # type: ignore[attr-defined]
    return rbeectl


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """A certificate and its key."""
    cert, key = tmp_path / "50%.crt", tmp_path / "a.key"
    openssl("req", "-x509", "-newkey", "ed25519", "-nodes", "-subj", "/CN=a", "-keyout", key, "-out", cert)
    return str(cert), str(key)


OPENED = [
    ("stop", GATEWAY_TCP_SOCKET_UNIT), ("stop", GATEWAY_UNIT), ("start", GATEWAY_TCP_SOCKET_UNIT),
]  # fmt: skip


def test_opening_stops_the_service_first_and_opening_twice_nothing(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    awake.address = "127.0.0.1:8510"
    queen = GatewayAccess()
    ran = with_queen(queen.handlers, lambda: rbeectl("gateway", "enable"))

    assert ran.out.splitlines()[1:] == [
        "(bee keeper) opening the gateway's TCP socket; requests in progress are cut",
        "The gateway listens on 127.0.0.1:8510, with HTTP",
        "For a key: rbeectl key create NAME",
    ]
    assert (awake.asked, queen.asked) == (OPENED, [True])
    awake.asked.clear()
    ran = with_queen(queen.handlers, lambda: rbeectl("gateway", "enable", "--json"))
    assert ran.json[-1] == {"event": "done", "is_open": True, "listens": ["127.0.0.1:8510"], "tls": False}
    assert awake.asked == []


def test_closing_ends_what_is_connected(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    awake.states |= {GATEWAY_TCP_SOCKET_UNIT: LISTENING, GATEWAY_UNIT: ACTIVE}
    queen = GatewayAccess(is_open=True)
    ran = with_queen(queen.handlers, lambda: rbeectl("gateway", "disable"))

    assert ran.out.splitlines()[-1] == "The gateway listens on its Unix socket only"
    assert (awake.asked, queen.asked) == (OPENED[:2], [False])


def test_an_address_and_a_certificate_are_drop_ins(
    awake: PlayedBus, as_root: Rbeectl, with_queen: WithQueen, tmp_path: Path, pair: tuple[str, str]
) -> None:
    queen = GatewayAccess()
    cert, key = pair
    work = ("gateway", "enable", "--listen", "0.0.0.0", "--tls-cert", cert, "--tls-key", key)
    ran = with_queen(queen.handlers, lambda: as_root(*work))

    assert (ran.code, ran.err) == (0, "")
    assert (tmp_path / "system" / LISTEN).read_text().splitlines()[1:] == [
        "[Socket]", "ListenStream=", "ListenStream=0.0.0.0:8510",
    ]  # fmt: skip
    assert (tmp_path / "system" / TLS).read_text().splitlines()[1:] == [
        "[Service]",
        f"LoadCredential=rbee.gateway.crt:{cert.replace('%', '%%')}",
        f"LoadCredential=rbee.gateway.key:{key}",
    ]
    assert awake.asked == [("reload", ""), ("reload", ""), *OPENED]
    # Now that it has a certificate, another address needs none.
    assert with_queen(queen.handlers, lambda: as_root("gateway", "enable", "--listen", "[::]:8511")).code == 0


def test_a_certificate_can_be_taken_away_again(
    awake: PlayedBus, as_root: Rbeectl, with_queen: WithQueen, tmp_path: Path, pair: tuple[str, str]
) -> None:
    awake.states[GATEWAY_TCP_SOCKET_UNIT] = LISTENING
    queen = GatewayAccess(is_open=True)
    cert, key = pair

    def enable(*options: str) -> Ran:
        awake.asked.clear()
        return with_queen(queen.handlers, lambda: as_root("gateway", "enable", *options))

    enable("--tls-cert", cert, "--tls-key", key)
    both = enable("--tls-cert", cert, "--tls-key", key, "--no-tls")
    assert (both.code, "cannot be given together" in both.err) == (2, True)
    beyond = enable("--listen", "10.0.0.1", "--no-tls")
    assert (beyond.code, "plain HTTP is for this machine only" in beyond.err) == (2, True)
    assert (tmp_path / "system" / TLS).exists()

    ran = enable("--no-tls")
    assert ran.out.splitlines()[-2] == "The gateway listens on 127.0.0.1:8510, with HTTP"
    assert awake.asked == [("reload", ""), *OPENED]
    assert not (tmp_path / "system" / TLS).exists()
    assert enable("--no-tls").code == 0
    assert awake.asked == []


@pytest.mark.parametrize(
    ("listen", "is_allowed"),
    [
        ("127.0.0.1", True),
        ("[::1]:8599", True),
        ("0.0.0.0:8510", False),
        ("[::]", False),
        ("10.0.0.1", False),
    ],
)
def test_plain_http_is_for_this_machine_only(
    awake: PlayedBus, as_root: Rbeectl, with_queen: WithQueen, listen: str, is_allowed: bool
) -> None:
    queen = GatewayAccess()
    ran = with_queen(queen.handlers, lambda: as_root("gateway", "enable", "--listen", listen))

    if is_allowed:
        assert ran.code == 0, ran
        return
    assert ran.code == 2
    assert "plain HTTP is for this machine only" in ran.err
    assert "--tls-cert FILE --tls-key FILE" in ran.err
    assert (awake.asked, queen.asked) == ([], [])


def test_an_address_of_an_administrator_s_own_needs_tls_too(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    awake.address = "8510"
    queen = GatewayAccess()
    ran = with_queen(queen.handlers, lambda: rbeectl("gateway", "enable"))

    assert (ran.code, queen.asked) == (2, [])


def test_only_root_sets_an_address(bus: PlayedBus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    ran = rbeectl("gateway", "enable", "--listen", "127.0.0.1:9000")

    assert ran.code == 77
    assert "try: sudo rbeectl gateway enable --listen 127.0.0.1:9000" in ran.err
    assert bus.asked == []


def test_files_that_are_no_pair_are_refused(
    awake: PlayedBus, as_root: Rbeectl, tmp_path: Path, pair: tuple[str, str]
) -> None:
    cert, key = pair
    other = tmp_path / "other.key"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", other], check=True, capture_output=True
    )
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", locked],
        check=True,
        capture_output=True,
    )
    for options, words in (
        (("--tls-cert", cert), "are given together"),
        (("--tls-cert", cert, "--tls-key", str(other)), "are not a certificate and its key"),
        (("--tls-cert", cert, "--tls-key", str(locked)), "The key must not have a password."),
        (("--tls-cert", key, "--tls-key", key), "are not a certificate and its key"),
        (("--tls-cert", str(tmp_path), "--tls-key", key), "is not a regular file"),
        (("--tls-cert", str(tmp_path / "none"), "--tls-key", key), "No such file or directory"),
    ):
        ran = as_root("gateway", "enable", *options)
        assert ran.code in (1, 2), options
        assert words in ran.err
    assert awake.asked == []


@pytest.mark.parametrize("before", [None, "[Socket]\nListenStream=\nListenStream=127.0.0.1:9000\n"])
def test_what_does_not_work_leaves_it_as_before(
    awake: PlayedBus, as_root: Rbeectl, with_queen: WithQueen, tmp_path: Path, before: str | None
) -> None:
    dropin = tmp_path / "system" / LISTEN
    if before is not None:
        dropin.parent.mkdir(parents=True)
        dropin.write_text(before)
        awake.states[GATEWAY_TCP_SOCKET_UNIT] = LISTENING
    queen = GatewayAccess(is_open=before is not None)
    start = awake.start

    def fail_at_the_new_one(unit: str, **options: Any) -> None:
        if dropin.exists() and "9001" in dropin.read_text():
            raise UnitFailed("it did not start")
        start(unit, **options)

    awake.start = fail_at_the_new_one  # type: ignore[method-assign]
    ran = with_queen(queen.handlers, lambda: as_root("gateway", "enable", "--listen", "127.0.0.1:9001"))

    assert ran.code == 1
    assert "it did not start; it listens as before" in ran.err
    assert (dropin.read_text() if dropin.exists() else None) == before
    assert queen.asked == [True, before is not None]
    assert awake.state(GATEWAY_TCP_SOCKET_UNIT).is_active == (before is not None)


def test_a_service_that_a_client_woke_meanwhile_is_stopped_again(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    awake.address = "127.0.0.1:8510"
    start = awake.start
    tries: list[str] = []

    def refuse_once(unit: str, **options: Any) -> None:
        tries.append(unit)
        if len(tries) == 1:
            awake.states[GATEWAY_UNIT] = ACTIVE
            raise UnitFailed("the service is active")
        start(unit, **options)

    awake.start = refuse_once  # type: ignore[method-assign]
    assert with_queen(GatewayAccess().handlers, lambda: rbeectl("gateway", "enable")).code == 0
    assert len(tries) == 2


def test_a_certificate_in_systemd_s_credential_store_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = SYSTEM._replace(dropins=tmp_path / "system", credstore=tmp_path / "credstore")
    assert find_tls(scope) is False
    scope.credstore.mkdir()
    for name in GATEWAY_CREDENTIALS:
        assert find_tls(scope) is False
        (scope.credstore / name).touch()
    assert find_tls(scope) is True

    def refuse(_path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "stat", refuse)
    monkeypatch.setattr(Path, "exists", lambda _path: False)
    assert find_tls(scope) is None
