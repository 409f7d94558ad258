"""rbeectl show: the properties of a hive or a model, as systemctl show prints a unit's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from rbee.errors import BadInput
from rbee.keeper.hives import Hives
from rbee.keeper.models.named import named
from rbee.keeper.options import in_session, looking
from rbee.keeper.output import tables
from rbee.keeper.output.memory import memory_properties
from rbee.keeper.session import Session
from rbee.keeper.typed import did_you_mean
from rbee.scope import Scope
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.hives import HiveView

if TYPE_CHECKING:
    from rbee.wire.devices import Devices
    from rbee.wire.models import ModelView
    from rbee.wire.samples import Sample


@click.command(short_help="Show the properties of a hive or a model, one NAME=VALUE a line.")
@click.argument("name", metavar="HIVE|MODEL|WORKER")
@click.option(
    "-p", "--property", "wanted", multiple=True, metavar="NAME", help="Show only this property; repeatable."
)
@click.option("--value", is_flag=True, help="Show the values without the names.")
@looking
@in_session
def show(session: Session, name: str, wanted: tuple[str, ...], value: bool) -> None:
    """Show the properties of a hive or a model, one NAME=VALUE a line. A value that is unknown is empty."""
    whole: dict[str, Any]
    with session.queen() as queen:
        found = named(queen, name).view
        if isinstance(found, HiveView):
            sample = Hives(queen).samples([found]).get(found.id)
            memory = Hives(queen).memories([found]).get(found.id)
            known = properties(found) | (live_properties(sample) if sample is not None else {})
            known |= memory_properties(memory) if memory is not None else {}
            whole = {**encode(found), "sample": encode(sample), "memory": encode(memory)}
        else:
            known, whole = model_properties(found), encode(found)
    names = _chosen(known, wanted, session.scope)
    if session.as_json:
        session.tell_json({name: known[name] for name in names} if wanted else whole)
    else:
        lines = (printable(known[name]) if value else f"{name}={printable(known[name])}" for name in names)
        session.show("\n".join(lines))


def _chosen(known: dict[str, str], wanted: Sequence[str], scope: Scope) -> list[str]:
    """The names that were asked for, which may contain commas; all of them if none were."""
    names = [name for part in wanted for name in part.split(",")] or list(known)
    for name in names:
        if name not in known:
            raise BadInput(
                f"{'a hive' if 'Host' in known else 'a model'} has no property '{name:.100}'"
                f"{did_you_mean(name, known)}",
                hint=scope.rbeectl("show HIVE" if "Host" in known else "show MODEL"),
                field="--property",
            )
    return names


def properties(hive: HiveView) -> dict[str, str]:
    """Each property by its name: times as text, memory in bytes, '' for an unknown value."""
    values = {
        "Id": hive.id,
        "Host": hive.host,
        "Port": str(hive.port),
        "State": hive.state,
        "StateReason": hive.reason,
        "StateChangeTimestamp": _time(hive.since_ms),
        "StoredStatus": hive.status,
        "Wanted": "yes" if hive.wanted else "no",
        "Version": hive.version or "",
        "Remote": "yes" if hive.is_remote else "no",
        "Address": hive.address or "",
        "HeartbeatIntervalSec": "" if hive.interval_ms is None else f"{hive.interval_ms / 1000:g}",
        "ClockSkewSec": "" if hive.clock_skew_ms is None else f"{hive.clock_skew_ms / 1000:g}",
        "Labels": tables.labels(hive),
        "Cordoned": hive.cordoned or "",
        "LastHeartbeatTimestamp": _time(hive.last_beat_ms),
        "AddedTimestamp": _time(hive.created_at_ms),
        "ChangedTimestamp": _time(hive.updated_at_ms),
    }
    return values if hive.devices is None else values | device_properties(hive.devices)


def model_properties(model: ModelView) -> dict[str, str]:
    """Each property of a model by its name, as properties()."""
    values = {
        "Id": model.name,
        "State": model.state,
        "StateReason": model.reason,
        "StateChangeTimestamp": _time(model.since_ms),
        "Source": model.source,
        "Path": model.path or "",
        "Hive": model.hive_id,
        "Size": _number(model.bytes),
        "SHA256": model.sha256 or "",
        "MemorySet": _number(model.memory_bytes),
        "MemoryLearned": _number(model.learned_bytes),
        "MemoryEngineSays": _number(None if model.engine_says is None else model.engine_says.bytes),
        "Context": _number(model.context),
        "Served": "yes" if model.is_served else "no",
        "Pinned": "yes" if model.is_pinned else "no",
        "IdleSec": _number(model.idle_s),
        "Engine": model.engine or "",
        "AddedTimestamp": _time(model.created_at_ms),
    }
    head = model.head
    if head is None:
        return values
    return values | {
        "Format": head.format,
        "Architecture": head.architecture or "",
        "Parameters": _number(head.parameters),
        "Quantisation": head.quantisation or "",
        "ContextMost": _number(head.context),
        "Layers": _number(head.layers),
        "Weights": _number(head.weights_bytes),
    }


def device_properties(devices: Devices) -> dict[str, str]:
    """The properties of a machine's devices."""
    cpu = devices.cpu
    values = {
        "CPUModel": cpu.model or "",
        "CPUSockets": _number(cpu.sockets),
        "CPUCores": _number(cpu.cores),
        "CPUThreads": _number(cpu.threads),
        "CPUsAllowed": _number(cpu.cpus_allowed),
        "MemoryTotal": _number(cpu.ram_bytes),
        "MemoryAllowed": _number(cpu.ram_allowed_bytes),
        "GPUs": str(len(devices.gpus)),
    }
    for gpu in devices.gpus:
        values |= {
            f"GPU{gpu.index}Name": gpu.name or "",
            f"GPU{gpu.index}Vendor": gpu.vendor,
            f"GPU{gpu.index}UUID": gpu.uuid or "",
            f"GPU{gpu.index}MemoryTotal": _number(gpu.vram_bytes),
            f"GPU{gpu.index}MemoryKind": gpu.memory_kind or "",
            f"GPU{gpu.index}MemoryShared": _number(gpu.shared_memory_bytes),
            f"GPU{gpu.index}Driver": gpu.driver or "",
            f"GPU{gpu.index}PCIAddress": gpu.pci_address or "",
            f"GPU{gpu.index}Problem": gpu.problem or "",
        }
    return values | {"Findings": " ".join(finding.code for finding in devices.findings)}


def live_properties(sample: Sample) -> dict[str, str]:
    """The properties of a machine's current load."""
    values = {
        "LoadAverage1": _number(sample.load_1),
        "LoadAverage5": _number(sample.load_5),
        "LoadAverage15": _number(sample.load_15),
        "CPUPercent": _number(sample.cpu_percent),
        "MemoryUsed": _number(sample.memory_used_bytes),
    }
    for gpu in sample.gpus:
        values |= {
            f"GPU{gpu.index}Percent": _number(gpu.utilisation_percent),
            f"GPU{gpu.index}MemoryUsed": _number(gpu.memory_used_bytes),
            f"GPU{gpu.index}TemperatureCelsius": _number(gpu.temperature_celsius),
            f"GPU{gpu.index}PowerWatts": _number(gpu.power_watts),
        }
    return values


def _time(then_ms: int | None) -> str:
    return "" if then_ms is None else tables.clock(then_ms * 1000)


def _number(count: float | None) -> str:
    return "" if count is None else f"{count:g}" if isinstance(count, float) else str(count)
