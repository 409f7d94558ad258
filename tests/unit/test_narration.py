"""One call, told by whoever listens: journal, terminal, program; and the catalog that explains the lines."""

from __future__ import annotations

import ast
import io
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rbee.narration import (
    ADD_FAILED,
    ADDING,
    CONFIG_WARNING,
    DEBUG,
    DETECTED,
    ERROR,
    EVENTS,
    HIVE_OFFLINE,
    INFO,
    NOTICE,
    WARNING,
    Chorus,
    Event,
    Journal,
    Narrator,
    line_of,
    now_rfc3339,
)
from rbee.wire.codec import decode, encode
from rbee.wire.lines import Line

CATALOG = Path(__file__).parents[2] / "packaging/rbee.catalog"


class Tape(Narrator):
    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((event.name, text, fields))


# The journal


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    """The receiving end of the journal's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "journal"))
        receiver.settimeout(5)
        yield receiver


# What could steer whoever shows it, and what is shown instead.
STEERING = [
    ("\x1b[2J", "\\x1b[2J"),
    ("\r(queen bee)  all is well", "\\r(queen bee)  all is well"),
    ("a\nb", "a\\nb"),
    ("\x00\x07\x7f", "\\x00\\x07\\x7f"),
    ("\x9b31m", "\\x9b31m"),
    ("\u202egnp.exe", "\\u202egnp.exe"),
    ("\u200e\u200f\u2066\u2069", "\\u200e\\u200f\\u2066\\u2069"),
    ("\u061c", "\\u061c"),
    ("\u2028\u2029", "\\u2028\\u2029"),
    ("\ud800", "\\ud800"),
]


@pytest.fixture
def journal_at() -> Iterator[Callable[[Path, io.StringIO], Journal]]:
    made: list[Journal] = []

    def make(path: Path, fallback: io.StringIO) -> Journal:
        made.append(Journal("queen-rbee", path, fallback))
        return made[-1]

    yield make
    for journal in made:
        journal._socket.close()


JournalAt = Callable[[Path, io.StringIO], Journal]


def parse_native(datagram: bytes) -> dict[str, str]:
    """https://systemd.io/JOURNAL_NATIVE_PROTOCOL/: NAME=value lines, none with a length of its own."""
    lines = datagram.decode().removesuffix("\n").split("\n")
    fields = dict(line.split("=", 1) for line in lines)
    assert len(fields) == len(lines)
    return fields


def test_a_line_goes_to_the_journal_with_its_fields(
    tmp_path: Path, journald: socket.socket, journal_at: JournalAt
) -> None:
    fallback = io.StringIO()
    journal_at(tmp_path / "journal", fallback).narrate(
        ADDING, "Adding local pc to hive catalog.", job_id="7" * 32, hive="localhost", actor_uid="1000"
    )

    assert parse_native(journald.recv(65536)) == {
        "MESSAGE": "Adding local pc to hive catalog.",
        "MESSAGE_ID": ADDING.message_id,
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "queen-rbee",
        "RBEE_EVENT": "adding",
        "RBEE_SPEAKER": "queen bee",
        "RBEE_JOB_ID": "7" * 32,
        "RBEE_HIVE": "localhost",
        "RBEE_ACTOR_UID": "1000",
    }
    assert fallback.getvalue() == ""


@pytest.mark.parametrize(
    "text",
    [
        "a=b",
        "größer 👑",
        "",
        "x" * 100_000,
    ],
)
def test_any_text_reaches_the_journal_whole(
    tmp_path: Path, journald: socket.socket, journal_at: JournalAt, text: str
) -> None:
    journal_at(tmp_path / "journal", io.StringIO()).narrate(DETECTED, text, hive=text)

    fields = parse_native(journald.recv(1_000_000))
    assert (fields["MESSAGE"], fields["RBEE_HIVE"]) == (text, text)


@pytest.mark.parametrize(("text", "shown"), [*STEERING, ("a\nMESSAGE=forged", "a\\nMESSAGE=forged")])
def test_what_could_steer_is_escaped_in_the_journal(
    tmp_path: Path, journald: socket.socket, journal_at: JournalAt, text: str, shown: str
) -> None:
    journal_at(tmp_path / "journal", io.StringIO()).narrate(DETECTED, text, hive=text)

    fields = parse_native(journald.recv(65536))
    assert (fields["MESSAGE"], fields["RBEE_HIVE"]) == (shown, shown)


def test_a_field_may_say_who_speaks(tmp_path: Path, journald: socket.socket, journal_at: JournalAt) -> None:
    journal_at(tmp_path / "journal", io.StringIO()).narrate(CONFIG_WARNING, "hm", speaker="bee hive")

    assert parse_native(journald.recv(65536))["RBEE_SPEAKER"] == "bee hive"


def test_without_a_journal_the_lines_go_to_stderr_with_their_priority(
    tmp_path: Path, journal_at: JournalAt
) -> None:
    fallback = io.StringIO()
    journal = journal_at(tmp_path / "nobody", fallback)

    journal.narrate(ADD_FAILED, "adding localhost failed", hive="localhost")
    journal.narrate(HIVE_OFFLINE, "the beehive localhost is offline")

    assert fallback.getvalue() == "<3>adding localhost failed\n<4>the beehive localhost is offline\n"


def test_without_a_journal_a_text_is_still_one_line(tmp_path: Path, journal_at: JournalAt) -> None:
    fallback = io.StringIO()

    journal_at(tmp_path / "nobody", fallback).narrate(ADD_FAILED, "it failed:\n<7>not a level of its own")

    assert fallback.getvalue() == "<3>it failed:\\n<7>not a level of its own\n"


def test_a_journal_that_is_stuck_does_not_stop_who_narrates(
    tmp_path: Path, journald: socket.socket, journal_at: JournalAt
) -> None:
    fallback = io.StringIO()
    journal = journal_at(tmp_path / "journal", fallback)

    began = time.monotonic()
    for _ in range(10_000):
        journal.narrate(DETECTED, "nobody reads")

    # stderr leads to the same journal, and would wait.
    assert fallback.getvalue() == ""
    assert time.monotonic() - began < 10


# Who is told what


def test_the_plain_narrator_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    Narrator().narrate(ADDING, "hello")
    Narrator().about(job_id="7").narrate(ADDING, "hello")

    assert capfd.readouterr() == ("", "")


def test_about_puts_its_fields_on_each_line_and_a_lines_own_fields_win() -> None:
    tape = Tape()

    tape.about(job_id="7", hive="a").about(hive="b", actor_uid="0").narrate(ADDING, "hello", actor_uid="1")

    assert tape.told == [("adding", "hello", {"job_id": "7", "hive": "b", "actor_uid": "1"})]


def test_a_chorus_tells_the_same_line_in_its_order() -> None:
    order: list[str] = []

    class Voice(Tape):
        def narrate(self, event: Event, text: str, **fields: str) -> None:
            order.append(self.name)
            super().narrate(event, text, **fields)

    first, second = Voice(), Voice()
    first.name, second.name = "first", "second"

    Chorus(first, second).about(hive="x").narrate(ADDING, "hello", job_id="7")

    assert first.told == second.told == [("adding", "hello", {"hive": "x", "job_id": "7"})]
    assert order == ["first", "second"]


def test_a_line_is_cut_to_what_the_contract_takes() -> None:
    line = line_of(ADDING, f"it failed: {'x' * 5000} for this reason")

    assert decode(Line, encode(line)) == line
    assert len(line.text) == 2000
    assert line.text.startswith("it failed: xxx")
    assert line.text.endswith("xxx for this reason")


def test_now_is_the_time_of_day_in_utc() -> None:
    now = now_rfc3339()

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", now)
    assert abs((datetime.fromisoformat(now) - datetime.now(UTC)).total_seconds()) < 60


# Events and the journal's catalog


def catalog_entries() -> list[tuple[str, dict[str, str], str]]:
    """Id, headers and body of each entry of the shipped catalog."""
    entries = []
    for part in re.split(r"(?m)^-- ", CATALOG.read_text())[1:]:
        message_id, _, rest = part.partition("\n")
        head, _, body = rest.partition("\n\n")
        entries.append((message_id, dict(line.split(": ", 1) for line in head.splitlines()), body.strip()))
    return entries


def test_events_have_names_and_ids_of_their_own() -> None:
    ids = [event.message_id for event in EVENTS if event.message_id is not None]

    assert len({event.name for event in EVENTS}) == len(EVENTS) > 20
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", message_id) for message_id in ids)


def test_only_what_the_keeper_says_never_reaches_the_journal() -> None:
    assert {event.speaker for event in EVENTS if event.message_id is None} == {"bee keeper"}
    assert "bee keeper" not in {event.speaker for event in EVENTS if event.message_id is not None}


def test_the_catalog_explains_every_event_and_nothing_else() -> None:
    explained = [message_id for message_id, _, _ in catalog_entries()]

    assert len(set(explained)) == len(explained)
    assert set(explained) == {event.message_id for event in EVENTS if event.message_id is not None}


@pytest.mark.parametrize("entry", catalog_entries(), ids=lambda entry: entry[1].get("Subject", entry[0]))
def test_an_explanation_says_what_happened_why_it_may_have_and_what_to_do(
    entry: tuple[str, dict[str, str], str],
) -> None:
    _, headers, body = entry

    assert headers["Subject"]
    assert headers["Defined-By"] == "rbee"
    assert headers["Documentation"].startswith("man:")
    happened, why, to_do = body.split("\n\n")
    assert happened.endswith(".")
    assert why.endswith(".")
    # A command, the page that has one, or the word that none is needed.
    assert re.search(r"rbeectl |systemctl |journalctl |\(5\)|Nothing needs to be done", to_do)
    assert max(map(len, body.splitlines())) <= 105


@pytest.mark.parametrize("entry", catalog_entries(), ids=lambda entry: entry[1]["Subject"])
def test_an_explanation_names_only_fields_that_are_documented(entry: tuple[str, dict[str, str], str]) -> None:
    _, headers, body = entry

    assert set(re.findall(r"@(\w+)@", headers["Subject"] + body)) <= set(documented_fields())


MANUAL = Path(__file__).parents[2] / "packaging/man/rbee-journal-fields.7"


def documented_fields() -> list[str]:
    return re.findall(r"(?m)^\.It Va (\w+)", MANUAL.read_text())


def test_the_manual_has_each_event_with_its_id_priority_and_speaker() -> None:
    rows = re.findall(r"(?m)^\.It Sy ([a-z-]+) Pq ([a-z ]+), (\w+)\n\.Li ([0-9a-f]{32})$", MANUAL.read_text())

    words = {ERROR: "err", WARNING: "warning", NOTICE: "notice", INFO: "info", DEBUG: "debug"}
    assert rows == [
        (event.name, event.speaker, words[event.priority], event.message_id)
        for event in EVENTS
        if event.message_id is not None
    ]


def test_the_manual_has_each_field_that_is_written(
    tmp_path: Path, journald: socket.socket, journal_at: JournalAt
) -> None:
    asked_for = {
        "job_id", "hive", "model", "worker", "invocation", "fetch", "sha256", "request", "actor_uid",
        "actor_pid", "printed_at",
    }  # fmt: skip
    journal_at(tmp_path / "journal", io.StringIO()).narrate(ADDING, "hm", **dict.fromkeys(asked_for, "7"))

    assert set(documented_fields()) == set(parse_native(journald.recv(65536)))


def test_no_other_field_is_narrated() -> None:
    """Fields are keyword arguments of narrate() and about(); their names are read off the code."""
    given = set()
    for path in (MANUAL.parents[2] / "rbee").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("narrate", "about"):
                given |= {keyword.arg for keyword in node.keywords if keyword.arg}

    assert {f"RBEE_{name.upper()}" for name in given} <= set(documented_fields())


@pytest.mark.parametrize(
    "event", [event for event in EVENTS if event.priority <= ERROR], ids=lambda e: e.name
)
def test_an_error_is_never_explained_as_nothing_to_do(event: Event) -> None:
    (body,) = [body for message_id, _, body in catalog_entries() if message_id == event.message_id]

    assert "Nothing needs to be done" not in body
