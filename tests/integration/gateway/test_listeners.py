"""Which sockets are served, and how."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rbee.errors import BadConfig
from rbee.gateway.listeners import CERTIFICATE, KEY, sort_sockets
from rbee.scope import GATEWAY_SOCKETS, GATEWAY_TCP_SOCKETS, SYSTEM
from tests.integration.gateway.test_connections import credentials as credentials
from tests.integration.listening import listen


def test_loopback_is_served_as_it_is(tmp_path: Path) -> None:
    with listen(tmp_path / "s") as local, socket.create_server(("127.0.0.1", 0)) as listener:
        found = sort_sockets({GATEWAY_SOCKETS: [local], GATEWAY_TCP_SOCKETS: [listener]}, tmp_path, SYSTEM)

        assert (found.plain, found.encrypted, found.context) == ([local, listener], [], None)


def test_with_credentials_all_of_tcp_is_tls(tmp_path: Path, credentials: Path) -> None:
    with listen(tmp_path / "s") as local, socket.create_server(("127.0.0.1", 0)) as listener:
        found = sort_sockets({GATEWAY_SOCKETS: [local], GATEWAY_TCP_SOCKETS: [listener]}, credentials, SYSTEM)

        assert (found.plain, found.encrypted) == ([local], [listener])
        assert found.context is not None


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_any_other_address_needs_them(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        with pytest.raises(BadConfig, match=f"listens on {address} without TLS") as caught:
            sort_sockets({GATEWAY_TCP_SOCKETS: [listener]}, None, SYSTEM)
        assert "sudo rbeectl gateway enable --tls-cert" in (caught.value.hint or "")


def test_each_kind_of_socket_is_for_its_unit(tmp_path: Path) -> None:
    with listen(tmp_path / "s") as local, socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(BadConfig, match="its clients need no key"):
            sort_sockets({GATEWAY_SOCKETS: [local, listener]}, None, SYSTEM)
        with pytest.raises(BadConfig, match="has a Unix socket"):
            sort_sockets({GATEWAY_TCP_SOCKETS: [local]}, None, SYSTEM)


@pytest.mark.parametrize(("missing", "other"), [(KEY, CERTIFICATE), (CERTIFICATE, KEY)])
def test_half_of_the_credentials_is_refused(credentials: Path, missing: str, other: str) -> None:
    (credentials / missing).unlink()

    with pytest.raises(BadConfig, match=f"has the credential {other} and not {missing}"):
        sort_sockets({}, credentials, SYSTEM)


def test_credentials_that_are_no_certificate_are_refused(credentials: Path) -> None:
    (credentials / CERTIFICATE).write_text("no")

    with pytest.raises(BadConfig, match="cannot be used"):
        sort_sockets({}, credentials, SYSTEM)
