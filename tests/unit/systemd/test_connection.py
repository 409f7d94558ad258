"""The connection to the bus, as far as it needs none."""

from __future__ import annotations

import pytest
from pystemd.dbuslib import path_encode

from rbee.systemd.connection import unit_path


@pytest.mark.parametrize(
    "unit",
    [
        "queen-rbee.service",
        "queen-rbee.socket",
        "rbee-hive.service",
        "rbee-hive.socket",
        "rbee.target",
        "getty@tty1.service",
        "dev-disk-by\\x2duuid.device",
        "a_b:c.mount",
        "-.mount",
        "9front.service",
        "größe.service",
    ],
)
def test_the_object_path_of_a_unit_is_the_one_that_sd_bus_makes(unit: str) -> None:
    assert unit_path(unit) == path_encode(b"/org/freedesktop/systemd1/unit", unit.encode())
