"""Whether the queen's TCP socket could be opened, on real ports; the restart itself is tried in machines."""

from __future__ import annotations

import socket

import pytest

from rbee.queen.reopen import can_listen


def test_a_port_on_which_somebody_listens_cannot_be_opened_and_one_that_is_free_can() -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not can_listen([f"[::]:{port}"])
        assert not can_listen([f"127.0.0.1:{port}"])
    assert can_listen([f"[::]:{port}"])


def test_one_address_that_is_taken_is_enough() -> None:
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        assert not can_listen([f"127.0.0.1:{port}", f"127.0.0.1:{taken.getsockname()[1]}"])


def test_a_listener_of_this_user_that_shares_its_port_counts_as_free_as_for_systemd() -> None:
    # ReusePort=yes: what clears away the last socket of a restart still has it open.
    with socket.socket() as old:
        old.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        old.bind(("127.0.0.1", 0))
        old.listen()
        assert can_listen([f"127.0.0.1:{old.getsockname()[1]}"])


@pytest.mark.parametrize("address", ["192.0.2.1:8500", "[2001:db8::1]:8500"])
def test_an_address_that_is_not_there_yet_can_be_opened(address: str) -> None:
    assert can_listen([address])
