"""The table of limits in queen-rbee.service(8) says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from rbee.errors import HeadTooLarge, TooLarge, TooMany, TooSlow, UnknownJob
from rbee.narration import STORY_FULL
from rbee.queen.feed import KEPT, KEPT_SIZE, WATCHERS
from rbee.queen.jobs import STORY_LIMIT, STORY_SIZE, STREAMS
from rbee.server import connection
from rbee.server.connection import CONNECTIONS

PAGES = Path(__file__).parents[3] / "packaging/man"


def limits() -> dict[str, tuple[str, str]]:
    """What is bounded, with its limit and what comes beyond it."""
    _, _, page = (PAGES / "queen-rbee.service.8").read_text().partition(".Sh LIMITS\n")
    rows = [line.removeprefix(".It ").split(" Ta ") for line in page.splitlines() if " Ta " in line]
    return {what: (limit, beyond) for what, limit, beyond in rows[1:]}


def size(count: int, unit: str = "") -> str:
    for letter, factor in (("M", 2**20), ("K", 2**10)):
        if count % factor == 0:
            return f"{count // factor} {letter}i{unit}"
    return f"{count}"


def test_the_manual_has_each_limit_with_its_refusal() -> None:
    head, slow, large, many, job = (
        f"{error.status} {error.slug}" for error in (HeadTooLarge, TooSlow, TooLarge, TooMany, UnknownJob)
    )
    full = f"line {STORY_FULL.name}"

    assert limits() == {
        "request line and headers": (size(connection.HEAD_LIMIT, "B"), head),
        "until they have come": (f"{connection.HEAD_TIMEOUT:g} s", slow),
        "body": (size(connection.BODY_LIMIT, "B"), large),
        "until it has come": (f"{connection.BODY_TIMEOUT:g} s", slow),
        "chunk sizes and trailers": (size(connection.FRAMING_LIMIT, "B"), large),
        "requests waiting, a connection": (f"{connection.PIPELINE_LIMIT}", "closed"),
        "until what is sent is taken": (f"{connection.SEND_TIMEOUT:g} s", "closed"),
        "connection between requests": (f"{connection.IDLE_TIMEOUT:g} s", "closed"),
        "connection between requests, hive": (f"{connection.DAEMON_IDLE_TIMEOUT:g} s", "closed"),
        "connections of a process": (f"{CONNECTIONS.a_process}", many),
        "connections of a user": (f"{CONNECTIONS.a_user}", many),
        "connections of all": (f"{CONNECTIONS.total}", many),
        "stories read by a process": (f"{STREAMS.a_process}", many),
        "stories read by a user": (f"{STREAMS.a_user}", many),
        "stories read by all": (f"{STREAMS.total}", many),
        "streams of events of a process": (f"{WATCHERS.a_process}", many),
        "streams of events of a user": (f"{WATCHERS.a_user}", many),
        "streams of events of all": (f"{WATCHERS.total}", many),
        "events kept for them": (f"{KEPT}", "event gap"),
        "bytes of these events": (size(KEPT_SIZE, "B"), "event gap"),
        "lines of a story": (f"{STORY_LIMIT}", full),
        "characters of its lines": (size(STORY_SIZE), full),
        "jobs that run": ("Va JobsMax=", many),
        "jobs that are kept": ("Va JobsMax=", job),
    }


def test_descriptors_are_no_limit_before_the_connections_are() -> None:
    units = PAGES.parents[1] / "units"
    for unit in ("queen-rbee.service", "rbee-hive.service"):
        (found,) = re.findall(r"(?m)^LimitNOFILE=(\d+)$", (units / unit).read_text())
        assert int(found) > 2 * (CONNECTIONS.total + CONNECTIONS.kept + connection.TURNED_AWAY_MAX)
