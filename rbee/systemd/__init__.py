"""The only speaker to systemd: units and their jobs over D-Bus, handed-over sockets, sd_notify.

Nobody above this room sees a bus error: each becomes one of ours, with its cure.
"""

from rbee.scope import (
    FORGET_UNIT,
    HIVE_SOCKET_UNIT,
    HIVE_UNIT,
    JOIN_UNIT,
    QUEEN_SOCKET_UNIT,
    QUEEN_UNIT,
    REDIAL_UNIT,
    SYSTEM,
    TARGET,
    TCP_RETRY_UNIT,
    TCP_SOCKET_UNIT,
)
from rbee.systemd.bus import REBOOTS, Bus
from rbee.systemd.connection import SYSTEMD, unit_path
from rbee.systemd.daemon import (
    NO_SOCKET,
    STATUS_LIMIT,
    TRY,
    Notifier,
    failure_in_a_line,
    invocation_id,
    take_sockets,
    watchdog_interval,
)
from rbee.systemd.errors import BUS_TIMEOUT
from rbee.systemd.journal import journal_tail
from rbee.systemd.unit import Units, UnitState, check_job, cure_of, invocation_of, said_by, unusable

DOCTOR = SYSTEM.doctor

__all__ = [
    "BUS_TIMEOUT", "DOCTOR", "FORGET_UNIT", "HIVE_SOCKET_UNIT", "HIVE_UNIT", "JOIN_UNIT", "NO_SOCKET",
    "QUEEN_SOCKET_UNIT", "QUEEN_UNIT", "REBOOTS", "REDIAL_UNIT", "STATUS_LIMIT", "SYSTEMD", "TARGET",
    "TCP_RETRY_UNIT", "TCP_SOCKET_UNIT", "TRY", "Bus", "Notifier", "UnitState", "Units", "check_job",
    "cure_of", "failure_in_a_line", "invocation_id", "invocation_of", "journal_tail", "said_by",
    "take_sockets", "unit_path", "unusable", "watchdog_interval",
]  # fmt: skip
