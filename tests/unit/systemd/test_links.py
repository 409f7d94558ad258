"""Which units run, without D-Bus."""

from __future__ import annotations

from pathlib import Path

from rbee.systemd.daemon import invocation_id
from rbee.systemd.links import invocation_of, running


def test_the_invocation_of_a_unit_is_what_systemd_tells_the_unit_itself(tmp_path: Path) -> None:
    links = tmp_path / "run/systemd/units"
    links.mkdir(parents=True)
    (links / "invocation:a.service").symlink_to("0" * 32)

    assert invocation_of("a.service", tmp_path) == invocation_id({"INVOCATION_ID": "0" * 32}) == "0" * 32
    assert invocation_of("b.service", tmp_path) is None
    (links / "invocation:a@1.service").symlink_to("0" * 32)
    assert running("a@*.service", tmp_path) == ["a@1.service"]
    assert running("b@*.service", tmp_path) == []
    assert invocation_id({}) is None
    assert invocation_id({"INVOCATION_ID": "x"}) is None
