"""The watcher of a worker that loads, with an engine that is played on a socket and by processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rbee.engines.order import Order
from rbee.worker.watch import Progress, has_ended, is_ready, loading, measure, watch


@contextmanager
def engine(path: Path | None, *answers: bytes) -> Iterator[int | None]:
    """An engine that gives these answers, one a connection; on a port, which is yielded, without a path."""
    with socket.socket(socket.AF_INET if path is None else socket.AF_UNIX) as listener:
        listener.bind(("127.0.0.1", 0) if path is None else str(path))
        listener.listen()

        def serve() -> None:
            for answer in answers:
                channel, _ = listener.accept()
                with channel:
                    channel.recv(4096)
                    channel.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield None if path is not None else listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
LOADING = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "is_so"),
    [
        (OK, True),
        (b"HTTP/1.0 200 OK\r\n\r\nas long as it lasts", True),
        (LOADING, False),
        (b"200", False),
        (b"", False),
    ],
)
def test_an_engine_is_ready_that_answers_200(tmp_path: Path, answer: bytes, is_so: bool) -> None:
    with engine(tmp_path / "s", answer):
        assert is_ready(order(tmp_path / "s")) == is_so


def test_an_engine_on_a_port_is_asked_there(tmp_path: Path) -> None:
    with engine(None, LOADING, OK) as port:
        on_port = order(tmp_path / "s")._replace(port=port)
        assert [is_ready(on_port), is_ready(on_port)] == [False, True]
    assert not is_ready(on_port)


def test_an_engine_without_a_socket_is_not_ready(tmp_path: Path) -> None:
    assert not is_ready(order(tmp_path / "s"))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr("rbee.worker.watch.notify", told.append)
    return told


def order(path: Path) -> Order:
    return Order("bee", "llama", ("/bin/x",), (), path, str(path), path, "/health", 1)


def test_systemd_is_told_when_the_engine_is_ready(tmp_path: Path, sent: list[str]) -> None:
    own = os.pidfd_open(os.getpid())
    try:
        with engine(tmp_path / "s", LOADING, LOADING, OK):
            watch(order(tmp_path / "s"), own)
    finally:
        os.close(own)

    assert sent[-1] == "READY=1\nSTATUS=serving bee"


def test_a_load_is_reported_and_given_time_while_the_engine_computes(
    tmp_path: Path, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.worker.watch.REPORT_EVERY", 0.0)
    code = "while True: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as busy:
        try:
            descriptor = os.pidfd_open(busy.pid)
            threading.Timer(1.0, busy.kill).start()
            watch(order(tmp_path / "s"), descriptor)
            os.close(descriptor)
        finally:
            busy.kill()

    assert all(text.startswith("STATUS=loading 99 %") for text in sent)
    assert any("EXTEND_TIMEOUT_USEC=30000000" in text for text in sent)


def test_an_engine_that_ends_is_watched_no_longer(tmp_path: Path, sent: list[str]) -> None:
    with subprocess.Popen(["true"]) as ended:
        descriptor = os.pidfd_open(ended.pid)
        watch(order(tmp_path / "s"), descriptor)
        os.close(descriptor)

    assert not any("READY" in text for text in sent)


def test_the_end_of_a_process_is_waited_for_and_no_longer_than_wanted() -> None:
    own = os.pidfd_open(os.getpid())
    try:
        assert not has_ended(own, 0.01)
    finally:
        os.close(own)


def test_how_far_a_load_is_has_a_number_if_the_size_is_known() -> None:
    assert [loading(0, 0), loading(5, 10), loading(50, 10)] == ["loading", "loading 50 %", "loading 99 %"]


def test_a_sign_of_life_is_that_bytes_move_or_processors_work() -> None:
    before = Progress(2**20, 1.0)

    assert not Progress(2**20 + 1, 1.01).is_sign_of_life(before, before, 1.0)
    assert Progress(2**21, 1.0).is_sign_of_life(before, before, 1.0)
    assert Progress(2**20, 1.2).is_sign_of_life(before, before, 1.0)


def test_what_all_processes_of_the_user_have_done_is_summed(tmp_path: Path) -> None:
    for pid in ("10", "11"):
        folder = tmp_path / pid
        folder.mkdir()
        (folder / "io").write_text("rchar: 1000\nwchar: 5\n")
        (folder / "statm").write_text("100 1 1\n")
        (folder / "stat").write_text(f"{pid} (a) b) S " + " ".join(["0"] * 10) + " 50 50 0\n")
    (tmp_path / str(os.getpid())).mkdir()
    (tmp_path / "12").mkdir()
    (tmp_path / "meminfo").touch()
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")

    assert measure(tmp_path) == Progress(max(2000, 2 * page), 200 / tick)
