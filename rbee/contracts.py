"""Face of rbee.wire for importers that have not moved yet."""

from rbee.wire.catalog import (
    AUDIT_MAX as AUDIT_MAX,
)
from rbee.wire.catalog import (
    Audit as Audit,
)
from rbee.wire.catalog import (
    AuditEntry as AuditEntry,
)
from rbee.wire.catalog import (
    CatalogReport as CatalogReport,
)
from rbee.wire.codec import (
    Shape as Shape,
)
from rbee.wire.codec import (
    decode as decode,
)
from rbee.wire.codec import (
    encode as encode,
)
from rbee.wire.codec import (
    hints_of as hints_of,
)
from rbee.wire.codec import (
    taken_apart as taken_apart,
)
from rbee.wire.daemon import (
    Accepted as Accepted,
)
from rbee.wire.daemon import (
    Health as Health,
)
from rbee.wire.daemon import (
    Problem as Problem,
)
from rbee.wire.devices import (
    Cpu as Cpu,
)
from rbee.wire.devices import (
    Devices as Devices,
)
from rbee.wire.devices import (
    Finding as Finding,
)
from rbee.wire.devices import (
    Gpu as Gpu,
)
from rbee.wire.devices import (
    GpuSample as GpuSample,
)
from rbee.wire.devices import (
    MemoryKind as MemoryKind,
)
from rbee.wire.devices import (
    Sample as Sample,
)
from rbee.wire.events import (
    EVENTS_MAX as EVENTS_MAX,
)
from rbee.wire.events import (
    FeedEvent as FeedEvent,
)
from rbee.wire.events import (
    FeedEvents as FeedEvents,
)
from rbee.wire.events import (
    Gap as Gap,
)
from rbee.wire.events import (
    Line as Line,
)
from rbee.wire.events import (
    Speaker as Speaker,
)
from rbee.wire.fleet import (
    CreatedToken as CreatedToken,
)
from rbee.wire.fleet import (
    CreateToken as CreateToken,
)
from rbee.wire.fleet import (
    Join as Join,
)
from rbee.wire.fleet import (
    Joined as Joined,
)
from rbee.wire.fleet import (
    Renew as Renew,
)
from rbee.wire.fleet import (
    SetTcp as SetTcp,
)
from rbee.wire.fleet import (
    Tcp as Tcp,
)
from rbee.wire.fleet import (
    Tokens as Tokens,
)
from rbee.wire.fleet import (
    TokenView as TokenView,
)
from rbee.wire.hives import (
    LABELS_MAX as LABELS_MAX,
)
from rbee.wire.hives import (
    AddHive as AddHive,
)
from rbee.wire.hives import (
    Heartbeat as Heartbeat,
)
from rbee.wire.hives import (
    HeartbeatAck as HeartbeatAck,
)
from rbee.wire.hives import (
    HiveHealth as HiveHealth,
)
from rbee.wire.hives import (
    Hives as Hives,
)
from rbee.wire.hives import (
    HiveView as HiveView,
)
from rbee.wire.hives import (
    Label as Label,
)
from rbee.wire.hives import (
    MachineEnd as MachineEnd,
)
from rbee.wire.hives import (
    SetCordon as SetCordon,
)
from rbee.wire.hives import (
    SetLabels as SetLabels,
)
from rbee.wire.hives import (
    State as State,
)
from rbee.wire.hives import (
    Status as Status,
)
from rbee.wire.jobs import (
    Done as Done,
)
from rbee.wire.jobs import (
    Jobs as Jobs,
)
from rbee.wire.jobs import (
    JobStarted as JobStarted,
)
from rbee.wire.jobs import (
    JobView as JobView,
)
from rbee.wire.routes import (
    EVENT_HEADER as EVENT_HEADER,
)
from rbee.wire.routes import (
    INSTANCE_HEADER as INSTANCE_HEADER,
)
from rbee.wire.routes import (
    JOB_HEADER as JOB_HEADER,
)
from rbee.wire.routes import (
    VERSION_HEADER as VERSION_HEADER,
)
from rbee.wire.routes import (
    Answer as Answer,
)
from rbee.wire.routes import (
    FleetRoutes as FleetRoutes,
)
from rbee.wire.routes import (
    HiveRoutes as HiveRoutes,
)
from rbee.wire.routes import (
    QueenRoutes as QueenRoutes,
)
from rbee.wire.routes import (
    Route as Route,
)
from rbee.wire.types import (
    DEFAULT_PORT as DEFAULT_PORT,
)
from rbee.wire.types import (
    LOCALHOST as LOCALHOST,
)
from rbee.wire.types import (
    QUEEN_PORT as QUEEN_PORT,
)
from rbee.wire.types import (
    Celsius as Celsius,
)
from rbee.wire.types import (
    Count as Count,
)
from rbee.wire.types import (
    Cpus as Cpus,
)
from rbee.wire.types import (
    EventId as EventId,
)
from rbee.wire.types import (
    FeedId as FeedId,
)
from rbee.wire.types import (
    Fingerprint as Fingerprint,
)
from rbee.wire.types import (
    Host as Host,
)
from rbee.wire.types import (
    JobId as JobId,
)
from rbee.wire.types import (
    LabelKey as LabelKey,
)
from rbee.wire.types import (
    LabelValue as LabelValue,
)
from rbee.wire.types import (
    Limit as Limit,
)
from rbee.wire.types import (
    Load as Load,
)
from rbee.wire.types import (
    MachineId as MachineId,
)
from rbee.wire.types import (
    Name as Name,
)
from rbee.wire.types import (
    NewName as NewName,
)
from rbee.wire.types import (
    Pem as Pem,
)
from rbee.wire.types import (
    Percent as Percent,
)
from rbee.wire.types import (
    Port as Port,
)
from rbee.wire.types import (
    Priority as Priority,
)
from rbee.wire.types import (
    Seconds as Seconds,
)
from rbee.wire.types import (
    Text as Text,
)
from rbee.wire.types import (
    Timestamp as Timestamp,
)
from rbee.wire.types import (
    TokenId as TokenId,
)
from rbee.wire.types import (
    Watts as Watts,
)
from rbee.wire.types import (
    Word as Word,
)
from rbee.wire.types import (
    is_same_name as is_same_name,
)
from rbee.wire.types import (
    spelled as spelled,
)
