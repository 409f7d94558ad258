"""The routes of the queen and of the hive, in tables that server and client share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, TypeVar

from rbee.wire.types import (
    AUDIT_MAX,
    EVENTS_MAX,
    HIVES_MAX,
    Count,
    EventId,
    FeedId,
    JobId,
    Limit,
    ModelName,
    Name,
    Place,
    SelectorText,
    Sha256,
)

if TYPE_CHECKING:
    from rbee.wire.catalog import Audit, CatalogReport
    from rbee.wire.daemon import Accepted, Health
    from rbee.wire.devices import Devices
    from rbee.wire.engines import Engines, FleetEngines
    from rbee.wire.events import FeedEvents
    from rbee.wire.fleet import CreatedToken, Joined, Tcp, Tokens, TokenView
    from rbee.wire.heartbeats import HeartbeatAck, HiveHealth
    from rbee.wire.hives import Hives, HiveView
    from rbee.wire.jobs import Jobs, JobStarted, JobView
    from rbee.wire.keys import CreatedKey, Gateway, Keys, KeyView
    from rbee.wire.models import FetchView, Models, ModelView, OpenModels
    from rbee.wire.samples import Sample
    from rbee.wire.workers import Estimate, HiveWorker, HiveWorkers, Memory, Placement, Workers

JOB_HEADER = "RBEE-Job-ID"
EVENT_HEADER = "Last-Event-ID"
INSTANCE_HEADER = "RBEE-Instance"
VERSION_HEADER = "RBEE-Version"
KEY_HEADER = "RBEE-Key"
"""The SHA-256 of a client's key, from the gateway to the queen."""
LEASE_PROTOCOL = "rbee-lease/1"
"""What a request for a lease upgrades to (rbee.wire.leases)."""
WAIT_MAX = 20
"""The most seconds for which an answer waits for a change."""


Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Route(Generic[Answer]):
    """One operation, with the shape that it `answers` with, and that of the body that it `takes`, if any.

    A shape is named by its module in rbee.wire, as "hives.HiveView" is, and imported when it is needed, like
    the verbs of rbeectl: a client that asks for hives does not load the shapes of tokens.

    A Route[None] answers with server-sent events: the story of a job, or the feed if it `is_endless`. A
    Route[bytes] answers with a file of `media_type`, or of `or_media_type` if the request accepts only that.
    `query` are the parameters of the query string. With `begins_job` a request that accepts
    text/event-stream gets the job's story at once, with status 200. `problems` are the statuses to expect;
    any route may also answer 500, and 503 while its daemon stops.
    """

    name: str = field(init=False, default="")
    """Its name in the table, in lower case."""
    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    answers: str | type[Answer] | None
    takes: str | None = None
    success: int = 200
    problems: tuple[int, ...] = ()
    headers: tuple[tuple[str, Any], ...] = ()
    query: tuple[tuple[str, Any], ...] = ()
    begins_job: bool = False
    is_endless: bool = False
    media_type: str = "application/json"
    or_media_type: str | None = None

    def __set_name__(self, _table: type, name: str) -> None:
        object.__setattr__(self, "name", name.lower())

    @property
    def answer(self) -> type[Answer] | None:
        """Return the shape that it answers with; bytes for a file, dict for any JSON, None for events."""
        return _shape(self.answers) if isinstance(self.answers, str) else self.answers

    @property
    def body(self) -> type[Any] | None:
        """Return the shape of the body that it takes, if it takes one."""
        return None if self.takes is None else _shape(self.takes)

    def url(self, **values: str) -> str:
        """Return its path, with a value for each {name} in it."""
        return self.path.format(**values)


@cache
def _shape(name: str) -> Any:
    module, _, shape = name.partition(".")
    return getattr(import_module(f"rbee.wire.{module}"), shape)


class RouteTable:
    """Routes as attributes of a class; ALL has them as a tuple, in the same order."""

    ALL: ClassVar[tuple[Route[Any], ...]]

    def __init_subclass__(cls) -> None:
        cls.ALL = tuple(route for route in vars(cls).values() if isinstance(route, Route))


class QueenRoutes(RouteTable):
    """What the queen serves.

    The hive's user may use HEARTBEAT only, the gateway's HEALTH only, root all, and others all but HEARTBEAT.
    """

    HEALTH: Route[Health] = Route("GET", "/health", "Is the queen well?", "daemon.Health", problems=(403,))
    ADD_HIVE: Route[JobStarted] = Route(
        "POST", "/add-hive", "Add a hive, or bring one in the catalog online",
        "jobs.JobStarted", takes="hives.AddHive", success=202, problems=(400, 403, 413, 422, 503),
        begins_job=True,
    )  # fmt: skip
    HEARTBEAT: Route[HeartbeatAck] = Route(
        "POST", "/heartbeat", "Send a hive's heartbeat",
        "heartbeats.HeartbeatAck", takes="heartbeats.Heartbeat", problems=(400, 403, 404, 409, 413),
    )  # fmt: skip
    SHUTDOWN: Route[JobStarted] = Route(
        "POST", "/shutdown", "Have systemd stop the queen and all of its hives",
        "jobs.JobStarted", success=202, problems=(403, 503), begins_job=True,
    )  # fmt: skip
    HIVES: Route[Hives] = Route(
        "GET", "/v1/hives",
        "All hives in the catalog, or those with the labels of `selector`, by id; with `limit` a page of at "
        "most that many (fewer if they are large), which begins after the hive `after`",
        "hives.Hives", problems=(400, 403, 431),  # a long selector that is escaped does not fit into a head
        query=(("limit", Annotated[int, Limit(1, HIVES_MAX)]), ("after", Place), ("selector", SelectorText)),
    )  # fmt: skip
    HIVE: Route[HiveView] = Route(
        "GET", "/v1/hives/{hive_id}", "One hive", "hives.HiveView", problems=(400, 403, 404)
    )
    SAMPLE: Route[Sample] = Route(
        "GET", "/v1/hives/{hive_id}/sample", "CPU, memory and GPU usage of a hive that is online",
        "samples.Sample", problems=(400, 403, 404, 409, 502, 504),
    )  # fmt: skip
    REMOVE_HIVE: Route[JobStarted] = Route(
        "DELETE", "/v1/hives/{hive_id}",
        "Stop and remove a hive; with force=1 even if it cannot be asked to leave",
        "jobs.JobStarted", success=202, problems=(400, 403, 503), begins_job=True,
        query=(("force", Annotated[int, Limit(0, 1)]),),
    )  # fmt: skip
    SET_LABELS: Route[HiveView] = Route(
        "POST", "/v1/hives/{hive_id}/labels", "Set and remove labels of a hive",
        "hives.HiveView", takes="hives.SetLabels", problems=(400, 403, 404, 413),
    )  # fmt: skip
    SET_CORDON: Route[HiveView] = Route(
        "POST", "/v1/hives/{hive_id}/cordon", "Cordon a hive against new work, or uncordon it",
        "hives.HiveView", takes="hives.SetCordon", problems=(400, 403, 404, 413),
    )  # fmt: skip
    TCP: Route[Tcp] = Route(
        "GET", "/v1/tcp", "Is the queen open to other machines?", "fleet.Tcp", problems=(403,)
    )
    SET_TCP: Route[Tcp] = Route(
        "POST", "/v1/tcp",
        "Set whether queen-rbee-tcp.socket is opened at the queen's next start; makes the keys for it",
        "fleet.Tcp", takes="fleet.SetTcp", problems=(400, 403, 413, 500),
    )  # fmt: skip
    TOKENS: Route[Tokens] = Route(
        "GET", "/v1/tokens", "The tokens that are kept", "fleet.Tokens", problems=(403,)
    )
    CREATE_TOKEN: Route[CreatedToken] = Route(
        "POST", "/v1/tokens", "Make a token with which a machine joins as a hive",
        "fleet.CreatedToken", takes="fleet.CreateToken", success=201, problems=(400, 403, 409, 413, 503),
    )  # fmt: skip
    REVOKE_TOKEN: Route[TokenView] = Route(
        "DELETE", "/v1/tokens/{token_id}", "Revoke a token",
        "fleet.TokenView", problems=(400, 403, 404),
    )  # fmt: skip
    AUDIT: Route[Audit] = Route(
        "GET", "/v1/audit", "The last `limit` (100) changes of catalog, tokens and labels",
        "catalog.Audit", problems=(400, 403),
        query=(("limit", Annotated[int, Limit(0, AUDIT_MAX)]), ("hive", Name)),
    )  # fmt: skip
    JOBS: Route[Jobs] = Route(
        "GET", "/v1/jobs", "The jobs that are kept, newest first", "jobs.Jobs", problems=(403,)
    )
    JOB: Route[JobView] = Route("GET", "/v1/jobs/{job_id}", "One job", "jobs.JobView", problems=(403, 404))
    EVENTS: Route[None] = Route(
        "GET", "/v1/jobs/{job_id}/events",
        "A job's story from its first line, or from Last-Event-ID on; ends with 'done' or 'error'",
        None, problems=(400, 403, 404, 503), headers=((EVENT_HEADER, EventId),),
    )  # fmt: skip
    FEED: Route[None] = Route(
        "GET", "/v1/events",
        "The event stream of narrated lines: from now on, from since_ms on (0: all that are kept), "
        "or after Last-Event-ID, which takes precedence over since_ms",
        None, problems=(400, 403, 503), headers=((EVENT_HEADER, FeedId),), query=(("since_ms", Count),),
        is_endless=True,
    )  # fmt: skip
    LAST_EVENTS: Route[FeedEvents] = Route(
        "GET", "/v1/events/last", "The last `limit` (10) events, of one hive or of all",
        "events.FeedEvents", problems=(400, 403),
        query=(("limit", Annotated[int, Limit(0, EVENTS_MAX)]), ("hive", Name)),
    )  # fmt: skip
    CATALOG: Route[bytes] = Route(
        "GET", "/v1/catalog", "A consistent copy of the catalog, an SQLite file",
        bytes, problems=(403, 500, 503), media_type="application/vnd.sqlite3",
    )  # fmt: skip
    CHECK_CATALOG: Route[CatalogReport] = Route(
        "GET", "/v1/catalog/check", "Is the catalog sound?",
        "catalog.CatalogReport", problems=(403, 500, 503, 504),
    )  # fmt: skip
    METRICS: Route[bytes] = Route(
        "GET", "/metrics", "Metrics for Prometheus, in its older text format if only that is accepted",
        bytes, problems=(403, 500), media_type="application/openmetrics-text", or_media_type="text/plain",
    )  # fmt: skip
    MODELS: Route[Models] = Route(
        "GET", "/v1/models", "The models in the catalog", "models.Models", problems=(403,)
    )
    ADD_MODEL: Route[JobStarted] = Route(
        "POST", "/v1/models", "Add a model: used in place, or fetched",
        "jobs.JobStarted", takes="models.AddModel", success=202, problems=(400, 403, 404, 409, 413, 503),
        begins_job=True,
    )  # fmt: skip
    MODEL: Route[ModelView] = Route(
        "GET", "/v1/models/{model}", "One model", "models.ModelView", problems=(400, 403, 404)
    )
    REMOVE_MODEL: Route[JobStarted] = Route(
        "DELETE", "/v1/models/{model}", "Stop a model's workers, and remove it with what was fetched for it",
        "jobs.JobStarted", success=202, problems=(400, 403, 503), begins_job=True,
    )  # fmt: skip
    SERVE: Route[ModelView] = Route(
        "POST", "/v1/models/{model}/serve", "Wake the model for a request from now on",
        "models.ModelView", takes="models.Serve", problems=(400, 403, 404, 413),
    )  # fmt: skip
    UNSERVE: Route[JobStarted] = Route(
        "DELETE", "/v1/models/{model}/serve", "Serve the model no more, and stop its workers",
        "jobs.JobStarted", success=202, problems=(400, 403, 503), begins_job=True,
    )  # fmt: skip
    PLACEMENT: Route[Placement] = Route(
        "GET", "/v1/models/{model}/placement", "Where a worker of the model would run now",
        "workers.Placement", problems=(400, 403, 404),
    )  # fmt: skip
    WORKERS: Route[Workers] = Route(
        "GET", "/v1/workers", "The workers, and the served models without one; with `model` those of one",
        "workers.Workers", problems=(400, 403), query=(("model", ModelName),),
    )  # fmt: skip
    ENGINES: Route[FleetEngines] = Route(
        "GET", "/v1/engines", "The engines of the hives that are online; with `hive` those of one",
        "engines.FleetEngines", problems=(400, 403, 404), query=(("hive", Name),),
    )  # fmt: skip
    MEMORY: Route[Memory] = Route(
        "GET", "/v1/hives/{hive_id}/memory", "The memory of a hive that is online, by holder",
        "workers.Memory", problems=(400, 403, 404, 409, 502, 504),
    )  # fmt: skip
    KEYS: Route[Keys] = Route("GET", "/v1/keys", "The keys that are kept", "keys.Keys", problems=(403,))
    CREATE_KEY: Route[CreatedKey] = Route(
        "POST", "/v1/keys", "Make a key, with which a client uses the gateway over TCP",
        "keys.CreatedKey", takes="keys.CreateKey", success=201, problems=(400, 403, 409, 413, 503),
    )  # fmt: skip
    REVOKE_KEY: Route[KeyView] = Route(
        "DELETE", "/v1/keys/{key}", "Revoke a key", "keys.KeyView", problems=(400, 403, 404)
    )
    GATEWAY: Route[Gateway] = Route(
        "GET", "/v1/gateway", "Is the gateway open to TCP?", "keys.Gateway", problems=(403,)
    )
    SET_GATEWAY: Route[Gateway] = Route(
        "POST", "/v1/gateway", "Set whether rbee-gateway-tcp.socket may be opened",
        "keys.Gateway", takes="keys.SetGateway", problems=(400, 403, 413, 500),
    )  # fmt: skip
    OPENAPI: Route[dict[str, Any]] = Route("GET", "/v1/openapi.json", "This document", dict, problems=(403,))


class LeaseRoutes(RouteTable):
    """What the queen serves to the gateway's user, beside QueenRoutes.HEALTH; root may use them, too."""

    LEASE: Route[bytes] = Route(
        "GET", "/v1/lease", "Lease a worker for a request, see rbee.wire.leases", bytes, success=101,
        problems=(400, 403, 503), media_type="application/octet-stream",
    )  # fmt: skip
    OPEN_MODELS: Route[OpenModels] = Route(
        "GET", "/v1/open-models", "The models that a client may use: of the key in RBEE-Key, or all",
        "models.OpenModels", problems=(400, 401, 403), headers=((KEY_HEADER, Sha256),),
    )  # fmt: skip


class FleetRoutes(RouteTable):
    """What the queen serves over TCP, for hives with a credential, except CA and JOIN, which need none.

    The requests that begin a hive's connections are in rbee.uplink.frames.
    """

    CA: Route[bytes] = Route(
        "GET", "/v1/ca", "The certificate of the queen's CA, to compare with a token's fingerprint",
        bytes, media_type="application/x-pem-file",
    )  # fmt: skip
    JOIN: Route[Joined] = Route(
        "POST", "/v1/join", "Become a hive of this queen, with a token",
        "fleet.Joined", takes="fleet.Join", success=201, problems=(400, 403, 409, 413),
    )  # fmt: skip
    RENEW: Route[Joined] = Route(
        "POST", "/v1/renew", "A new certificate for the same credential",
        "fleet.Joined", takes="fleet.Renew", success=201, problems=(400, 403, 404, 413),
    )  # fmt: skip


class HiveRoutes(RouteTable):
    """What a hive serves, to the queen's user and root only."""

    HEALTH: Route[HiveHealth] = Route(
        "GET", "/health", "Is the hive well, and which queen's is it?", "heartbeats.HiveHealth"
    )
    DEVICES: Route[Devices] = Route(
        "GET", "/v1/devices", "Detect the devices now, for the job that the header names",
        "devices.Devices", problems=(400, 502), headers=((JOB_HEADER, JobId),),
    )  # fmt: skip
    SAMPLE: Route[Sample] = Route(
        "GET", "/v1/sample", "CPU, memory and GPU usage of this machine", "samples.Sample"
    )
    SHUTDOWN: Route[Accepted] = Route(
        "POST", "/shutdown", "Have systemd stop the hive",
        "daemon.Accepted", success=202, problems=(403, 502, 503, 504),
    )  # fmt: skip
    LEAVE: Route[Accepted] = Route(
        "POST", "/v1/leave", "Forget the remote queen that this hive belongs to, and stop",
        "daemon.Accepted", success=202, problems=(403, 500, 502, 503, 504),
    )  # fmt: skip
    ENGINES: Route[Engines] = Route("GET", "/v1/engines", "The engines of this machine", "engines.Engines")
    MEMORY: Route[Memory] = Route(
        "GET", "/v1/memory", "The memory of this machine, by holder", "workers.Memory"
    )
    ESTIMATE: Route[Estimate] = Route(
        "POST", "/v1/estimate",
        "What the engine itself says that a model needs; its command runs if the answer is not known yet",
        "workers.Estimate", takes="workers.AskEstimate", problems=(400, 413),
    )  # fmt: skip
    WORKERS: Route[HiveWorkers] = Route("GET", "/v1/workers", "The workers", "workers.HiveWorkers")
    START_WORKER: Route[HiveWorker] = Route(
        "POST", "/v1/workers", "Start a worker, for the job that the header names",
        "workers.HiveWorker", takes="workers.StartWorker", success=202,
        problems=(400, 404, 409, 413, 502, 503), headers=((JOB_HEADER, JobId),),
    )  # fmt: skip
    WORKER: Route[HiveWorker] = Route(
        "GET", "/v1/workers/{worker_id}",
        "One worker; with `after` as soon as its serial is larger, or after `wait` seconds",
        "workers.HiveWorker", problems=(400, 404),
        query=(("after", Count), ("wait", Annotated[int, Limit(0, WAIT_MAX)])),
    )  # fmt: skip
    STOP_WORKER: Route[HiveWorker] = Route(
        "DELETE", "/v1/workers/{worker_id}", "Stop a worker; answered when its memory is free again",
        "workers.HiveWorker", problems=(400, 404, 502, 504),
    )  # fmt: skip
    CONNECT: Route[bytes] = Route(
        "GET", "/v1/workers/{worker_id}/connect", "A connection to a worker's engine, see rbee.wire.leases",
        bytes, success=101, problems=(400, 404, 409), media_type="application/octet-stream",
    )  # fmt: skip
    FETCH: Route[FetchView] = Route(
        "POST", "/v1/fetches", "Fetch a model's file into the store",
        "models.FetchView", takes="models.Fetch", success=202, problems=(400, 409, 413, 503),
        headers=((JOB_HEADER, JobId),),
    )  # fmt: skip
    FETCH_STATE: Route[FetchView] = Route(
        "GET", "/v1/fetches/{fetch_id}",
        "One fetch; with `after` as soon as its serial is larger, or after `wait` seconds",
        "models.FetchView", problems=(400, 404),
        query=(("after", Count), ("wait", Annotated[int, Limit(0, WAIT_MAX)])),
    )  # fmt: skip
    CANCEL_FETCH: Route[FetchView] = Route(
        "DELETE", "/v1/fetches/{fetch_id}", "Cancel a fetch, and remove what has arrived of it",
        "models.FetchView", problems=(400, 404, 502, 503, 504),
    )  # fmt: skip
    REMOVE_FILE: Route[Accepted] = Route(
        "DELETE", "/v1/files/{sha256}", "Remove a file from the store; it is no error if it is not there",
        "daemon.Accepted", success=202, problems=(400, 502, 503, 504),
    )  # fmt: skip
    OPENAPI: Route[dict[str, Any]] = Route("GET", "/v1/openapi.json", "This document", dict)
