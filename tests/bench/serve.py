"""What the gateway costs a client, beside the engine's own socket, and what a cold start costs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from testbed.machine import Machine
from testbed.tiny_model import says

from tests.bench.lines import Goal, Line, Results
from tests.bench.subject import HERE, Release, Subject
from tests.system.commands import add_hive
from tests.system.serve.served import serve_model, serve_rude, serving_machine

FIRST = Line("first token, through the gateway: more than the engine's own", "ms", Goal(at_most=2))
FIRST_BOTH = Line("first token, through the gateway: clock", "ms")
DELTA = Line("a streamed delta: CPU of the gateway", "ms", Goal(at_most=0.15))
COLD = Line("first token of a cold model: more than the engine's own start", "ms", Goal(at_most=250))
COLD_BOTH = Line("first token of a cold model: clock", "ms")
ALONE = Line("a streamed delta that comes alone: CPU of the gateway", "ms", Goal(at_most=0.15))
LATE = Line("20 streams of 100 deltas a second for 5 s: late at the end", "ms", Goal(at_most=500))

DELTAS = 5000
STREAMS, PACE, COUNT = 20, 0.01, 500


class Serve(Subject):
    """The floor is the engine alone: its socket, and its start by hand."""

    name = "serve"
    lines = (FIRST, FIRST_BOTH, DELTA, ALONE, COLD, COLD_BOTH, LATE)

    def measure(self, release: Release, results: Results) -> None:
        """Measure in two machines, as an engine's pace is its model's; the release before has no gateway."""
        if not release.is_now:
            return
        with _serving(release) as machine:
            serve_rude(machine, "rude", {"deltas": DELTAS})
            results.add(DELTA.name, "now", *(_run(machine, "deltas", DELTAS) for _ in range(3)))
            _add_pairs(results, _run(machine, "first-token", 40), FIRST, FIRST_BOTH)
            _add_pairs(results, _run(machine, "cold", 7), COLD, COLD_BOTH)
        with _serving(release) as machine:
            serve_rude(machine, "rude", {"deltas": COUNT, "pause_s": PACE})
            results.add(ALONE.name, "now", _run(machine, "deltas", COUNT))
            [[direct, ours]] = _run(machine, "together", STREAMS, COUNT, PACE)
            results.add(LATE.name, "floor", direct)
            results.add(LATE.name, "now", ours)


@contextmanager
def _serving(release: Release) -> Iterator[Machine]:
    """A machine with the engines, and the model `bee`."""
    with serving_machine(release.queen(), release.trees.engine()) as machine:
        add_hive(machine)
        serve_model(machine, "bee", says("I am bee one."))
        yield machine


def _run(machine: Machine, *arguments: object) -> Any:
    program = (HERE / "streams.py").read_text()
    done = machine.run("python3", "-c", program, *map(str, arguments), timeout=300)
    return json.loads(done.stdout)


def _add_pairs(results: Results, pairs: list[list[float]], more: Line, both: Line) -> None:
    for engine, ours in pairs:
        results.add(more.name, "now", ours - engine)
        results.add(both.name, "floor", engine)
        results.add(both.name, "now", ours)
