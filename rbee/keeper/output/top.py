"""A frame of `rbeectl top`: the current load of each hive's machine, in lines with colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rbee.keeper.output import tables
from rbee.keeper.output.memory import holder_lines
from rbee.keeper.output.screen import Screen, width
from rbee.scope import SYSTEM, Scope
from rbee.text import printable

if TYPE_CHECKING:
    from rbee.wire.devices import Gpu
    from rbee.wire.hives import HiveView
    from rbee.wire.samples import GpuSample, Sample
    from rbee.wire.workers import Memory

Tone = Literal["plain", "bold", "good", "warning", "bad"]

SGR: Mapping[Tone, str] = {"plain": "", "bold": "1", "good": "32", "warning": "33", "bad": "31"}
"""The SGR code of each tone, for text with escape sequences."""

Segment = tuple[str, Tone]
Row = list[Segment]

BAR_FROM, HEAT_FROM, NAME_FROM = 70, 85, 110
"""The columns that a terminal needs for bars, for temperature and power, and for names."""

WARNING, BAD = 70.0, 90.0
"""Percent at which something is nearly full, and practically full."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What a frame shows; `queen` is its state, and `hives` is None while it is not awake.

    `memories` are the memory books of hives, by id, if they are to be shown.
    """

    clock: str
    now_ms: int
    queen: str
    hives: Sequence[HiveView] | None
    samples: Mapping[str, Sample]
    scope: Scope = SYSTEM
    memories: Mapping[str, Memory] = field(default_factory=dict)


def frame(moment: Moment, screen: Screen) -> list[Row]:
    """The rows of a frame, cut to the screen; more hives than fit are counted in the last one."""
    columns = screen.columns or 120
    rows: list[Row] = [[(_headline(moment), "bold")], []]
    if moment.hives is None:
        rows.append([(f"The queen is {moment.queen}: nothing is known until it wakes.", "warning")])
    elif not moment.hives:
        rows.append([(tables.no_hives(moment.scope), "plain")])
    else:
        rows += _table(moment, columns, screen)
    fitting = [_cut(row, columns, screen) for row in rows]
    if screen.columns is not None and len(fitting) > screen.lines:
        hidden = len(fitting) - screen.lines + 1
        fitting = [*fitting[: max(0, screen.lines - 1)], [(f"{hidden} more lines", "warning")]]
        fitting = [_cut(row, columns, screen) for row in fitting]
    return fitting


def _headline(moment: Moment) -> str:
    counts = Counter(hive.state for hive in moment.hives or ())
    hives = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"
    return f"rbee - {moment.clock}, the queen is {moment.queen}, hives: {hives}"


LEAST_NAME = 9
"""Columns that are left for a hive's name on a narrow terminal, beside its figures."""


def _table(moment: Moment, columns: int, screen: Screen) -> Iterator[Row]:
    cells = [cell for hive in moment.hives or () for cell in _lines(hive, moment, columns, screen)]
    header: list[Row] = [[(name, "bold")] for name in ("HIVE", "DEVICE", "USE", "MEMORY")]
    header += [[(name, "bold")] for name in ("TEMP", "POWER")] if columns >= HEAT_FROM else []
    header += [[("NAME", "bold")]] if columns >= NAME_FROM else []
    table = [header, *(line for line in cells if len(line) > 1)]
    widths = [max(_width(line[number]) for line in table) for number in range(len(header))]
    for line in (header, *cells):
        if len(line) == 1:  # a sentence, not in columns
            yield line[0]
            continue
        row: Row = []
        for cell, room in zip(line, widths, strict=True):
            row += [*cell, (" " * (room - _width(cell) + 2), "plain")]
        yield row


def _lines(hive: HiveView, moment: Moment, columns: int, screen: Screen) -> Iterator[list[Row]]:
    """The lines of a hive, each a list of cells."""
    name = screen.cut(printable(hive.id), max(LEAST_NAME, columns // 3))
    sample = moment.samples.get(hive.id)
    if hive.state != "online":
        tone: Tone = "bad" if hive.state == "offline" else "warning"
        since = tables.ago(hive.since_ms, moment.now_ms)
        yield [[(f"{name}  ", "plain"), (f"{hive.state} {since}: {printable(hive.reason)}", tone)]]
        return
    if sample is None:
        yield [[(f"{name}  ", "plain"), ("online, but sends no figures", "warning")]]
        return
    bars = columns >= BAR_FROM
    load = "" if sample.load_1 is None else f" load {sample.load_1:.2f}"
    use = [*_percent(sample.cpu_percent, bars, screen), (load, "plain")]
    memory = _memory(sample.memory_used_bytes, sample.memory_total_bytes, bars, screen)
    model = hive.devices.cpu.model if hive.devices is not None else None
    holders = _holders(moment.memories.get(hive.id))
    yield _fit(
        [[(name, "plain")], [("cpu", "plain")], use, memory, [("", "plain")], [("", "plain")]], model, columns
    )
    yield from holders.get("ram", ())
    cards = {gpu.index: gpu for gpu in hive.devices.gpus} if hive.devices is not None else {}
    for gpu in sample.gpus:
        yield _gpu(gpu, cards.get(gpu.index), columns, bars, screen)
        yield from holders.get(f"gpu{gpu.index}", ())


def _holders(memory: Memory | None) -> dict[str, list[list[Row]]]:
    """The lines of the holders of each pool, by its id; they are not in columns."""
    pools = memory.pools if memory is not None else ()
    return {pool.id: [[[(f"    {line}", "plain")]] for line in holder_lines(pool)] for pool in pools}


def _gpu(gpu: GpuSample, card: Gpu | None, columns: int, bars: bool, screen: Screen) -> list[Row]:
    name = card.name if card is not None else None
    memory = _memory(gpu.memory_used_bytes, gpu.memory_total_bytes, bars, screen)
    if card is not None and gpu.memory_used_bytes is None:
        memory = [(tables.gpu_memory(card), "plain")]
    known = f"{name or 'name unknown'} [{gpu.problem}]" if gpu.problem else name
    return _fit(
        [
            [("", "plain")],
            [(f"gpu{gpu.index}", "plain")],
            _percent(gpu.utilisation_percent, bars, screen),
            memory,
            [(tables.celsius(gpu.temperature_celsius), "plain")],
            [(tables.watts(gpu.power_watts), "plain")],
        ],
        known,
        columns,
    )


def _fit(cells: list[Row], name: str | None, columns: int) -> list[Row]:
    """The cells that fit into so many columns."""
    shown = cells if columns >= HEAT_FROM else cells[:4]
    return [*shown, [(printable(name or "-"), "plain")]] if columns >= NAME_FROM else shown


def _percent(percent: float | None, has_bar: bool, screen: Screen) -> Row:
    if percent is None:
        return [("-", "plain")]
    return [*_bar(percent, has_bar, screen), (f"{percent:3.0f}%", _tone(percent))]


def _memory(used: int | None, total: int | None, has_bar: bool, screen: Screen) -> Row:
    if used is None or not total:
        return [(tables.memory_use(used, total), "plain")]
    percent = min(100.0, 100 * used / total)
    return [*_bar(percent, has_bar, screen), (tables.memory_use(used, total), _tone(percent))]


def _bar(percent: float, has_bar: bool, screen: Screen) -> Row:
    if not has_bar:
        return []
    length = 10
    full = round(percent / 100 * length)
    on, off = ("█", "░") if screen.has_unicode else ("#", ".")
    return [(on * full, _tone(percent)), (off * (length - full) + " ", "plain")]


def _tone(percent: float) -> Tone:
    return "bad" if percent >= BAD else "warning" if percent >= WARNING else "good"


def _width(row: Row) -> int:
    return sum(width(text) for text, _ in row)


def _cut(row: Row, columns: int, screen: Screen) -> Row:
    """The row, cut to so many columns, without blanks at its end."""
    shown: Row = []
    left = columns
    for text, tone in row:
        part = screen.cut(text, left) if width(text) > left else text
        shown.append((part, tone))
        left -= width(part)
    while shown and not shown[-1][0].rstrip():
        shown.pop()
    if shown:
        shown[-1] = (shown[-1][0].rstrip(), shown[-1][1])
    return shown
