"""The relay of the fleet's tests: each fault that it plays is one that both ends see."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from testbed.relay import RETRANSMISSION, Relay

DEADLINE = 10.0
LOOPBACK = ("127.0.0.1", 0)


class Echo:
    """A server that sends back what it gets, and then ends; it counts what came."""

    def __init__(self) -> None:
        self.listener = socket.create_server(LOOPBACK)
        self.address = self.listener.getsockname()
        self.arrived: list[bytes] = []
        self.ends: list[str] = []
        self.changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection:
                connection.settimeout(DEADLINE)
                if (end := self._echo(connection)) == "stop":
                    return
                with self.changed:
                    self.ends.append(end)
                    self.changed.notify_all()

    def _echo(self, connection: socket.socket) -> str:
        try:
            while data := connection.recv(65536):
                if data == b"stop":
                    return "stop"
                with self.changed:
                    self.arrived.append(data)
                    self.changed.notify_all()
                connection.sendall(data)
        except ConnectionResetError:
            return "reset"
        return "end"

    def await_arrived(self, data: bytes) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: b"".join(self.arrived).endswith(data), DEADLINE)

    def await_end(self) -> str:
        with self.changed:
            assert self.changed.wait_for(lambda: bool(self.ends), DEADLINE)
            return self.ends[0]

    def close(self) -> None:
        with socket.create_connection(self.address, DEADLINE) as connection:
            connection.sendall(b"stop")
            self._thread.join(DEADLINE)
        self.listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


def connect(relay: Relay) -> socket.socket:
    return socket.create_connection(relay.address, DEADLINE)


def receive(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        more = connection.recv(length - len(data))
        assert more, f"ended after {len(data)} bytes"
        data += more
    return data


def is_silent(connection: socket.socket) -> bool:
    """Nothing comes for a while: no more than that can be seen of what never comes."""
    connection.settimeout(0.2)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(DEADLINE)
    return False


def test_all_comes_through_in_order_and_is_counted(echo: Echo) -> None:
    data = bytes(range(256)) * 4096
    with Relay(LOOPBACK, echo.address) as relay, connect(relay) as connection:
        sender = threading.Thread(target=connection.sendall, args=(data,))
        sender.start()
        assert receive(connection, len(data)) == data
        sender.join(DEADLINE)
        # An end goes through, and the way back stays open until it has one as well.
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        assert echo.await_end() == "end"
        assert (relay.up_bytes, relay.down_bytes) == (len(data), len(data))
        assert (relay.accepted, relay.lost) == (1, 0)


def test_a_delay_is_there_each_way(echo: Echo) -> None:
    with Relay(LOOPBACK, echo.address, delay=0.1) as relay, connect(relay) as connection:
        began = time.monotonic()
        for word in (b"open", b"more"):
            connection.sendall(word)
            assert receive(connection, 4) == word
        # Opening takes a way there and back, as everywhere; and so does each word.
        assert time.monotonic() - began >= 0.6


def test_a_delay_keeps_many_on_the_way_at_once(echo: Echo) -> None:
    with Relay(LOOPBACK, echo.address, delay=0.2) as relay, connect(relay) as connection:
        connection.sendall(b"open")
        assert receive(connection, 4) == b"open"
        began = time.monotonic()
        for word in range(20):
            connection.sendall(bytes([word]))
            time.sleep(0.01)  # else they go as one
        assert receive(connection, 20) == bytes(range(20))
        assert 0.4 <= time.monotonic() - began < 20 * 0.4


def test_a_lost_segment_comes_late_and_all_behind_it(echo: Echo) -> None:
    with Relay(LOOPBACK, echo.address) as relay, connect(relay) as connection:
        connection.sendall(b"open")
        assert receive(connection, 4) == b"open"
        relay.loss = 1.0
        began = time.monotonic()
        connection.sendall(b"lost")
        assert receive(connection, 4) == b"lost"
        # In both directions.
        assert time.monotonic() - began >= 2 * RETRANSMISSION[0]
        assert relay.lost == 2


def sent_until_it_waits(connection: socket.socket, most: int) -> int:
    """Bytes."""
    sent = 0
    while sent < most:
        try:
            sent += connection.send(bytes(65536))
        except TimeoutError:
            break
    return sent


def lost_in_a_run(echo: Echo, seed: int) -> list[int]:
    counts = []
    with Relay(LOOPBACK, echo.address, loss=0.2, seed=seed) as relay, connect(relay) as connection:
        for _ in range(12):
            connection.sendall(b"word")
            assert receive(connection, 4) == b"word"
            counts.append(relay.lost)
    return counts


def test_a_seed_loses_the_same_again(echo: Echo) -> None:
    assert lost_in_a_run(echo, 7) == lost_in_a_run(echo, 7)


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_a_black_hole_holds_back_until_it_heals(echo: Echo, direction: str) -> None:
    with Relay(LOOPBACK, echo.address) as relay, connect(relay) as connection:
        connection.sendall(b"open")
        assert receive(connection, 4) == b"open"
        relay.blackhole(direction)
        connection.sendall(b"held")
        if direction == "down":
            echo.await_arrived(b"held")
        assert is_silent(connection)
        assert relay.up_bytes == (8 if direction == "down" else 4)
        assert relay.down_bytes == 4
        relay.heal()
        assert receive(connection, 4) == b"held"


def test_an_end_does_not_leave_a_black_hole(echo: Echo) -> None:
    with Relay(LOOPBACK, echo.address) as relay:
        with connect(relay) as connection:
            connection.sendall(b"open")
            assert receive(connection, 4) == b"open"
            relay.blackhole("up")
        with echo.changed:
            assert not echo.changed.wait_for(lambda: echo.ends, 0.2)
        relay.heal("up")
        assert echo.await_end() == "end"


def test_a_reset_reaches_both_ends(echo: Echo) -> None:
    with Relay(LOOPBACK, echo.address) as relay, connect(relay) as connection:
        connection.sendall(b"open")
        assert receive(connection, 4) == b"open"
        assert relay.reset_all() == 1
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        assert echo.await_end() == "reset"
        # The wire is there still.
        with connect(relay) as another:
            another.sendall(b"anew")
            assert receive(another, 4) == b"anew"
        assert relay.accepted == 2


def test_a_reset_by_one_end_reaches_the_other(echo: Echo) -> None:
    with Relay(LOOPBACK, echo.address) as relay:
        with connect(relay) as connection:
            connection.sendall(b"open")
            assert receive(connection, 4) == b"open"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        assert echo.await_end() == "reset"


def test_a_target_that_refuses_is_a_reset() -> None:
    with socket.create_server(LOOPBACK) as nobody:
        address = nobody.getsockname()
    with (
        Relay(LOOPBACK, address) as relay,
        pytest.raises(ConnectionResetError),
        connect(relay) as connection,
    ):
        connection.recv(1)


def test_who_is_not_read_from_has_to_wait() -> None:
    """What a relay holds is bounded: a sender notices a receiver that does not read."""
    with (
        socket.create_server(LOOPBACK) as deaf,
        Relay(LOOPBACK, deaf.getsockname()) as relay,
        connect(relay) as connection,
    ):
        connection.settimeout(0.5)
        assert sent_until_it_waits(connection, 64 << 20) < 32 << 20


def test_the_end_of_a_relay_ends_its_connections_and_its_thread(echo: Echo) -> None:
    with Relay(LOOPBACK, echo.address, delay=0.05) as relay:
        connection = connect(relay)
        connection.sendall(b"open")
        assert receive(connection, 4) == b"open"
        relay.blackhole()
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert echo.await_end() == "reset"
    assert "relay" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError):
        connect(relay)


def test_an_address_that_is_taken_is_told() -> None:
    with (
        socket.create_server(LOOPBACK) as taken,
        pytest.raises(OSError, match="in use"),
        Relay(taken.getsockname(), LOOPBACK),
    ):
        pass
    assert "relay" not in {thread.name for thread in threading.enumerate()}
