"""The frozen shapes that cross a wire or a table, and the routes they cross on.

A shape is a frozen dataclass whose annotations are the whole truth about it: `decode`
checks JSON against them, `encode` writes JSON, `schema` tells OpenAPI. Fields that a
shape does not know are ignored, so that a newer peer can say more.

(No slots here: they would make each class twice, and rbeectl start 4 ms later.)
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar, Union

from rbee.errors import TEXT_LIMIT, BadInput

Shape = TypeVar("Shape")


@dataclass(frozen=True)
class Limit:
    """Bounds of an annotated field: of the value for a number, of the length for the rest.

    `words` says to a person what a pattern says to a program: what the value must be.
    """

    least: int
    most: int
    pattern: str | None = None
    words: str | None = None
    format: str | None = None


DEFAULT_PORT = 8600
QUEEN_PORT = 8500
"""Where a queen listens for hives on other machines."""
LOCALHOST = "localhost"
"""The id and the host of the hive that is on the queen's own machine."""

_ENDS = ", and begin and end with a letter or a digit"
_HEX = "made of the digits 0 to 9 and a to f"
_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_NAME_IN_WORDS = f"made of English letters, digits, '.', '_' and '-'{_ENDS}"

Name = Annotated[str, Limit(1, 253, _NAME, _NAME_IN_WORDS)]
NewName = Annotated[str, Limit(1, 63, _NAME, _NAME_IN_WORDS)]
"""A Name that a table can show, for what joins from now on: as long as a label of DNS may be."""

Port = Annotated[int, Limit(1, 65535)]

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
Host = Annotated[
    str,
    Limit(
        1,
        254,
        rf"{_LABEL}(\.{_LABEL})*\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*",
        "a host's name, with at most 63 characters between two dots, or an IP address",
    ),
]
"""A queen's host name, with or without the root's dot at its end, or her IPv4 or IPv6 address.

No label is empty or longer than 63: the resolver's own codec raises UnicodeError at such a name.
"""

JobId = Annotated[str, Limit(32, 32, r"[0-9a-f]{32}", _HEX)]
Timestamp = Annotated[str, Limit(20, 40, format="date-time")]
Text = Annotated[str, Limit(0, TEXT_LIMIT)]
Word = Annotated[str, Limit(1, 64, r"[a-z0-9-]+", "made of small English letters, digits and '-'")]
Count = Annotated[int, Limit(0, 2**53)]
EventId = Annotated[int, Limit(0, 999_999_999)]
Fingerprint = Annotated[str, Limit(1, 64, r"[0-9a-f]+", _HEX)]
Percent = Annotated[float, Limit(0, 100)]
Cpus = Annotated[float, Limit(0, 10**6)]
Load = Annotated[float, Limit(0, 10**9)]
Seconds = Annotated[float, Limit(0, 10**9)]
Celsius = Annotated[float, Limit(-274, 10_000)]
Watts = Annotated[float, Limit(0, 10**6)]
FeedId = Annotated[str, Limit(18, 32, r"[0-9a-f]{16}-[0-9]{1,15}", "the id of an event, such as one before")]
Priority = Annotated[int, Limit(0, 7)]
Pem = Annotated[str, Limit(1, 8000)]
MachineId = Annotated[str, Limit(32, 32, r"[0-9a-f]{32}", _HEX)]
TokenId = Annotated[str, Limit(8, 8, r"[0-9a-f]{8}", _HEX)]
LabelKey = Annotated[
    str,
    Limit(
        1,
        63,
        r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?",
        f"made of English letters, digits, '.', '_', '/' and '-'{_ENDS}",
    ),
]
LabelValue = Annotated[
    str,
    Limit(
        0,
        63,
        r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?",
        f"empty, or made of English letters, digits, '.', '_' and '-'{_ENDS}",
    ),
]


def is_same_name(one: str, other: str | None) -> bool:
    """Hives are named as hosts are, and GPU1 and gpu1 are one host (RFC 4343)."""
    return other is not None and one.lower() == other.lower()


def spelled(name: str, names: Iterable[str]) -> str:
    """The name as it is among `names`, where a hive of it is; else as it is.

    A catalog from before 0.5.0 may have two that differ by case alone: each is meant by its own spelling.
    """
    same = [there for there in names if is_same_name(name, there)]
    return name if not same or name in same else same[0]


Status = Literal["pending", "online", "offline"]
State = Literal["unknown", "pending", "online", "suspect", "offline"]
Speaker = Literal["bee keeper", "queen bee", "bee hive"]
MemoryKind = Literal["dedicated", "shared"]


# What a machine has


@dataclass(frozen=True)
class Cpu:
    """What the machine does not tell is None; `model` names one socket's processor.

    `cpus_allowed` and `ram_allowed_bytes` are what the cgroup of a guest, or of all that rbee runs,
    leaves of threads and RAM; None where that is all of it. A hive before 0.5.0 tells neither.
    """

    model: Text | None
    sockets: Count | None
    cores: Count | None
    threads: Count | None
    ram_bytes: Count | None
    cpus_allowed: Cpus | None = None
    ram_allowed_bytes: Count | None = None


@dataclass(frozen=True)
class Gpu:
    """One card. What its driver does not report is None; `problem` says what is wrong with the card.

    `index` counts the hive's cards from 0 in the order of their PCI addresses;
    `vendor` is 'nvidia', 'amd', 'intel' or the PCI vendor id as four hex digits.
    `memory_kind` is 'dedicated' for a card with memory of its own, 'shared' for one that computes
    in the machine's RAM. `vram_bytes` is its own memory, of a card that shares what the firmware has
    set aside for it; `shared_memory_bytes` is how much of the RAM it may use beside that.
    """

    index: Count
    vendor: Word
    name: Text | None
    uuid: Text | None
    vram_bytes: Count | None
    driver: Text | None
    pci_address: Text | None
    problem: Text | None = None
    memory_kind: MemoryKind | None = None
    shared_memory_bytes: Count | None = None

    @property
    def memory_bytes(self) -> int | None:
        """All the memory that the card can use; None if that is not known."""
        if self.memory_kind != "shared":
            return self.vram_bytes
        if self.shared_memory_bytes is None:
            return None
        return self.shared_memory_bytes + (self.vram_bytes or 0)


@dataclass(frozen=True)
class Finding:
    """Something that kept detection from seeing all there is; `code` is stable, `detail` is for eyes."""

    code: Word
    detail: Text


@dataclass(frozen=True)
class Devices:
    """The answer of a hive's /v1/devices."""

    cpu: Cpu
    gpus: Annotated[tuple[Gpu, ...], Limit(0, 256)] = ()
    findings: Annotated[tuple[Finding, ...], Limit(0, 64)] = ()
    model_catalog: Annotated[tuple[Name, ...], Limit(0, 10_000)] = ()
    worker_catalog: Annotated[tuple[Name, ...], Limit(0, 10_000)] = ()


# What it does right now


@dataclass(frozen=True)
class GpuSample:
    """One card at one moment; `index` is that of its Gpu in the devices last detected.

    What the card does not tell, or not now, is None; `problem` says why where something is wrong.
    """

    index: Count
    uuid: Text | None
    pci_address: Text | None
    utilisation_percent: Percent | None
    memory_used_bytes: Count | None
    memory_total_bytes: Count | None
    temperature_celsius: Celsius | None
    power_watts: Watts | None
    problem: Text | None = None


@dataclass(frozen=True)
class Sample:
    """A machine at one moment, as its hive tells it.

    `load_1`, `load_5` and `load_15` are the kernel's averages over as many minutes. `cpu_percent`
    is of all threads together, an average over the last `cpu_span_seconds`; both are None where
    the hive has not run long enough for one. Used memory is what no program could have at once.
    """

    hive_id: Name
    at: Timestamp
    load_1: Load | None
    load_5: Load | None
    load_15: Load | None
    cpu_percent: Percent | None
    cpu_span_seconds: Seconds | None
    memory_used_bytes: Count | None
    memory_total_bytes: Count | None
    gpus: Annotated[tuple[GpuSample, ...], Limit(0, 256)] = ()


# What is said


@dataclass(frozen=True)
class Line:
    """One narrated line of a job's story. `event` names the entry of the journal's catalog."""

    speaker: Speaker
    text: Text
    event: Word
    at: Timestamp


MachineEnd = Literal["rebooting", "shutting-down"]
"""What a machine does whose units systemd stops all."""


@dataclass(frozen=True)
class Heartbeat:
    """What a hive sends every interval. `state` is 'starting' before it serves, 'stopping' on its way out.

    `instance` is new with each start of the hive's process; `lines` are narrated lines of
    the job `job_id` that go to the keeper through the queen. `fingerprint` is another one when
    the devices may be others; a hive before 0.3.0 sends none. With 'stopping' `machine` says what
    its machine does; a hive before 0.5.0 does not.
    """

    hive_id: Name
    timestamp: Timestamp
    workers: Annotated[tuple[Name, ...], Limit(0, 10_000)]
    instance: JobId
    state: Literal["starting", "ready", "stopping"] = "ready"
    version: Text = ""
    job_id: JobId | None = None
    lines: Annotated[tuple[Line, ...], Limit(0, 64)] = ()
    fingerprint: Fingerprint | None = None
    machine: MachineEnd | None = None


@dataclass(frozen=True)
class HeartbeatAck:
    """`job_id` names the job that waits for this hive, if one does; `interval_ms` is the beat to keep."""

    status: Literal["ok"]
    interval_ms: Count
    job_id: JobId | None = None


# What is asked


@dataclass(frozen=True)
class AddHive:
    """`port` None leaves the port of a hive that is there as it is; a new one gets DEFAULT_PORT."""

    host: Annotated[str, Limit(1, 253)]
    port: Port | None = None


@dataclass(frozen=True)
class JobStarted:
    hive_id: Name | None
    job_id: JobId
    events: Text


@dataclass(frozen=True)
class Label:
    key: LabelKey
    value: LabelValue


LABELS_MAX = 64


@dataclass(frozen=True)
class HiveView:
    """A row of the catalog with what is known of its life right now.

    `version` is what its last heartbeat said, None where none has come since the queen woke. A hive
    on another machine `is_remote`; then `address` is where it last came from, and `clock_skew_ms` how
    far its clock was ahead of the queen's at its last beat. `interval_ms` is the beat that it was
    told to keep. Of a hive that is cordoned, `cordoned` is the reason. `problem` says what of its row
    could not be read, and is shown as if it were not there.
    """

    id: Name
    host: Name
    port: Port
    status: Status
    devices: Devices | None
    created_at_ms: Count
    updated_at_ms: Count
    wanted: bool
    state: State
    reason: Text
    since_ms: Count
    last_beat_ms: Count | None
    version: Text | None = None
    is_remote: bool = False
    address: Text | None = None
    interval_ms: Count | None = None
    clock_skew_ms: Annotated[int, Limit(-(2**53), 2**53)] | None = None
    labels: Annotated[tuple[Label, ...], Limit(0, LABELS_MAX)] = ()
    cordoned: Text | None = None
    problem: Text | None = None


@dataclass(frozen=True)
class Hives:
    hives: tuple[HiveView, ...]


@dataclass(frozen=True)
class JobView:
    """`state` is 'running' until the story's last event, 'done' or 'error'."""

    id: JobId
    kind: Literal["add-hive", "remove-hive", "shutdown"]
    hive_id: Name | None
    state: Literal["running", "done", "error"]
    started_at_ms: Count
    ended_at_ms: Count | None
    lines: Count
    events: Text


@dataclass(frozen=True)
class Jobs:
    jobs: tuple[JobView, ...]


@dataclass(frozen=True)
class Done:
    """The data of a story's last event when all went well; `hive` is None where none is left.

    `was_there` is false where a hive was to be removed that is not in the catalog.
    """

    hive: HiveView | None
    was_there: bool = True


@dataclass(frozen=True)
class FeedEvent:
    """One narrated line of whoever speaks, with its place in the queen's feed.

    `id` is EPOCH-NUMBER: of one epoch each event has the number after that of the one before it,
    and a new epoch begins where the queen knows nothing of the old one any more. `at` is when she
    told it, `event` names the entry of the journal's catalog, `priority` is syslog's. `problem` says what
    of it could not be read.
    """

    id: FeedId
    at: Timestamp
    event: Word
    speaker: Speaker
    priority: Priority
    text: Text
    hive: Name | None = None
    job_id: JobId | None = None
    actor_uid: Count | None = None
    problem: Text | None = None


EVENTS_MAX = 1000
"""Events of the feed that are told at once."""


@dataclass(frozen=True)
class FeedEvents:
    """The last events that were asked for, oldest first; the feed stands at `id`, and goes on after it."""

    id: FeedId
    events: Annotated[tuple[FeedEvent, ...], Limit(0, EVENTS_MAX)]


@dataclass(frozen=True)
class Gap:
    """What a reader has missed for good: all that came after `after` and before `first`, the next."""

    after: FeedId
    first: FeedId


@dataclass(frozen=True)
class Health:
    status: Literal["ok"]
    version: Text


@dataclass(frozen=True)
class HiveHealth:
    """That a hive is well, and whose: `queen` is HOST:PORT where `is_remote_queen`, else a socket's path.

    A hive before 0.5.0 reports neither.
    """

    status: Literal["ok"]
    version: Text
    hive_id: Name | None = None
    queen: Text | None = None
    is_remote_queen: bool = False


@dataclass(frozen=True)
class CatalogReport:
    """A catalog that is sound: its file, the version of its table, and the size with its log."""

    path: Text
    version: Count
    hives: Count
    size_bytes: Count


@dataclass(frozen=True)
class Accepted:
    status: Literal["stopping"]


# A fleet


@dataclass(frozen=True)
class SetTcp:
    is_open: bool


@dataclass(frozen=True)
class Tcp:
    """Is the queen to be reached by hives on other machines, and is she (`listens`: HOST:PORT each)?

    `fingerprint` is the SHA-256 of her CA's certificate, None before there is one; `expires_ms` when
    her own certificate does, which is made anew before; `problem` why her keys let nobody join now.
    """

    is_open: bool
    listens: Annotated[tuple[Text, ...], Limit(0, 64)]
    fingerprint: Text | None
    expires_ms: Count | None
    problem: Text | None = None


@dataclass(frozen=True)
class CreateToken:
    """`ttl_s` in seconds; `hive` binds the token to one name."""

    ttl_s: Annotated[int, Limit(1, 30 * 86400)] = 3600
    uses: Annotated[int, Limit(1, 10_000)] = 1
    hive: NewName | None = None


@dataclass(frozen=True)
class TokenView:
    """`problem` says what of its row could not be read."""

    id: TokenId
    hive: Name | None
    uses_left: Count
    created_at_ms: Count
    expires_at_ms: Count
    is_revoked: bool
    problem: Text | None = None


@dataclass(frozen=True)
class CreatedToken:
    """`text` is what a hive joins with. It is told this once, and stored as a hash alone."""

    text: Text
    token: TokenView


@dataclass(frozen=True)
class Tokens:
    tokens: Annotated[tuple[TokenView, ...], Limit(0, 1000)]


@dataclass(frozen=True)
class Join:
    """`machine` is derived from the machine-id, `request` a PKCS #10 certificate request in PEM."""

    token: Annotated[str, Limit(1, 200)]
    name: NewName
    machine: MachineId
    request: Pem
    version: Text


@dataclass(frozen=True)
class Joined:
    hive_id: Name
    certificate: Pem


@dataclass(frozen=True)
class Renew:
    request: Pem


@dataclass(frozen=True)
class Asked:
    """A request to a hive, as it comes down its stream: an event 'request'. Its answer goes up to
    ANSWER under the same id."""

    id: JobId
    method: Literal["GET", "POST"]
    path: Annotated[str, Limit(1, 500, r"/[!-~]*", "a path: '/', and printable ASCII without blanks")]
    job_id: JobId | None = None


@dataclass(frozen=True)
class Taken:
    status: Literal["ok"]


@dataclass(frozen=True)
class SetLabels:
    """Labels to set, and keys of those to take away."""

    set: Annotated[tuple[Label, ...], Limit(0, LABELS_MAX)] = ()
    remove: Annotated[tuple[LabelKey, ...], Limit(0, LABELS_MAX)] = ()


@dataclass(frozen=True)
class SetCordon:
    """`reason` None takes the cordon away."""

    reason: Text | None


AUDIT_MAX = 1000
"""Entries of the audit that are told at once."""


@dataclass(frozen=True)
class AuditEntry:
    """A change of catalog, token or label, and who made it: `actor_uid` on the queen's machine, or the
    hive of that credential. `problem` says what of the entry could not be read."""

    id: Count
    at_ms: Count
    text: Text
    hive: Name | None
    actor_uid: Count | None
    actor_credential: Text | None
    job_id: JobId | None
    problem: Text | None = None


@dataclass(frozen=True)
class Audit:
    """Newest last."""

    entries: Annotated[tuple[AuditEntry, ...], Limit(0, AUDIT_MAX)]


@dataclass(frozen=True)
class Problem:
    """RFC 9457, with `field` (which input) and `hint` (the cure) as members of our own."""

    type: Text
    title: Text
    status: Count
    detail: Text
    field: Text | None = None
    hint: Text | None = None


# Where it is asked


@dataclass(frozen=True)
class Route:
    """One operation. `answer` None means a stream of server-sent events; bytes is a file, of
    `media_type`, or of `or_media_type` where the request accepts only that.

    Such a stream is a story, or where it `is_endless` the feed. `query` has what may be asked for
    after the path's question mark. `tells` is for what begins a job: who accepts text/event-stream
    gets its story at once, with 200. `problems` are the statuses to be ready for; any route may
    answer 500, and 503 while it is stopped.
    """

    name: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    answer: type[Any] | None
    body: type[Any] | None = None
    success: int = 200
    problems: tuple[int, ...] = ()
    headers: tuple[tuple[str, Any], ...] = ()
    query: tuple[tuple[str, Any], ...] = ()
    tells: bool = False
    is_endless: bool = False
    media_type: str = "application/json"
    or_media_type: str | None = None

    def url(self, **values: str) -> str:
        return self.path.format(**values)


JOB_HEADER = "RBEE-Job-ID"
EVENT_HEADER = "Last-Event-ID"
INSTANCE_HEADER = "RBEE-Instance"
STATUS_HEADER = "RBEE-Status"
VERSION_HEADER = "RBEE-Version"


class QueenRoutes:
    """What the queen serves. The hive's user may call heartbeat only; everyone else, all but that."""

    HEALTH = Route("health", "GET", "/health", "Is the queen well?", Health, problems=(403,))
    ADD_HIVE = Route(
        "add_hive", "POST", "/add-hive", "Add a hive, or go on from wherever it is",
        JobStarted, body=AddHive, success=202, problems=(400, 403, 413, 422, 503), tells=True,
    )  # fmt: skip
    HEARTBEAT = Route(
        "heartbeat", "POST", "/heartbeat", "A hive says that it lives",
        HeartbeatAck, body=Heartbeat, problems=(400, 403, 404, 409, 413),
    )  # fmt: skip
    SHUTDOWN = Route(
        "shutdown", "POST", "/shutdown", "Have systemd stop the queen and all of her hives",
        JobStarted, success=202, problems=(403, 503), tells=True,
    )  # fmt: skip
    HIVES = Route("hives", "GET", "/v1/hives", "All hives of the catalog", Hives, problems=(403,))
    HIVE = Route("hive", "GET", "/v1/hives/{hive_id}", "One hive", HiveView, problems=(400, 403, 404))
    SAMPLE = Route(
        "sample", "GET", "/v1/hives/{hive_id}/sample", "What a hive that is online does right now",
        Sample, problems=(400, 403, 404, 409, 502, 504),
    )  # fmt: skip
    REMOVE_HIVE = Route(
        "remove_hive", "DELETE", "/v1/hives/{hive_id}",
        "Stop a hive and forget it; one that cannot be told so only with force=1",
        JobStarted, success=202, problems=(400, 403, 503), tells=True,
        query=(("force", Annotated[int, Limit(0, 1)]),),
    )  # fmt: skip
    SET_LABELS = Route(
        "set_labels", "POST", "/v1/hives/{hive_id}/labels", "Set labels of a hive, and take some away",
        HiveView, body=SetLabels, problems=(400, 403, 404, 413),
    )  # fmt: skip
    SET_CORDON = Route(
        "set_cordon", "POST", "/v1/hives/{hive_id}/cordon", "Keep new work from a hive, or let it have some",
        HiveView, body=SetCordon, problems=(400, 403, 404, 413),
    )  # fmt: skip
    TCP = Route(
        "tcp", "GET", "/v1/tcp", "Is the queen to be reached from other machines?", Tcp, problems=(403,)
    )
    SET_TCP = Route(
        "set_tcp", "POST", "/v1/tcp",
        "Say whether queen-rbee-tcp.socket is opened when she next starts; her keys are made for it",
        Tcp, body=SetTcp, problems=(400, 403, 413, 500),
    )  # fmt: skip
    TOKENS = Route(
        "tokens", "GET", "/v1/tokens", "Tokens that were made and not cleared away", Tokens, problems=(403,)
    )
    CREATE_TOKEN = Route(
        "create_token", "POST", "/v1/tokens", "Make a token with which a machine joins as a hive",
        CreatedToken, body=CreateToken, success=201, problems=(400, 403, 409, 413, 503),
    )  # fmt: skip
    REVOKE_TOKEN = Route(
        "revoke_token", "DELETE", "/v1/tokens/{token_id}", "Let nobody join with a token any more",
        TokenView, problems=(400, 403, 404),
    )  # fmt: skip
    AUDIT = Route(
        "audit", "GET", "/v1/audit", "The last 100 or `limit` changes of catalog, tokens and labels",
        Audit, problems=(400, 403),
        query=(("limit", Annotated[int, Limit(0, AUDIT_MAX)]), ("hive", Name)),
    )  # fmt: skip
    JOBS = Route("jobs", "GET", "/v1/jobs", "The jobs that are kept, newest first", Jobs, problems=(403,))
    JOB = Route("job", "GET", "/v1/jobs/{job_id}", "One job", JobView, problems=(403, 404))
    EVENTS = Route(
        "events", "GET", "/v1/jobs/{job_id}/events",
        "A job's story from its first line, or from Last-Event-ID on; ends with 'done' or 'error'",
        None, problems=(400, 403, 404, 503), headers=((EVENT_HEADER, EventId),),
    )  # fmt: skip
    FEED = Route(
        "feed", "GET", "/v1/events",
        "What is narrated, as it happens: from now on, from since_ms on (0: all that is kept), "
        "or after Last-Event-ID, which goes before since_ms",
        None, problems=(400, 403, 503), headers=((EVENT_HEADER, FeedId),), query=(("since_ms", Count),),
        is_endless=True,
    )  # fmt: skip
    LAST_EVENTS = Route(
        "last_events", "GET", "/v1/events/last", "The last 10 or `limit` events, of one hive or of all",
        FeedEvents, problems=(400, 403),
        query=(("limit", Annotated[int, Limit(0, EVENTS_MAX)]), ("hive", Name)),
    )  # fmt: skip
    CATALOG = Route(
        "catalog", "GET", "/v1/catalog", "A consistent copy of the catalog, an SQLite file",
        bytes, problems=(403, 500, 503), media_type="application/vnd.sqlite3",
    )  # fmt: skip
    CHECK_CATALOG = Route(
        "check_catalog", "GET", "/v1/catalog/check", "Is the catalog sound?",
        CatalogReport, problems=(403, 500, 503, 504),
    )  # fmt: skip
    METRICS = Route(
        "metrics", "GET", "/metrics", "What Prometheus scrapes; in its older format for who accepts only it",
        bytes, problems=(403, 500), media_type="application/openmetrics-text", or_media_type="text/plain",
    )  # fmt: skip
    OPENAPI = Route("openapi", "GET", "/v1/openapi.json", "This document", dict, problems=(403,))

    ALL = (
        HEALTH, ADD_HIVE, HEARTBEAT, SHUTDOWN, HIVES, HIVE, SAMPLE, REMOVE_HIVE, SET_LABELS, SET_CORDON,
        JOBS, JOB, EVENTS, FEED, LAST_EVENTS, CATALOG, CHECK_CATALOG, METRICS, TCP, SET_TCP, TOKENS,
        CREATE_TOKEN, REVOKE_TOKEN, AUDIT, OPENAPI,
    )  # fmt: skip


class FleetRoutes:
    """What the queen serves over TCP: to hives alone, each with its credential, but for CA and JOIN."""

    CA = Route(
        "ca", "GET", "/v1/ca", "The certificate of the queen's CA, to hold against a token's fingerprint",
        bytes, media_type="application/x-pem-file",
    )  # fmt: skip
    JOIN = Route(
        "join", "POST", "/v1/join", "Become a hive of this queen, by a token",
        Joined, body=Join, success=201, problems=(400, 403, 409, 413),
    )  # fmt: skip
    RENEW = Route(
        "renew", "POST", "/v1/renew", "A new certificate for the same credential",
        Joined, body=Renew, success=201, problems=(400, 403, 404, 413),
    )  # fmt: skip
    HEARTBEAT = QueenRoutes.HEARTBEAT
    REQUESTS = Route(
        "requests", "GET", "/v1/requests", "What the queen asks of this hive, as she asks it",
        None, problems=(400, 403, 404, 409), headers=((INSTANCE_HEADER, JobId), (VERSION_HEADER, Text)),
        is_endless=True,
    )  # fmt: skip
    ANSWER = Route(
        "answer", "POST", "/v1/answers/{request_id}", "The answer to one of those, with its status",
        Taken, problems=(400, 403, 404, 413), headers=((STATUS_HEADER, Annotated[int, Limit(200, 599)]),),
    )  # fmt: skip

    ALL = (CA, JOIN, RENEW, HEARTBEAT, REQUESTS, ANSWER)


class HiveRoutes:
    """What a hive serves, to the queen's user and root."""

    HEALTH = Route("health", "GET", "/health", "Is the hive well, and whose is it?", HiveHealth)
    DEVICES = Route(
        "devices", "GET", "/v1/devices", "Detect the devices now, for the job that the header names",
        Devices, problems=(400, 502), headers=((JOB_HEADER, JobId),),
    )  # fmt: skip
    SAMPLE = Route("sample", "GET", "/v1/sample", "What this machine does right now", Sample)
    SHUTDOWN = Route(
        "shutdown", "POST", "/shutdown", "Have systemd stop the hive",
        Accepted, success=202, problems=(403, 502, 503, 504),
    )  # fmt: skip
    LEAVE = Route(
        "leave", "POST", "/v1/leave", "Forget the queen on another machine whose hive this was, and stop",
        Accepted, success=202, problems=(403, 500, 502, 503, 504),
    )  # fmt: skip
    OPENAPI = Route("openapi", "GET", "/v1/openapi.json", "This document", dict)

    ALL = (HEALTH, DEVICES, SAMPLE, SHUTDOWN, LEAVE, OPENAPI)


# JSON in, JSON out


def encode(shape: Any) -> Any:
    """A shape as what json.dumps takes."""
    if dataclasses.is_dataclass(shape) and not isinstance(shape, type):
        return {f.name: encode(getattr(shape, f.name)) for f in dataclasses.fields(shape)}
    if isinstance(shape, (tuple, list)):
        return [encode(item) for item in shape]
    return shape


def decode(kind: type[Shape], value: Any, where: str = "") -> Shape:
    """Check parsed JSON against a shape; BadInput names the field that is not right, as one of `where`.

    Rows of a list that is to be shown whatever is in them are read by rbee.rows.
    """
    result: Shape = _decode(kind, value, where)
    return result


@functools.cache
def hints_of(kind: Any) -> dict[str, Any]:
    """The annotations of a shape's fields, with their bounds."""
    return typing.get_type_hints(kind, include_extras=True)


@functools.cache
def taken_apart(kind: Any) -> tuple[Any, Limit | None, bool]:
    """An annotation's type without its bounds, its bounds, and whether None is allowed, too."""
    if typing.get_origin(kind) is Annotated:
        bare, limit = typing.get_args(kind)[:2]
        return bare, limit, False
    if typing.get_origin(kind) in (Union, types.UnionType):
        return (*taken_apart(_only_member(kind))[:2], True)
    return kind, None, False


def _decode(kind: Any, value: Any, where: str) -> Any:
    kind, limit, is_optional = taken_apart(kind)
    if value is None and is_optional:
        return None
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind) or not isinstance(value, str):
            raise _bad(where, f"must be one of {', '.join(map(repr, typing.get_args(kind)))}")
        return value
    if typing.get_origin(kind) is tuple:
        return _decode_list(typing.get_args(kind)[0], value, where, limit)
    if dataclasses.is_dataclass(kind):
        return _decode_object(kind, value, where)
    if kind is bool:
        if not isinstance(value, bool):
            raise _bad(where, "must be true or false")
        return value
    if kind is int:
        return _decode_int(value, where, limit)
    if kind is float:
        return _decode_float(value, where, limit)
    return _decode_text(value, where, limit)


def _only_member(union: Any) -> Any:
    (member,) = (arm for arm in typing.get_args(union) if arm is not types.NoneType)
    return member


def _decode_object(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _bad(where, "must be a JSON object")
    found = {}
    for field in dataclasses.fields(kind):
        path = f"{where}.{field.name}" if where else field.name
        if field.name in value:
            found[field.name] = _decode(hints_of(kind)[field.name], value[field.name], path)
        elif field.default is dataclasses.MISSING:
            raise _bad(path, "is missing")
    return kind(**found)


def _decode_list(item_kind: Any, value: Any, where: str, limit: Limit | None) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _bad(where, "must be a JSON array")
    if limit and len(value) > limit.most:
        raise _bad(where, f"may have {limit.most} entries at most, and has {len(value)}")
    return tuple(_decode(item_kind, item, f"{where}[{n}]") for n, item in enumerate(value))


def _decode_int(value: Any, where: str, limit: Limit | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(where, "must be a whole number")
    if limit and not limit.least <= value <= limit.most:
        raise _bad(where, f"must be from {limit.least} to {limit.most}")
    return value


def _decode_float(value: Any, where: str, limit: Limit | None) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _bad(where, "must be a number")
    if limit and not limit.least <= value <= limit.most:
        raise _bad(where, f"must be from {limit.least} to {limit.most}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    # Python's json reads NaN and Infinity, which JSON does not have.
    if not math.isfinite(number):
        raise _bad(where, "must be a finite number")
    return number


def _decode_text(value: Any, where: str, limit: Limit | None) -> str:
    if not isinstance(value, str):
        raise _bad(where, "must be a string")
    if limit and not limit.least <= len(value) <= limit.most:
        length = f"{limit.least} to {limit.most}" if limit.least < limit.most else f"{limit.most}"
        raise _bad(where, f"must have {length} characters, and has {len(value)}")
    if limit and limit.pattern and not re.fullmatch(limit.pattern, value):
        raise _bad(where, f"must be {limit.words or f'as {limit.pattern}'}")
    if limit and limit.format == "date-time" and not _is_timestamp(value):
        raise _bad(where, "must be an RFC 3339 time with its offset, such as 2026-01-31T12:00:00Z")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
        raise _bad(where, "must be valid Unicode, and holds a lone surrogate")
    return value


_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII
)


def _is_timestamp(value: str) -> bool:
    if not _RFC3339.fullmatch(value):
        return False
    try:
        # fromisoformat() knows microseconds at most; RFC 3339 allows any number of digits.
        datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value.upper()))
    except ValueError:
        return False
    return True


def _bad(where: str, complaint: str) -> BadInput:
    return BadInput(f"{where or 'the body'} {complaint}", field=where or None)


# OpenAPI


def openapi(title: str, version: str, routes: tuple[Route, ...]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a route table."""
    shapes: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, shapes)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": dict(sorted(shapes.items()))},
    }


def _operation(route: Route, shapes: dict[str, Any]) -> dict[str, Any]:
    answers: dict[int, Any] = {}
    if route.tells or route.answer is None:
        told = _feed(shapes) if route.is_endless else _story(shapes)
        answers[200] = {"text/event-stream": {"schema": told}}
    if route.answer is bytes:
        # Bytes that JSON Schema has nothing to say of.
        answers[200] = {kind: {"schema": {}} for kind in (route.media_type, route.or_media_type) if kind}
    elif route.answer is not None:
        answers[route.success] = {"application/json": {"schema": schema(route.answer, shapes)}}
    problem = {"application/problem+json": {"schema": schema(Problem, shapes)}}
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "responses": {
            **{str(code): {"description": "As asked", "content": told} for code, told in answers.items()},
            **{str(code): {"description": "Refused", "content": problem} for code in route.problems},
            "default": {"description": "A problem", "content": problem},
        },
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema(_PATH_FIELDS[name], shapes)}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += [
        {"name": name, "in": place, "required": False, "schema": schema(kind, shapes)}
        for place, fields in (("header", route.headers), ("query", route.query))
        for name, kind in fields
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        body = {"application/json": {"schema": schema(route.body, shapes)}}
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _story(shapes: dict[str, Any]) -> dict[str, Any]:
    # No type: OpenAPI 3.1 leaves open whether a stream's schema is about the whole or about an event.
    for kind in (JobStarted, Line, Done, Problem):
        schema(kind, shapes)
    return {
        "description": "Server-sent events, the data of each a JSON object: 'job' (JobStarted) where the "
        "request began it, 'line' (Line) for each line, and at the end 'done' (Done) or 'error' (Problem)"
    }


def _feed(shapes: dict[str, Any]) -> dict[str, Any]:
    for kind in (FeedEvent, Gap):
        schema(kind, shapes)
    return {
        "description": "Server-sent events without an end, the data of each a JSON object: 'narrated' "
        "(FeedEvent) for each line; 'gap' (Gap) before those that come after some that are not kept any "
        "more. A block without data at the beginning gives the id after which the feed goes on. It ends "
        "when the queen stops"
    }


_PATH_FIELDS: dict[str, Any] = {"hive_id": Name, "job_id": JobId, "token_id": TokenId, "request_id": JobId}


def schema(kind: Any, shapes: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of an annotation; the shapes it refers to are added to `shapes`."""
    limit = None
    if typing.get_origin(kind) is Annotated:
        kind, limit = typing.get_args(kind)[:2]
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema(_only_member(kind), shapes), {"type": "null"}]}
    if origin is Literal:
        return {"type": "string", "enum": list(typing.get_args(kind))}
    if origin is tuple:
        bound = {"maxItems": limit.most} if limit else {}
        return {"type": "array", "items": schema(typing.get_args(kind)[0], shapes), **bound}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object_schema(kind, shapes)
    if kind is bool:
        return {"type": "boolean"}
    if kind in (int, float):
        bound = {"minimum": limit.least, "maximum": limit.most} if limit else {}
        return {"type": "integer" if kind is int else "number", **bound}
    if kind is dict:
        return {"type": "object"}
    text: dict[str, Any] = {"type": "string"}
    if limit:
        text |= {"minLength": limit.least, "maxLength": limit.most}
        text |= {"pattern": f"^{limit.pattern}$"} if limit.pattern else {}
        text |= {"format": limit.format} if limit.format else {}
    return text


def _object_schema(kind: Any, shapes: dict[str, Any]) -> dict[str, Any]:
    if kind.__name__ not in shapes:
        shapes[kind.__name__] = {}  # before its fields, for a shape that refers to itself
        fields = dataclasses.fields(kind)
        shapes[kind.__name__] = {
            "type": "object",
            "properties": {f.name: schema(hints_of(kind)[f.name], shapes) for f in fields},
            "required": [f.name for f in fields if f.default is dataclasses.MISSING],
        }
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
