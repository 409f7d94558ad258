"""Reaching a queen before anything is changed: what is in the way is named within seconds."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from rbee.errors import TimedOut, Unreachable
from rbee.keeper.fleet import reach


def most(seconds: float) -> float:
    return seconds


def test_a_port_that_nobody_listens_on_is_refused_and_looked_at_on_her_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(
        Unreachable, match=f"the machine refused the connection: .*127.0.0.1:{port}"
    ) as caught:
        reach.connect("127.0.0.1", port, most)
    assert "rbeectl tcp status" in (caught.value.hint or "")


def test_where_nothing_answers_firewall_and_port_are_named() -> None:
    # A backlog that is full: the kernel drops who connects, as a firewall does.
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
        with pytest.raises(TimedOut, match=f"a firewall drops what is sent to port {port}") as caught:
            reach.connect("127.0.0.1", port, lambda _most: 0.3)
        assert f"ufw allow {port}/tcp" in (caught.value.hint or "")
        for one in waiting:
            one.close()


def test_a_name_that_nobody_knows_is_named() -> None:
    with pytest.raises(Unreachable, match="the name in nowhere.invalid:8500 is not known"):
        reach.connect("nowhere.invalid", 8500, most)


@contextmanager
def answering(work: Callable[[socket.socket], None]) -> Iterator[tuple[socket.socket, int]]:
    """A connection to somebody who does this with it, and the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            channel, _ = server.accept()
            with channel:
                work(channel)

        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection(("127.0.0.1", port)) as channel:
            yield channel, port
        thread.join()


def read_all(channel: socket.socket) -> None:
    with suppress(ConnectionResetError):
        while channel.recv(4096):
            pass


def test_who_takes_the_connection_and_says_nothing_is_told_apart_from_a_firewall() -> None:
    told = "accepted the connection and sent nothing within 0.3 s"
    with answering(read_all) as (channel, port), pytest.raises(TimedOut, match=f"127.0.0.1:{port} {told}"):
        reach.check_keys(channel, "127.0.0.1", port, "f" * 64, lambda _most: 0.3)


def test_who_speaks_no_tls_is_told_so() -> None:
    def greet(channel: socket.socket) -> None:
        channel.sendall(b"220 mail.example ESMTP\r\n")
        read_all(channel)

    with (
        answering(greet) as (channel, port),
        pytest.raises(Unreachable, match="does not speak TLS as expected"),
    ):
        reach.check_keys(channel, "127.0.0.1", port, "f" * 64, most)
