"""A queen and a hive take whatever is sent to them; tests/bench/soak_bodies is the long version."""

from __future__ import annotations

import secrets

from testbed.machine import Machine

from tests.bench.soak_bodies import soak

REQUESTS = 1500


def test_queen_and_hive_take_whatever_is_sent_to_them(machine: Machine) -> None:
    seed = secrets.randbits(32)
    print(f"the requests of seed {seed}")  # pytest shows it with a failure
    outcome = soak(machine, seed=seed, count=REQUESTS, seconds=60)
    print(outcome)
    assert outcome.wrong == []
    assert outcome.answers.total() == REQUESTS
    # The draw had something of everything in it.
    drawn = {f"{name} {status}" for name in ("queen", "hive") for status in (200, 400, 404, 405)}
    assert drawn | {"queen 202", "queen 413"} <= set(outcome.answers)
