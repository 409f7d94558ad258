"""The connection to systemd, played: the edge below a Bus and its units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rbee.systemd.bus import Bus


@dataclass
class PlayedConnection(Bus):
    """systemd's answers. `ends` is how each job ends that is asked for, '' for one that does not end; `jobs`
    are the units that have one, and `system_state` is the manager's."""

    ends: str = "done"
    jobs: set[str] = field(default_factory=set)
    system_state: str = "running"
    called: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._heard: list[Callable[[str, str, str], None]] = []

    def on_job_removed(self, heard: Callable[[str, str, str], None]) -> None:
        self._heard.append(heard)

    def call(self, method: bytes, *words: str, doing: str) -> Any:
        self.called.append((method.decode(), *words))
        return b"/job/1"

    def get(self, unit: str, interface: bytes, name: bytes, kind: bytes) -> Any:
        return {
            b"s": name.lower(), b"t": 1, b"u": 2, b"i": 3, b"b": 1, b"ay": b"\7" * 16,
            b"(uo)": (unit in self.jobs, b"/"), b"a(ss)": [(b"Stream", b"[::]:8500")],
        }[kind]  # fmt: skip

    def manager_text(self, name: bytes, *, doing: str) -> str:
        return self.system_state

    def pump(self) -> None:
        for heard in self._heard if self.called and self.ends else ():
            heard("/job/1", self.called[-1][1], self.ends)

    def wait(self, seconds: float) -> None:
        self.pump()
