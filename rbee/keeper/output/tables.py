"""Tables for people, and how figures and times are shown in them."""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from rbee.keeper.output.screen import Screen, width
from rbee.scope import Scope
from rbee.text import in_units, printable
from rbee.wire.types import LOCALHOST

if TYPE_CHECKING:
    from rbee.wire.catalog import AuditEntry
    from rbee.wire.devices import Gpu
    from rbee.wire.events import FeedEvent
    from rbee.wire.fleet import TokenView
    from rbee.wire.hives import HiveView
    from rbee.wire.samples import Sample

LEAST_COLUMN = 8
"""Columns of the terminal that a cell keeps at least; it also keeps its header's width."""

LEAST_KEY = 20
"""The same for the key column, when lines are not cut at the edge of the screen."""


class Frame(NamedTuple):
    """How a table is drawn: with a header or without, and for which screen, None for any width.

    Lines are cut to the screen, unless it scrolls to the right.
    """

    has_header: bool = True
    screen: Screen | None = None
    scrolls: bool = False

    def fit(self, line: str) -> str:
        """The line, cut to the screen if it does not scroll."""
        return line if self.screen is None or self.scrolls else self.screen.cut(line)

    def cell(self, text: str, columns: int) -> str:
        """The text of a cell, cut and padded to so many columns."""
        if self.screen is not None:
            text = self.screen.cut(text, columns)
        return text + " " * (columns - width(text))


WHOLE = Frame()


class Table:
    """Left-aligned columns, two spaces apart, without trailing blanks; may be drawn in parts.

    `key` is the column that people look for: on a screen the widest columns up to it are narrowed, so that
    it stays visible beside long names.
    """

    def __init__(self, header: Sequence[str], frame: Frame = WHOLE, *, key: str | None = None) -> None:
        self._header = header
        self._frame = frame
        self._key = key
        self._widths = [0] * len(header)
        self._is_begun = False

    def part(self, rows: Iterable[Sequence[str]]) -> str:
        """Return the next rows, the first ones below the header; columns never get narrower."""
        header, frame = self._header, self._frame
        lines = [[printable(cell) for cell in row] for row in rows]
        if frame.has_header and not self._is_begun:
            lines.insert(0, list(header))
        self._is_begun = True
        columns = zip(self._widths, *lines, strict=True)
        self._widths = widths = [max((before, *map(width, cells))) for before, *cells in columns]
        if self._key is not None and frame.screen is not None and frame.screen.columns is not None:
            key = header.index(self._key)
            widths = _narrowed(header, widths, key, frame.screen.columns, frame.scrolls)
        return "\n".join(frame.fit("  ".join(map(frame.cell, line, widths)).rstrip()) for line in lines)


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], frame: Frame = WHOLE, *, key: str | None = None
) -> str:
    """Return a Table drawn as a single part."""
    return Table(header, frame, key=key).part(rows)


def _narrowed(
    header: Sequence[str], widths: Sequence[int], key: int, room: int, keeps_key: bool
) -> list[int]:
    """Widths with which the columns up to `key` fit into `room`, as far as their least widths allow."""
    narrow = list(widths[: key + 1])
    giving = range(key if keeps_key else key + 1)
    if keeps_key:
        narrow[key] = min(narrow[key], LEAST_KEY)
    least = [max(LEAST_COLUMN, width(name)) for name in header]
    # For the columns after the key there is at least an ellipsis.
    room -= 0 if len(header) == key + 1 else 2
    while sum(narrow) + 2 * key > room:
        widest = max(
            (one for one in giving if narrow[one] > least[one]), key=narrow.__getitem__, default=None
        )
        if widest is None:
            break
        narrow[widest] -= 1
    if keeps_key:
        narrow[key] = widths[key]
    return [*narrow, *widths[key + 1 :]]


def no_hives(scope: Scope) -> str:
    """What is shown in place of a table if there are no hives."""
    return f"No hives. Add this machine: {scope.rbeectl(f'add-hive {LOCALHOST}')}"


HIVES_HEADER = (
    "HIVE", "STATE", "SINCE", "LAST BEAT", "REASON", "DEVICES", "WORKERS", "ADDRESS", "VERSION", "INTERVAL",
    "AGE", "LABELS",
)  # fmt: skip


def hives_table(now_ms: int, frame: Frame = WHOLE) -> Callable[[Iterable[HiveView]], str]:
    """Return a function that draws list-hives' table part by part; ages are up to `now_ms` (since 1970)."""
    parts = Table(HIVES_HEADER, frame, key="REASON")
    return lambda hives: parts.part(_hive_cells(hive, now_ms) for hive in hives)


def _hive_cells(hive: HiveView, now_ms: int) -> tuple[str, ...]:
    reason = hive.reason if hive.cordoned is None else f"cordoned: {hive.cordoned}; {hive.reason}"
    return (
        hive.id,
        hive.state,
        ago(hive.since_ms, now_ms),
        ago(hive.last_beat_ms, now_ms) if hive.last_beat_ms else "-",
        with_problem(reason, hive),
        _devices_in_short(hive),
        "-" if hive.devices is None else str(len(hive.devices.worker_catalog)),
        address(hive),
        hive.version or "-",
        f"{hive.interval_ms / 1000:g}s" if hive.interval_ms else "-",
        span(hive.created_at_ms, now_ms),
        labels(hive) or "-",
    )


def with_problem(text: str, row: HiveView | TokenView | AuditEntry | FeedEvent | Gpu) -> str:
    """The text of a cell, with what could not be read of its row, if anything."""
    return f"{text} [{row.problem}]" if row.problem else text


def labels(hive: HiveView) -> str:
    """Such as 'rack=3,spare='; '' if there are none."""
    return ",".join(f"{label.key}={label.value}" for label in hive.labels)


def address(hive: HiveView) -> str:
    """Where a hive on another machine last connected from, or HOST:PORT of the catalog."""
    if hive.is_remote:
        return hive.address or "-"
    return f"{hive.host}:{hive.port}"


def tokens_table(tokens: Iterable[TokenView], now_ms: int, frame: Frame = WHOLE) -> str:
    """The table of token list."""
    rows = [
        (
            token.id,
            with_problem(_token_state(token, now_ms), token),
            token.hive or "any",
            str(token.uses_left),
            clock(token.expires_at_ms * 1000),
            ago(token.created_at_ms, now_ms),
        )
        for token in tokens
    ]
    return table(("TOKEN", "STATE", "HIVE", "USES LEFT", "EXPIRES", "MADE"), rows, frame, key="EXPIRES")


def _token_state(token: TokenView, now_ms: int) -> str:
    if token.is_revoked:
        return "revoked"
    if not token.uses_left:
        return "spent"
    return "expired" if token.expires_at_ms <= now_ms else "good"


def audit_table(entries: Iterable[AuditEntry], frame: Frame = WHOLE) -> str:
    """The table of audit."""
    rows = [
        (clock(entry.at_ms * 1000), _actor(entry), with_problem(entry.text, entry), entry.hive or "-")
        for entry in entries
    ]
    return table(("TIME", "WHO", "WHAT", "HIVE"), rows, frame, key="WHAT")


def _actor(entry: AuditEntry) -> str:
    if entry.actor_credential is not None:
        return f"credential {entry.actor_credential}"
    return "-" if entry.actor_uid is None else user(entry.actor_uid)


def user(uid: int) -> str:
    """The number, which the journal has, and the name, if there is one."""
    try:
        return f"uid {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"uid {uid}"


def device_lines(hive: HiveView) -> list[tuple[str, str]]:
    """Name and description of each device, and each finding of the detection."""
    lines = [(device, f"{name}, {size}") for _, device, name, size, *_ in device_rows(hive)]
    findings = hive.devices.findings if hive.devices is not None else ()
    return lines + [("Finding", f"{finding.detail} ({finding.code})") for finding in findings]


def devices_table(hives: Iterable[HiveView], frame: Frame = WHOLE) -> str:
    """The devices of hives, as add-hive shows them."""
    rows = [row for hive in hives for row in device_rows(hive)]
    header = ("HIVE", "DEVICE", "NAME", "MEMORY", "DRIVER", "ADDRESS", "UUID")
    return table(header, rows, frame, key="MEMORY")


def live_table(hives: Iterable[HiveView], samples: Mapping[str, Sample], frame: Frame = WHOLE) -> str:
    """The table of list-devices: as devices_table(), with current use; '-' for a hive without a sample."""
    rows = []
    for hive in hives:
        sample = samples.get(hive.id)
        for number, (hive_id, device, name, size, driver, address, uuid) in enumerate(device_rows(hive)):
            use, used, temperature, power = _use(sample, number - 1)
            memory = f"{gib(used)} / {size}" if used is not None else size
            rows.append((hive_id, device, name, use, memory, temperature, power, driver, address, uuid))
    header = ("HIVE", "DEVICE", "NAME", "USE", "MEMORY", "TEMP", "POWER", "DRIVER", "ADDRESS", "UUID")
    return table(header, rows, frame, key="POWER")


def _use(sample: Sample | None, number: int) -> tuple[str, int | None, str, str]:
    """Use, bytes of memory in use, temperature and power, of the GPU with this index; -1 is the processor."""
    if sample is None:
        return "-", None, "-", "-"
    if number == -1:
        return percent(sample.cpu_percent), sample.memory_used_bytes, "-", "-"
    gpu = next((gpu for gpu in sample.gpus if gpu.index == number), None)
    if gpu is None:
        return "-", None, "-", "-"
    use = percent(gpu.utilisation_percent)
    return use, gpu.memory_used_bytes, celsius(gpu.temperature_celsius), watts(gpu.power_watts)


def percent(value: float | None) -> str:
    """Such as '42%'; '-' if unknown."""
    return "-" if value is None else f"{value:.0f}%"


def celsius(value: float | None) -> str:
    """Such as '61 C'; '-' if unknown."""
    return "-" if value is None else f"{value:.0f} C"


def watts(value: float | None) -> str:
    """Such as '250 W'; '-' if unknown."""
    return "-" if value is None else f"{value:.0f} W"


def memory_use(used: int | None, total: int | None) -> str:
    """Such as '2.0 / 23.5 GiB', of bytes."""
    if used is None:
        return memory(total)
    return f"{gib(used)} / {memory(total)}"


def gib(count: int) -> str:
    """Bytes in GiB, without the unit."""
    return f"{count / 2**30:.1f}"


def device_rows(hive: HiveView) -> list[tuple[str, ...]]:
    """Hive, device, name, memory, driver, PCI address and UUID: the processor first, then each GPU."""
    if hive.devices is None:
        return [(hive.id, "-", "not known yet", "-", "-", "-", "-")]
    cpu = hive.devices.cpu
    counts = ((cpu.sockets, "socket"), (cpu.cores, "core"), (cpu.threads, "thread"))
    shape = ", ".join(f"{n} {what}{'s' if n != 1 else ''}" for n, what in counts if n is not None)
    limit = f"; limited to {cpu.cpus_allowed:g}" if cpu.cpus_allowed is not None else ""
    name = f"{cpu.model or 'model unknown'} ({shape or 'size unknown'}{limit})"
    size = memory(cpu.ram_bytes)
    if cpu.ram_allowed_bytes is not None:
        size = f"{gib(cpu.ram_allowed_bytes)} of {size}"
    return [
        (hive.id, "cpu", name, size, "-", "-", "-"),
        *((hive.id, f"gpu{gpu.index}", *_gpu_cells(gpu)) for gpu in hive.devices.gpus),
    ]


def _gpu_cells(gpu: Gpu) -> tuple[str, ...]:
    name = gpu.name or f"{gpu.vendor}, name unknown"
    return (
        with_problem(name, gpu),
        gpu_memory(gpu),
        gpu.driver or "-",
        gpu.pci_address or "-",
        gpu.uuid or "-",
    )


def gpu_memory(gpu: Gpu) -> str:
    """A card's own memory; for one that uses the machine's, how much of it, if the driver reports that."""
    if gpu.memory_kind != "shared":
        return memory(gpu.memory_bytes)
    return "shared" if gpu.memory_bytes is None else f"{memory(gpu.memory_bytes)} shared"


def findings(hives: Iterable[HiveView]) -> list[str]:
    """What kept the detection from finding every device, a line each."""
    return [
        printable(f"{hive.id}: {finding.detail} ({finding.code})")
        for hive in hives
        if hive.devices is not None
        for finding in hive.devices.findings
    ]


def _devices_in_short(hive: HiveView) -> str:
    if hive.devices is None:
        return "-"
    return " ".join(["cpu", *(f"gpu{gpu.index}" for gpu in hive.devices.gpus)])


def memory(count: int | None) -> str:
    """Bytes, such as '23.5 GiB'; 'unknown' for None."""
    return f"{gib(count)} GiB" if count is not None else "unknown"


def ago(then_ms: int, now_ms: int) -> str:
    """Return the time between two times in milliseconds since 1970, such as '2min 3s ago'."""
    return f"{span(then_ms, now_ms)} ago"


def span(then_ms: int, now_ms: int) -> str:
    """Return the time between two times in milliseconds since 1970, in its two largest units: '2min 3s'."""
    return in_units(max(0, (now_ms - then_ms) // 1000))


def now_ms() -> int:
    """The time of the wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def moment(then_us: int) -> str:
    """A time of the wall clock, in microseconds, as systemctl prints it, with how long ago."""
    return f"{clock(then_us)}; {ago(then_us // 1000, now_ms())}"


def clock(then_us: int) -> str:
    """A time of the wall clock, in microseconds, as systemctl show prints it."""
    return f"{datetime.fromtimestamp(then_us / 1e6).astimezone():%a %Y-%m-%d %H:%M:%S %Z}"
