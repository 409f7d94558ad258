"""Tables of models, workers, engines, placements and keys."""

from __future__ import annotations

import re

import pytest

from rbee.keeper.output import models as drawn
from rbee.keeper.output.tables import Frame
from rbee.wire.keys import KeyView
from tests.unit.keeper.model_values import ASLEEP, ENGINES, GIB, HEAD, MODEL, NOW, PLACEMENT, WORKER


def rows_of(table: str) -> list[list[str]]:
    return [re.split(" {2,}", line) for line in table.splitlines()]


def test_models_are_listed_with_what_they_need() -> None:
    fetching = MODEL._replace(
        name="wasp", state="fetching", progress=62.4, head=None, bytes=None, learned_bytes=None,
        memory_bytes=GIB // 2, is_served=False, source="https://example.org/wasp", problem="x must be y",
    )  # fmt: skip
    header, *rows = rows_of(drawn.models_table([MODEL, fetching], NOW + 5_000))

    assert header[:6] == ["MODEL", "STATE", "SERVED", "KIND", "SIZE", "MEMORY"]
    assert rows[0][:6] == ["bee", "ready", "yes", "gguf llama 7.62B Q4_K", "4.0 GiB", "5.0 GiB (learned)"]
    assert rows[1][:6] == ["wasp", "fetching 62%", "no", "-", "-", "0.5 GiB (set)"]
    assert rows[1][-1] == "its file is there [x must be y]"


def test_workers_are_listed_with_what_they_do() -> None:
    loading = WORKER._replace(id="bee-2", state="loading", percent=62.0, used_bytes=None, in_flight=0)
    header, *rows = rows_of(drawn.workers_table([WORKER, loading, ASLEEP], NOW + 5_000))

    assert header[:4] == ["WORKER", "MODEL", "STATE", "SINCE"]
    assert rows[0][:8] == [
        "bee-1", "bee", "busy 2", "5s ago", "localhost", "gpu0", "4.0 GiB of 5.0 GiB", "2",
    ]  # fmt: skip
    assert rows[1][2] == "loading 62%"
    assert rows[1][6] == "5.0 GiB claimed"
    assert rows[2][:7] == ["-", "bee", "asleep", "5s ago", "-", "-", "-"]


def test_a_placement_is_arithmetic_for_each_pool() -> None:
    lines = drawn.placement_page(PLACEMENT).splitlines()

    assert lines[0] == "bee needs 5.0 GiB (learned) with a context of 4096 tokens"
    assert lines[1].split() == ["HIVE", "POOL", "NAME", "TOTAL", "FREE", "MARGIN", "NEED", "VERDICT"]
    assert lines[2].strip().startswith("localhost  ram")
    assert lines[2].endswith("3.0 GiB   1.0 GiB  5.0 GiB  3 GiB short")
    assert lines[3].startswith("*  localhost  gpu0  RTX 4090")
    assert lines[4] == "Decision: start: it fits"
    said = PLACEMENT._replace(source="engine", engine="vllm")
    assert drawn.placement_page(said).startswith("bee needs 5.0 GiB (as its engine vllm says) with")
    noted = PLACEMENT._replace(note="x.conf: Estimate=/bin/x: it printed 0")
    last = drawn.placement_page(noted).splitlines()[-1]
    assert last == "Its engine does not say what it needs: x.conf: Estimate=/bin/x: it printed 0"
    evicting = PLACEMENT.candidates[1]._replace(evicts=("wasp-1", "fly-1"))
    page = drawn.placement_page(PLACEMENT._replace(candidates=(evicting,)), Frame(has_header=False))
    assert page.endswith("tightest; stops wasp-1, fly-1")
    assert len(page.splitlines()) == 1


def test_engines_are_listed_with_what_is_missing() -> None:
    _, *rows = rows_of(drawn.engines_table(ENGINES))

    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("localhost", "llama-server", "-"),
        ("localhost", "vllm", "vllm was not found"),
        ("localhost", "-", "/etc/rbee/engines.d/a.conf:3: unknown"),
        ("gpu1", "-", "it does not answer"),
    ]


@pytest.mark.parametrize(
    ("key", "state"),
    [
        (KeyView("alice", (), NOW, None, False, 0, None), "good"),
        (KeyView("alice", ("bee",), NOW, NOW, False, 3, NOW), "expired"),
        (KeyView("alice", ("bee",), NOW, NOW, True, 3, NOW), "revoked"),
    ],
)
def test_keys_are_listed_with_what_has_become_of_them(key: KeyView, state: str) -> None:
    _, row = rows_of(drawn.keys_table([key], NOW))

    assert row[:3] == ["alice", state, ",".join(key.models) or "all"]


def test_a_kind_has_what_is_known() -> None:
    assert drawn.kind(None) == "-"
    assert drawn.kind(HEAD._replace(architecture=None, parameters=None, quantisation=None)) == "gguf"
    assert drawn.kind(HEAD._replace(parameters=793_000)) == "gguf llama 793K Q4_K"
    assert drawn.idle(MODEL) == "an idle worker is stopped after 5min"
    assert drawn.idle(MODEL._replace(is_pinned=True)) == "an idle worker keeps running (pinned)"
