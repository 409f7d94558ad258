"""Narration: lines about what happens, for people.

An Event names a kind of line, so that the journal can explain it (MESSAGE_ID, the file rbee.catalog) and
programs can match it. A Narrator takes lines; the base class is silent.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from rbee.errors import TEXT_LIMIT
from rbee.text import printable, shortened
from rbee.wire.lines import Line, Speaker

if TYPE_CHECKING:
    from rbee.wire.jobs import JobStarted

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")

ALERT, ERROR, WARNING, NOTICE, INFO, DEBUG = 1, 3, 4, 5, 6, 7


class Event(NamedTuple):
    """A kind of line; `message_id` is None for the keeper's own, which are never in the journal."""

    name: str
    speaker: Speaker
    message_id: str | None
    priority: int = INFO


QUEEN_ASLEEP = Event("queen-asleep", "bee keeper", None)
QUEEN_AWAKE = Event("queen-awake", "bee keeper", None)
REQUESTING = Event("requesting", "bee keeper", None)
SHUTTING_DOWN_QUEEN = Event("shutting-down-queen", "bee keeper", None)
SENDING_TO_SLEEP = Event("sending-to-sleep", "bee keeper", None)
OPENING_TCP = Event("opening-tcp", "bee keeper", None)
CLOSING_TCP = Event("closing-tcp", "bee keeper", None)
LOOKING_AT_HOST = Event("looking-at-host", "bee keeper", None)
HANDING_OVER = Event("handing-over", "bee keeper", None)
WAITING_FOR_APT = Event("waiting-for-apt", "bee keeper", None)
REACHING_QUEEN = Event("reaching-queen", "bee keeper", None)
COMPARING_KEYS = Event("comparing-keys", "bee keeper", None)
JOINING_QUEEN = Event("joining-queen", "bee keeper", None)
STARTING_HIVE = Event("starting-hive", "bee keeper", None)
QUEEN_LOST = Event("queen-lost", "bee keeper", None)
QUEEN_RETURNED = Event("queen-returned", "bee keeper", None)

QUEEN_STARTED = Event("queen-started", "queen bee", "7e0a31c5fa9b4f7f9d0ed3a8a6c0b5d1")
ADDING = Event("adding", "queen bee", "c1d4ab0e5d9c4a53a9cf2f5fbf2c94e2", NOTICE)
WAKING = Event("waking", "queen bee", "5e1f5e2f9a6a4d0b8f0a4f7de2b0c6a3")
HIVE_AWAKE = Event("hive-awake", "queen bee", "0b5b9de1c21f4f0bbf6f3f1c97a5d2e4")
FIRST_HEARTBEAT = Event("first-heartbeat", "queen bee", "93a1c6f2b7e84d1e8c5d0a9be47f31f5")
ASKING_DEVICES = Event("asking-devices", "queen bee", "2f8d7b64e0c94c5ab3a17e6d5c90f8a6")
HAS_DEVICES = Event("has-devices", "queen bee", "d86c0f3e1ab7459e9c24b1f7a3e5d0b7", NOTICE)
DEVICES_CHANGED = Event("devices-changed", "queen bee", "f46622d6d19d467d9ed78da48ad16fc7", NOTICE)
DEVICES_UNKNOWN = Event("devices-unknown", "queen bee", "25a564f0d562477a903f07c24cb0c837", WARNING)
ADD_FAILED = Event("add-failed", "queen bee", "a47e9b1d3c5f4826b0d8e6f2714c9ad8", ERROR)
HIVE_ONLINE = Event("hive-online", "queen bee", "6c2ef0a9d1784b35a7e94c8b0f63d5e9", NOTICE)
HIVE_SUSPECT = Event("hive-suspect", "queen bee", "f19b6d8c2e404a7cb5f3079e8ad1c6aa", WARNING)
HIVE_OFFLINE = Event("hive-offline", "queen bee", "38d5c7a0b9f14e629e0d6b4fa1c872bb", WARNING)
REMOVING = Event("removing", "queen bee", "b20f8e4d7a6c49c1835e9d1bf7a064cc", NOTICE)
REMOVED = Event("removed", "queen bee", "4d7b1f9ce3a046f8a12c8e05d9b6f7dd", NOTICE)
REMOVE_FAILED = Event("remove-failed", "queen bee", "e5a3097b8c1d4fb6942f7ad06e1cb8ee", ERROR)
HIVE_JOINED = Event("hive-joined", "queen bee", "8d3c1a7be2f04f6fa5c97b1e60d2f384", NOTICE)
JOIN_REFUSED = Event("join-refused", "queen bee", "0f7e52c9ab3d4d18b6a4c2e97f15d03a", WARNING)
HIVE_CLONED = Event("hive-cloned", "queen bee", "b5a90e4d7c1f4233986ed05f2ab8c71e", ERROR)
HIVES_LOST = Event("hives-lost", "queen bee", "a2d64c0f5be84917b3f0c7158e9d26a4", WARNING)
FLEET_LOST = Event("fleet-lost", "queen bee", "e21b7f60d94c4ea1a83f5c07d6b9e248", ERROR)
HIVE_TOLD = Event("hive-told", "queen bee", "4c8d90b1e37a4f529d06a7e2f5c3b18f")
HIVE_NOT_TOLD = Event("hive-not-told", "queen bee", "96e3a2f7c50b4d8ea17c4b9d0f28e563", WARNING)
HIVE_RESTRAINED = Event("hive-restrained", "queen bee", "5d0c7e83b1f94a62a8e6f2930c4b71dd", WARNING)
KEYS_RENEWED = Event("keys-renewed", "queen bee", "7a16d4c8f92e4b03bd85e1a0c6f37942")
TCP_CLOSED = Event("tcp-closed", "queen bee", "429fc6fba9a84831b63354532db9fc01", ERROR)
TCP_REOPENING = Event("tcp-reopening", "queen bee", "cf0690f1e4bd41da8b9ed866f84c478f", NOTICE)
CATALOG_CHANGED = Event("catalog-changed", "queen bee", "3d356b35ddc26def2405f7e2281e0066", NOTICE)
WORKER_PLACED = Event("worker-placed", "queen bee", "079fe349cb1849390eb1375cd5f7d5fe", NOTICE)
WORKER_WAITS = Event("worker-waits", "queen bee", "3bb09f6589196833a68324f52f439f22", NOTICE)
WORKER_GIVES_WAY = Event("worker-gives-way", "queen bee", "ab75d927155a052b5e17ef5acc2db3ee", NOTICE)
WORKER_AWAKE = Event("worker-awake", "queen bee", "17191974067dc6dbf2aa5182e082558c", NOTICE)
WORKER_UNPLACED = Event("worker-unplaced", "queen bee", "512f39c5160bc028a767223d01e0514d", WARNING)
WORKER_IDLE = Event("worker-idle", "queen bee", "830ee2ff02585e9c6714232950afe824", NOTICE)
WORKER_REMOVED = Event("worker-removed", "queen bee", "faf4c53d4470d59d7c5c80a75b0f5716", NOTICE)
UNSERVING = Event("unserving", "queen bee", "ac9373138ad3b2acc3f0b72549f73872", NOTICE)
UNSERVED = Event("unserved", "queen bee", "154adfda3591e98906b3c9731cb5d850", NOTICE)
UNSERVE_FAILED = Event("unserve-failed", "queen bee", "1fa3cde0b70ddbb544904b67ad48deae", ERROR)
LEASES_CUT = Event("leases-cut", "queen bee", "d009e1e52103f4fcbaff139cea49f5ba", NOTICE)
MODEL_ADDING = Event("adding-model", "queen bee", "620af6e5f2936169c2e5a8b0c99bbe50", NOTICE)
MODEL_WAITS = Event("model-waits", "queen bee", "cb7307362044c81097bc852e6af0e0e5", NOTICE)
MODEL_FETCHING = Event("fetching-model", "queen bee", "e8e6fbb010e09aab58bc2c9bf4c21986")
MODEL_READY = Event("model-ready", "queen bee", "98899dd7f099b68d487ff26830148df6", NOTICE)
MODEL_FAILED = Event("model-failed", "queen bee", "fd2d559aa59f44c7e06c1fe4df348ec9", ERROR)
MODEL_REMOVING = Event("removing-model", "queen bee", "f47330c74f23cb71b32acca5fb54bd0e", NOTICE)
MODEL_REMOVED = Event("model-removed", "queen bee", "e45c6bf67eda19d277b1fb68786f567a", NOTICE)
MODEL_NOT_REMOVED = Event("model-not-removed", "queen bee", "67ef694fa5afbf7890304be53e9dfdaf", ERROR)
SHUTTING_DOWN_HIVES = Event("shutting-down-hives", "queen bee", "1a9c6e5d0f7b4832bd41f8c39e7a05ff", NOTICE)
SHUTDOWN_FAILED = Event("shutdown-failed", "queen bee", "9f04d2b8e6a1473c8b5de70c1f39a210", ERROR)
STORY_FULL = Event("story-full", "queen bee", "3b8e6f10d5c24a97b6e1f7a29c04d853", NOTICE)
FEED_IN_RAM = Event("feed-in-ram", "queen bee", "b1071056155c453788fbdd276fd850f5", WARNING)
FEED_IN_FILE = Event("feed-in-file", "queen bee", "9e46f702df8d4b2b838e2a6172f76e1e", NOTICE)
QUEEN_FAILED = Event("queen-failed", "queen bee", "7bc5e8f1d20a4e96a3f97c64d8b15e21", ERROR)
QUEEN_STOPPING = Event("queen-stopping", "queen bee", "c3f6a90e7d184b5c9e12d8b07f4a6532")

HIVE_STARTED = Event("hive-started", "bee hive", "84b7d1c0e95f4a2d9b6c3f8ea70d1543")
SENDING_HEARTBEAT = Event("sending-heartbeat", "bee hive", "d9e2b5f8061c47a3bc84e7d1f59a0654")
DETECTED = Event("detected", "bee hive", "52c8f1a6be9d4703a5d0b9e47c6f3165", NOTICE)
DETECT_FAILED = Event("detect-failed", "bee hive", "ab40e7d93c6f4158b2e9a1d7f08c5476", ERROR)
QUEEN_AWAY = Event("queen-away", "bee hive", "60f3c9b8d1e74ea5970ad2b6c8f41587", WARNING)
QUEEN_BACK = Event("queen-back", "bee hive", "fd1a7e50c4b9463e8c72e6f9ad035b98")
NOT_IN_CATALOG = Event("not-in-catalog", "bee hive", "157cb4e8f9a04d63b0e5d2a8c6f971a9", WARNING)
JOINED_QUEEN = Event("joined-queen", "bee hive", "2d9f0b64a8c74e31958be7d3f6a1c05d", NOTICE)
JOIN_FAILED = Event("join-failed", "bee hive", "0507505a39384783b2d31faa986e0279", ERROR)
MEMBERSHIP_RESTORED = Event("membership-restored", "bee hive", "623306e6569a40f0b20b44de2e0a8d5c", WARNING)
WAKING_HIVE = Event("waking-hive", "bee hive", "31b8f5d7e6a04c928fd1c07b9e2a4563")
TOLD_TO_LEAVE = Event("told-to-leave", "bee hive", "c07a5e19d3f84b6c8e2149fab6d0e37c", NOTICE)
HIVE_SAID = Event("hive-said", "bee hive", "e3471fb0926c4d58b7a1c9d0f56e8a24")
HIVE_FAILED = Event("hive-failed", "bee hive", "c86d0a9f4e1b4752a3b7f8d5e02c9fba", ERROR)
FETCHING = Event("fetching", "bee hive", "7d31a0c9f5e84b2796b8d2e4a1c05f3b")
FETCHED = Event("fetched", "bee hive", "c2a86e1f7b934d05b1e9f04d6a73c582", NOTICE)
FETCH_FAILED = Event("fetch-failed", "bee hive", "58e0d7b4c6294fa3a7f21b9e830d5c64", ERROR)
FETCH_CANCELLED = Event("fetch-cancelled", "bee hive", "e94b52f8a01d4c67bd3c8a7f15e2690d", NOTICE)
FILE_REMOVED = Event("file-removed", "bee hive", "0c6f9d2e85b7431a9e4d7b30f8a1526c", NOTICE)
WORKER_LOADING = Event("worker-loading", "bee hive", "5f0c1e8a7b3d4926a1d45c9e72b80f13")
ENGINE_STARTING = Event("engine-starting", "bee hive", "d31b7f62c8a04e5f9c60a72e81f45b9d")
ENGINE_SAID = Event("engine-said", "bee hive", "20e91695b79b41328329c08c835cedb1", DEBUG)
WORKER_READY = Event("worker-ready", "bee hive", "8a2e64d0f19b4c37b5e80c3d9f7a1264", NOTICE)
WORKER_FAILED = Event("worker-failed", "bee hive", "e90b3c57a41d4f86b2c7d18f603ea95c", ERROR)
WORKER_RESTARTED = Event("worker-restarted", "bee hive", "1c75d9ab60e24f3d8b97f2c04a6e38d5", WARNING)
WORKER_STOPPED = Event("worker-stopped", "bee hive", "b64d20f8e35c4179a0d9e7138c5f62ba", NOTICE)
WORKER_ADOPTED = Event("worker-adopted", "bee hive", "42f9a70d6c8b4e15937ed0b1c8a5f36e", NOTICE)
ESTIMATE_FAILED = Event("estimate-failed", "bee hive", "2c208243a0d24c6c89014adc315f5cdc", WARNING)
MEMORY_HELD = Event("memory-held", "bee hive", "f7083be1d95a4c62ae14b6d07c932f58", WARNING)
GOODBYE = Event("goodbye", "bee hive", "29e5f7b0a8d34c169f4ec1d7b6a085cb", NOTICE)

GATEWAY_STARTED = Event("gateway-started", "bee gateway", "4b3a7a988f50433e932a1c7762af06bd")
REQUEST_HELD = Event("request-held", "bee gateway", "5f799923f5ef448481fa155b5a047faf")
REQUEST_WOKE = Event("request-woke", "bee gateway", "96dd6ecdb51446c09f6a5ffe3de5c68d", NOTICE)
REQUEST_REFUSED = Event("request-refused", "bee gateway", "2571336d32444540b9213f1a6695c239", WARNING)
ENGINE_BROKE = Event("engine-broke", "bee gateway", "927248afd2d2455ba93fd1fcd59f2aca", WARNING)
GATEWAY_FAILED = Event("gateway-failed", "bee gateway", "78bb958dacfe45a3b7d4199327723476", ERROR)
GATEWAY_STOPPING = Event("gateway-stopping", "bee gateway", "2e6c07043b0d48f6bbda307765b71755")

CONFIG_WARNING = Event("config-warning", "queen bee", "ee8ba1d6c0f5437982dcb9f4a7e160dc", WARNING)

EVENTS = tuple(value for value in list(globals().values()) if isinstance(value, Event))

HIVE_EVENTS = frozenset(event.name for event in EVENTS if event.speaker == "bee hive")
"""The events that a hive's own lines may have."""


class Narrator:
    """Takes lines and drops them. `fields` of a line become journal fields: job_id RBEE_JOB_ID."""

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        """Narrate one line; never raises, never waits."""

    def about(self, **fields: str) -> Narrator:
        """Return a narrator that adds these fields to each line."""
        return _About(self, fields)


class _About(Narrator):
    def __init__(self, narrator: Narrator, fields: Mapping[str, str]) -> None:
        self._narrator = narrator
        self._fields = fields

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self._narrator.narrate(event, text, **{**self._fields, **fields})


class Chorus(Narrator):
    """Passes each line to several narrators, in this order."""

    def __init__(self, *narrators: Narrator) -> None:
        self._narrators = narrators

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        for narrator in self._narrators:
            narrator.narrate(event, text, **fields)


class Journal(Narrator):
    """Writes native entries for systemd-journald, so that journalctl can match RBEE_JOB_ID= and others.

    Written by hand because it is on the path of a hive's first heartbeat: a datagram costs 2 µs, importing
    pystemd.journal 30 ms. The format is that of https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. Without a
    journal the lines go to stderr.

    Values are escaped, including line ends: `journalctl -o cat` shows a value unchanged, and the other
    outputs treat one that is not printable as binary.
    """

    def __init__(self, identifier: str, path: Path = JOURNAL_SOCKET, fallback: TextIO = sys.stderr) -> None:
        self._identifier = identifier
        self._path = os.fspath(path)
        self._fallback = fallback
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # A stuck journald must not delay heartbeats; systemd's own clients use a queue of 8 MiB too.
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024 * 1024)

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        entry = {
            "MESSAGE": printable(text),
            "PRIORITY": str(event.priority),
            "SYSLOG_IDENTIFIER": self._identifier,
            "RBEE_EVENT": event.name,
            "RBEE_SPEAKER": event.speaker,
            **({"MESSAGE_ID": event.message_id} if event.message_id else {}),
            **{f"RBEE_{name.upper()}": printable(value) for name, value in fields.items()},
        }
        datagram = "".join(f"{name}={value}\n" for name, value in entry.items()).encode()
        try:
            self._socket.sendto(datagram, self._path)
        except BlockingIOError:
            pass  # the queue to journald is full; stderr goes to it too, and would block
        except OSError:
            with suppress(OSError):
                print(f"<{event.priority}>{entry['MESSAGE']}", file=self._fallback, flush=True)


class Teller(Narrator):
    """Shows lines to the user, the keeper's own and those of the daemons."""

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.relay(line_of(event, text))

    def begin(self, job: JobStarted) -> None:
        """Note that a job has begun, whose lines follow."""

    def relay(self, line: Line) -> None:
        """Show a line as it is."""

    @contextmanager
    def asking(self) -> Iterator[None]:
        """A context in which another program, such as ssh, asks the user on the terminal."""
        yield

    def close(self, *, went_well: bool) -> None:
        """End the output; no more lines follow."""


def line_of(event: Event, text: str) -> Line:
    """Return a line with the present time; the middle of a text beyond TEXT_LIMIT is cut."""
    return Line(speaker=event.speaker, text=shortened(text, TEXT_LIMIT), event=event.name, at=now_rfc3339())


def now_rfc3339() -> str:
    """Return the present time in UTC as RFC 3339, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
