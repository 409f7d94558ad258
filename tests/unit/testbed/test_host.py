"""The programs of the host that the testbed needs."""

from __future__ import annotations

import pytest
from testbed.host import MachineError, ip


def test_without_ip_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MachineError, match="apt install iproute2"):
        ip("link")
