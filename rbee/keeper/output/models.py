"""Tables of models, workers, engines, placements and keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rbee.keeper.output.tables import WHOLE, Frame, ago, clock, table
from rbee.text import shown_size, shown_span

if TYPE_CHECKING:
    from rbee.wire.engines import FleetEngines, HiveEngines
    from rbee.wire.keys import KeyView
    from rbee.wire.models import Head, ModelView
    from rbee.wire.workers import Candidate, Placement, WorkerView

SOURCES = {
    "operator": "set by --memory",
    "learned": "learned",
    "engine": "as its engine {engine} says",
    "estimate": "estimated from its header",
    "guess": "guessed from its size",
}
"""How the queen knows what memory a model needs."""


def size(count: int | None) -> str:
    """Bytes, such as '5.1 GiB'; '-' for None."""
    return "-" if count is None else shown_size(count)


def models_table(models: Iterable[ModelView], now_ms: int, frame: Frame = WHOLE) -> str:
    """The table of model list."""
    rows = [
        (
            model.name,
            model_state(model),
            "yes" if model.is_served else "no",
            kind(model.head),
            size(model.bytes),
            needs(model),
            model.hive_id,
            model.source,
            ago(model.created_at_ms, now_ms),
            f"{model.reason} [{model.problem}]" if model.problem else model.reason,
        )
        for model in models
    ]
    header = ("MODEL", "STATE", "SERVED", "KIND", "SIZE", "MEMORY", "HIVE", "SOURCE", "ADDED", "REASON")
    return table(header, rows, frame, key="HIVE")


def model_state(model: ModelView) -> str:
    """Such as 'ready', or 'fetching 62%'."""
    return model.state if model.progress is None else f"{model.state} {model.progress:.0f}%"


def needs(model: ModelView) -> str:
    """The memory that it needs, and who says so; '-' if it is neither set nor learned, nor its engine's."""
    if model.memory_bytes is not None:
        return f"{shown_size(model.memory_bytes)} (set)"
    if model.learned_bytes is not None:
        return f"{shown_size(model.learned_bytes)} (learned)"
    if (says := model.engine_says) is None:
        return "-"
    return f"{shown_size(says.bytes)} ({SOURCES['engine'].format(engine=says.engine)})"


def kind(head: Head | None) -> str:
    """Such as 'gguf llama 7.6B Q4_K'; '-' if the header is not known."""
    if head is None:
        return "-"
    parts = (head.format, head.architecture, _parameters(head.parameters), head.quantisation)
    return " ".join(part for part in parts if part)


def _parameters(count: int | None) -> str | None:
    if count is None:
        return None
    for unit, number in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= number:
            return f"{count / number:.3g}{unit}"
    return str(count)


def workers_table(workers: Iterable[WorkerView], now_ms: int, frame: Frame = WHOLE) -> str:
    """The table of list-workers."""
    rows = [
        (
            worker.id or "-",
            worker.model,
            worker_state(worker),
            ago(worker.since_ms, now_ms),
            worker.hive_id or "-",
            worker.pool or "-",
            memory(worker),
            str(worker.in_flight),
            "-" if worker.last_used_ms is None else ago(worker.last_used_ms, now_ms),
            worker.engine or "-",
            worker.reason,
        )
        for worker in workers
    ]
    header = (
        "WORKER", "MODEL", "STATE", "SINCE", "HIVE", "POOL", "MEMORY", "REQUESTS", "USED", "ENGINE", "REASON",
    )  # fmt: skip
    return table(header, rows, frame, key="REASON")


def worker_state(worker: WorkerView) -> str:
    """Such as 'ready', 'busy 3' or 'loading 62%'."""
    if worker.state == "busy":
        return f"busy {worker.in_flight}"
    if worker.state == "loading" and worker.percent is not None:
        return f"loading {worker.percent:.0f}%"
    return worker.state


def memory(worker: WorkerView) -> str:
    """What it uses of what is reserved for it, such as '4.9 GiB of 5.1 GiB'; '-' if neither is known."""
    if worker.claim_bytes is None:
        return size(worker.used_bytes)
    if worker.used_bytes is None:
        return f"{shown_size(worker.claim_bytes)} claimed"
    return f"{shown_size(worker.used_bytes)} of {shown_size(worker.claim_bytes)}"


def placement_page(placement: Placement, frame: Frame = WHOLE) -> str:
    """What place prints: what the model needs, each pool with its arithmetic, and the decision."""
    source = SOURCES[placement.source].format(engine=placement.engine)
    need = f"{placement.model} needs {shown_size(placement.need_bytes)} ({source})"
    rows = [_candidate_cells(candidate) for candidate in placement.candidates]
    header = ("", "HIVE", "POOL", "NAME", "TOTAL", "FREE", "MARGIN", "NEED", "VERDICT")
    parts = [f"{need} with a context of {placement.context} tokens"] if frame.has_header else []
    if rows:
        parts.append(table(header, rows, frame, key="VERDICT"))
    if frame.has_header:
        parts.append(f"Decision: {placement.decision}: {placement.reason}")
        if placement.hint is not None:
            parts.append(f"Try: {placement.hint}")
        if placement.note is not None:
            parts.append(f"Its engine does not say what it needs: {placement.note}")
    return "\n".join(parts)


def _candidate_cells(candidate: Candidate) -> tuple[str, ...]:
    evicts = f"; stops {', '.join(candidate.evicts)}" if candidate.evicts else ""
    return (
        "*" if candidate.is_chosen else " ",
        candidate.hive_id,
        candidate.pool,
        candidate.name,
        size(candidate.total_bytes),
        size(candidate.free_bytes),
        shown_size(candidate.margin_bytes),
        shown_size(candidate.need_bytes),
        f"{candidate.verdict}{evicts}",
    )


def engines_table(engines: FleetEngines, frame: Frame = WHOLE) -> str:
    """The table of list-engines: the engines of each hive, and the drop-ins that were refused."""
    rows = [row for hive in engines.hives for row in _engine_rows(hive)]
    return table(("HIVE", "ENGINE", "FORMATS", "EXECUTABLE", "FILE", "PROBLEM"), rows, frame, key="PROBLEM")


def _engine_rows(hive: HiveEngines) -> list[tuple[str, ...]]:
    if hive.reason is not None:
        return [(hive.hive_id, "-", "-", "-", "-", hive.reason)]
    rows: list[tuple[str, ...]] = [
        (hive.hive_id, one.name, ",".join(one.formats), one.executable, one.file, one.problem or "-")
        for one in hive.engines
    ]
    rows += [(hive.hive_id, "-", "-", "-", "-", problem) for problem in hive.problems]
    return rows or [(hive.hive_id, "-", "-", "-", "-", "it has no engines")]


def keys_table(keys: Iterable[KeyView], now_ms: int, frame: Frame = WHOLE) -> str:
    """The table of key list."""
    rows = [
        (
            key.name,
            f"{key_state(key, now_ms)} [{key.problem}]" if key.problem else key_state(key, now_ms),
            ",".join(key.models) or "all",
            str(key.uses),
            "-" if key.last_used_ms is None else ago(key.last_used_ms, now_ms),
            "never" if key.expires_at_ms is None else clock(key.expires_at_ms * 1000),
            ago(key.created_at_ms, now_ms),
        )
        for key in keys
    ]
    header = ("KEY", "STATE", "MODELS", "REQUESTS", "USED", "EXPIRES", "MADE")
    return table(header, rows, frame, key="EXPIRES")


def key_state(key: KeyView, now_ms: int) -> str:
    """'good', 'revoked' or 'expired'."""
    if key.is_revoked:
        return "revoked"
    is_expired = key.expires_at_ms is not None and key.expires_at_ms <= now_ms
    return "expired" if is_expired else "good"


def idle(model: ModelView) -> str:
    """When a worker without requests is stopped."""
    if model.is_pinned:
        return "an idle worker keeps running (pinned)"
    return f"an idle worker is stopped after {shown_span(model.idle_s)}"
