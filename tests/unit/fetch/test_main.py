"""rbee-fetch: its request, its status text, its journal and its exit status."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from rbee.fetch import work
from rbee.fetch.__main__ import Status, request_of, run
from rbee.fetch.errors import BadRequest
from rbee.modelfile.progress import Progress
from rbee.modelfile.store import Store, StoreRequest, small
from rbee.narration import Event, Narrator
from rbee.scope import SYSTEM
from rbee.systemd.daemon import Notifier
from rbee.wire.models import Fetch
from tests.model_files import gguf
from tests.unit.notified import heard


class Tape(Narrator):
    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((event.name, text, fields))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name in ("store", "credentials"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "store"))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    return Store(tmp_path / "store")


def ask(tmp_path: Path, request: StoreRequest) -> None:
    (tmp_path / "credentials/request").write_bytes(small(request))


def test_a_fetch_is_told_in_the_journal_with_its_job(
    store: Store, tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket
) -> None:
    (tmp_path / "a").write_bytes(gguf())
    ask(tmp_path, StoreRequest(fetch=Fetch("one", "bee", f"file://{tmp_path}/a"), job_id="7" * 32))
    tape = Tape()

    assert run(notifier, tape, SYSTEM) == 0
    ((event, text, fields),) = tape.told
    assert event == "fetched"
    assert text.startswith(f"fetched bee from file://{tmp_path}/a: {len(gguf())} bytes in ")
    result = store.read_result("one")
    assert result is not None
    assert fields == {"model": "bee", "fetch": "one", "job_id": "7" * 32, "sha256": result.sha256}
    assert heard(systemd_socket)[-1].decode() == f"STATUS={Progress(len(gguf()), len(gguf())).text()}"


def test_a_verdict_is_the_status_text_and_the_exit_status(
    store: Store, tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket
) -> None:
    ask(tmp_path, StoreRequest(fetch=Fetch("one", "bee", "file:///nowhere")))
    tape = Tape()

    assert run(notifier, tape, SYSTEM) == 66
    assert [event for event, _, _ in tape.told] == ["fetch-failed"]
    assert heard(systemd_socket)[-1].startswith(
        b"STATUS=/nowhere cannot be read: No such file or directory; try:"
    )
    assert store.read_result("one") is not None


def test_an_unforeseen_error_is_told_without_its_text(
    store: Store, tmp_path: Path, notifier: Notifier, systemd_socket: socket.socket,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def broken(url: str, **_options: object) -> None:
        raise ZeroDivisionError(f"in {url}")

    monkeypatch.setattr(work, "parsed", broken)
    ask(tmp_path, StoreRequest(fetch=Fetch("one", "bee", "https://ada:secret@example.org/")))

    assert run(notifier, Tape(), SYSTEM) == 1
    told = [record.getMessage() for record in caplog.records]
    assert any("ZeroDivisionError" in one and "in broken" in one for one in told)
    assert [one for one in [*told, str(heard(systemd_socket))] if "secret" in one] == []


def test_files_are_removed_and_fetches_forgotten(store: Store, tmp_path: Path, notifier: Notifier) -> None:
    store.fetches.mkdir()
    store.part("one").touch()
    ask(tmp_path, StoreRequest(forget="one"))
    assert run(notifier, Tape(), SYSTEM) == 0
    assert not store.part("one").exists()

    path = store.new_file("5" * 64, "gguf")
    path.parent.mkdir()
    path.touch()
    ask(tmp_path, StoreRequest(remove="5" * 64))
    assert run(notifier, Tape(), SYSTEM) == 0
    assert not path.parent.exists()


@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b"{}", b'{"forget": "../x"}', b'{"forget": "a", "remove": "%s"}' % (b"5" * 64)],
)
def test_a_request_that_is_none_is_refused(store: Store, tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "credentials/request").write_bytes(content)

    with pytest.raises(BadRequest):
        request_of()


def test_status_texts_are_a_second_apart_but_for_what_is_waited_for(
    notifier: Notifier, systemd_socket: socket.socket
) -> None:
    now = 10.0
    status = Status(notifier, lambda: now)
    for size in range(100):
        status.report(Progress(size, 100))
        now += 0.05
    status.report(Progress(99, 100, "cut; next try in 2 s"))

    told = [one.decode() for one in heard(systemd_socket)]
    assert told[0] == "STATUS=0 of 100 bytes (0 %)"
    assert 5 <= len(told) <= 7
    assert told[-1].endswith("cut; next try in 2 s")
