"""Drop-ins that rbeectl writes."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from rbee.keeper.dropin import Dropin
from rbee.scope import SYSTEM
from rbee.systemd.bus import Bus
from tests.unit.played_systemd import PlayedBus


def test_a_drop_in_is_written_whole_and_removed_and_systemd_reads_it(tmp_path: Path) -> None:
    bus = PlayedBus()
    reloads: list[str] = []
    bus.reload = lambda: reloads.append("reload")  # type: ignore[attr-defined]
    dropin = Dropin("a.socket", "50-listen.conf", SYSTEM._replace(dropins=tmp_path))

    assert dropin.read() is None
    dropin.put(cast(Bus, bus), b"[Socket]\n")
    assert (tmp_path / "a.socket.d/50-listen.conf").read_bytes() == dropin.read() == b"[Socket]\n"
    dropin.put(cast(Bus, bus), None)
    dropin.put(cast(Bus, bus), None)
    assert dropin.read() is None
    assert len(reloads) == 3
