"""Who may have how many, and that the table of limits in queen-rbee.service(8) says what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from rbee.client.answers import ANSWER_LIMIT
from rbee.engines.estimate import BYTES_MAX, DEADLINE, OUTPUT_MAX
from rbee.errors import BadInput, HeadTooLarge, HiveFailed, TooLarge, TooMany, TooSlow, UnknownJob
from rbee.hive.workers.estimates import (
    ASK_AGAIN,
    KEPT_MAX,
    LOOK_TIMEOUT,
    LOOKS_MAX,
    RUN_TIMEOUT,
    TRY_AGAIN,
    WAITING_MAX,
)
from rbee.narration import STORY_FULL
from rbee.queen import restraint
from rbee.queen.backlog import KEPT, KEPT_SIZE, OPERATORS_KEPT, OPERATORS_SIZE
from rbee.queen.feed import WATCHERS
from rbee.queen.hives.liveness import BEATS_A_SECOND
from rbee.queen.jobs import STORY_LIMIT, STORY_SIZE, STREAMS
from rbee.queen.store import audit
from rbee.queen.store.tokens import TOKENS_MAX
from rbee.server import connection, listener
from rbee.server.connection import CONNECTIONS, HIVE_CONNECTIONS
from rbee.server.limits import Bound, Limits
from rbee.server.peer import Peer
from rbee.uplink.accept import ASKED_AT_ONCE, CARRIER_IDLE, CARRIERS_MAX, DIAL_TIMEOUT
from rbee.uplink.frames import FRAME_LIMIT
from rbee.wire.catalog import Audit
from rbee.wire.devices import Devices
from rbee.wire.fleet import CreateToken, Join
from rbee.wire.hives import Label, SetCordon, SetLabels
from rbee.wire.keys import KEYS_MAX, CreateKey
from rbee.wire.models import MODELS_MAX, Serve
from rbee.wire.types import Limit

PAGES = Path(__file__).parents[3] / "packaging/man"


def limits() -> dict[str, tuple[str, str]]:
    """What is bounded, with its limit and what comes beyond it."""
    _, _, page = (PAGES / "queen-rbee.service.8").read_text().partition(".Sh LIMITS\n")
    rows = [line.removeprefix(".It ").split(" Ta ") for line in page.splitlines() if " Ta " in line]
    found = {what: (limit, beyond) for what, limit, beyond in rows if what != "Em What"}
    assert len(found) == len([row for row in rows if row[0] != "Em What"])
    return found


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
    failed, bad = (f"{error.status} {error.slug}" for error in (HiveFailed, BadInput))
    card, label, key, token, cordon, told = (
        limit_of(Devices, "gpus"), limit_of(SetLabels, "set"),
        limit_of(Label, "key"), CreateToken, limit_of(SetCordon, "reason"),
        limit_of(Audit, "entries"),
    )  # fmt: skip
    days = f"{limit_of(token, 'ttl_s') / 86400:g} d"

    assert limits() == {
        "request line and headers": (size(connection.HEAD_LIMIT, "B"), head),
        "time to receive them": (f"{connection.HEAD_TIMEOUT:g} s", slow),
        "body": (size(connection.BODY_LIMIT, "B"), large),
        "time to receive it": (f"{connection.BODY_TIMEOUT:g} s", slow),
        "chunk sizes and trailers": (size(connection.FRAMING_LIMIT, "B"), large),
        "requests waiting, a connection": (f"{connection.PIPELINE_LIMIT}", "closed"),
        "time to take what is sent": (f"{connection.SEND_TIMEOUT:g} s", "closed"),
        "connection between requests": (f"{connection.IDLE_TIMEOUT:g} s", "closed"),
        "connection between requests, hive": (f"{connection.DAEMON_IDLE_TIMEOUT:g} s", "closed"),
        "connections of a process": (f"{CONNECTIONS.a_process}", many),
        "connections of the gateway": (f"{CONNECTIONS.a_daemon}", many),
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
        "older events of operators": (f"{OPERATORS_KEPT}", "event gap"),
        "bytes of those": (size(OPERATORS_SIZE, "B"), "event gap"),
        "lines of a story": (f"{STORY_LIMIT}", full),
        "characters of its lines": (size(STORY_SIZE), full),
        "jobs that run": ("Va JobsMax=", many),
        "jobs that are kept": ("Va JobsMax=", job),
        "TLS handshake": (f"{listener.HANDSHAKE_TIMEOUT:g} s", "closed"),
        "connections without certificate": (f"{listener.UNAUTHENTICATED_MAX}", "oldest closed"),
        "the same of one address": (f"{listener.UNAUTHENTICATED_AN_ADDRESS}", "closed"),
        "the same between requests": (f"{connection.HEAD_TIMEOUT:g} s", "closed"),
        "connections of a hive": (f"{HIVE_CONNECTIONS.a_user}", many),
        "connections of all hives": (f"{HIVE_CONNECTIONS.total}", many),
        "acknowledging what is sent": (f"{listener.USER_TIMEOUT / 1000:g} s", "closed"),
        "heartbeats a second": (f"{BEATS_A_SECOND:g}", "longer interval"),
        "refused joins of an address": (at_a_rate(restraint.JOINS), many),
        "times that a hive connects": (at_a_rate(restraint.STREAMS), many),
        "changes of its devices": (at_a_rate(restraint.DETECTIONS), "asked later"),
        "lines that it sends": (at_a_rate(restraint.LINES), "left out"),
        "certificates of a hive": (at_a_rate(restraint.RENEWALS), many),
        "requests to a hive, unanswered": (f"{ASKED_AT_ONCE}", failed),
        "heartbeat over TCP": (size(FRAME_LIMIT, "B"), "closed"),
        "the same, at once": (f"{CARRIERS_MAX}", "wait"),
        "until a hive has dialled for one": (f"{DIAL_TIMEOUT:g} s", failed),
        "dialled connection, idle": (f"{CARRIER_IDLE:g} s", "closed"),
        "answer of a hive": (size(ANSWER_LIMIT, "B"), failed),
        "GPUs in it": (f"{card}", failed),
        "tokens": (f"{TOKENS_MAX}", many),
        "life of a token": (days, bad),
        "uses of a token": (f"{limit_of(token, 'uses')}", bad),
        "models": (f"{MODELS_MAX}", many),
        "tokens of a model's context": (f"{limit_of(Serve, 'context')}", bad),
        "keys of clients that can be used": (f"{KEYS_MAX}", many),
        "models of a key": (f"{limit_of(CreateKey, 'models')}", bad),
        "labels of a hive": (f"{label}", bad),
        "characters of a label key or value": (f"{key}", bad),
        "characters of the reason of a cordon": (f"{cordon}", bad),
        "entries of the audit, operators'": (f"{audit.AUDIT_KEPT}", "oldest dropped"),
        "entries of the audit, machines'": (f"{audit.AUDIT_KEPT_MACHINES}", "oldest dropped"),
        "entries of the audit, a hive's": (f"{audit.AUDIT_KEPT_A_HIVE}", "oldest dropped"),
        "characters of a new hive's name": (f"{limit_of(Join, 'name')}", bad),
        "entries in one answer": (f"{told}", bad),
    }


def at_a_rate(bound: restraint.Bound) -> str:
    return f"{bound.burst}, then 1 in {bound.every:g} s"


def limit_of(shape: Any, field: str) -> int:
    """The most that a shape's field takes."""
    kinds = [get_type_hints(shape, include_extras=True)[field]]
    while kinds:
        kind = kinds.pop()
        for about in getattr(kind, "__metadata__", ()):
            if isinstance(about, Limit):
                return int(about.most)
        kinds += get_args(kind)
    raise AssertionError(f"{shape.__name__}.{field} has no limit")


def test_descriptors_are_no_limit_before_the_connections_are() -> None:
    units = PAGES.parents[1] / "units"
    local = CONNECTIONS.total + CONNECTIONS.kept + connection.TURNED_AWAY_MAX
    remote = HIVE_CONNECTIONS.total + listener.UNAUTHENTICATED_MAX
    for unit, connections in (("queen-rbee.service", local + remote), ("rbee-hive.service", local)):
        (found,) = re.findall(r"(?m)^LimitNOFILE=(\d+)$", (units / unit).read_text())
        assert int(found) > max(2 * local, connections)


# Who may have how many

ADA, BOB, HIVE, ROOT = 1000, 1001, 998, 0

BOUND = Bound(total=10, kept=3, a_user=6, a_process=4)


def seats_taken() -> Limits:
    return Limits("seats are taken", BOUND, daemons=(HIVE,))


def take(seats: Limits, uid: int, pids: Iterable[int]) -> int:
    """How many of these processes get a place."""
    taken = 0
    for pid in pids:
        try:
            seats.take(Peer(pid, uid, uid))
        except TooMany:
            continue
        taken += 1
    return taken


@pytest.mark.parametrize("uid", [ADA, HIVE, ROOT])
def test_a_process_has_its_share_and_leaves_the_rest_to_others_of_its_user(uid: int) -> None:
    seats = seats_taken()

    assert take(seats, uid, [7] * 9) == 4
    assert take(seats, uid, [8]) == 1


def test_a_daemon_s_process_has_a_share_of_its_own() -> None:
    seats = Limits("seats are taken", BOUND._replace(a_daemon=7), daemons=(HIVE,))

    assert take(seats, HIVE, [7] * 9) == 7
    assert take(seats, ROOT, [8] * 9) == 4


def test_a_user_has_a_share_and_leaves_the_rest_to_others() -> None:
    seats = seats_taken()

    assert take(seats, ADA, range(9)) == 6
    assert take(seats, BOB, range(9)) == 4
    assert take(seats, ADA, [99]) + take(seats, BOB, [99]) == 0


@pytest.mark.parametrize("uid", [ROOT, HIVE])
def test_root_and_the_daemons_get_through_when_others_took_all(uid: int) -> None:
    seats = seats_taken()
    assert take(seats, ADA, range(9)) + take(seats, BOB, range(9)) == 10

    assert take(seats, uid, range(9)) == 3


def test_what_is_given_back_is_there_for_all_and_nothing_is_kept_of_who_is_gone() -> None:
    seats = seats_taken()
    for _ in range(3):
        assert take(seats, ADA, [7] * 4) == 4
        for _ in range(4):
            seats.give_back(Peer(7, ADA, ADA))

    assert seats.taken == 0
    assert not seats._by_process


@pytest.mark.parametrize(
    ("taken", "asks", "said"),
    [
        ([(ADA, 7)] * 4, (ADA, 7), "4 seats are taken by process 7, the limit for one process"),
        (
            [(ADA, pid) for pid in range(6)],
            (ADA, 9),
            "6 seats are taken by user 1000, the limit for one user",
        ),
        (
            [(ADA, pid) for pid in range(5)] + [(BOB, pid) for pid in range(5)],
            (BOB, 9),
            "10 seats are taken, the limit",
        ),
    ],
)
def test_who_is_refused_is_told_which_limit_it_is(
    taken: list[tuple[int, int]], asks: tuple[int, int], said: str
) -> None:
    seats = seats_taken()
    for uid, pid in taken:
        seats.take(Peer(pid, uid, uid))

    with pytest.raises(TooMany) as caught:
        seats.take(Peer(asks[1], asks[0], asks[0]))

    assert (caught.value.message, caught.value.hint) == (said, "Close one and try again.")
    assert seats.taken == len(taken)


def test_the_pages_have_the_limits_of_a_command_that_says_what_a_model_needs() -> None:
    hive, engine = (
        " ".join((PAGES / name).read_text().split()) for name in ("rbee-hive.service.8", "rbee.engine.5")
    )

    assert f"may take {DEADLINE:g} seconds and print {size(OUTPUT_MAX, 'B')}" in hive
    assert f"One runs at a time, and {WAITING_MAX} may run or wait" in hive
    assert f"the last {KEPT_MAX} answers" in hive
    assert f"has {LOOK_TIMEOUT:g} seconds to answer; {LOOKS_MAX} may be looked at" in hive
    assert f"not run it within {RUN_TIMEOUT:g} seconds, it is tried again after {TRY_AGAIN:g}" in hive
    assert f"is started again after {TRY_AGAIN:g} seconds" in engine
    assert ASK_AGAIN == 600
    assert "a failure is kept for ten minutes" in hive
    assert f"from 1 to {BYTES_MAX}, which is 64 TiB" in engine
    assert f"more than {size(OUTPUT_MAX, 'B')} of output, or after {DEADLINE:g} seconds" in engine
    unit = (PAGES.parents[1] / "units/rbee-estimate.service").read_text()
    assert "MemoryMax=2G\n" in unit
    assert "TasksMax=256\n" in unit
    assert "It may use 2 GiB of memory and 256 threads" in engine
