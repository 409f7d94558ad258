"""The queen's line in `systemctl status`."""

from __future__ import annotations

from collections import Counter

import pytest

from rbee.narration import ADDING
from rbee.queen.jobs import Jobs
from rbee.queen.status import StatusLine
from rbee.systemd.daemon import Notifier
from rbee.wire.hives import State
from rbee.wire.jobs import Done


class Said(Notifier):
    """What systemd was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def status(self, status: str) -> None:
        self.lines.append(status)


@pytest.fixture
def tally() -> Counter[State]:
    return Counter({"online": 2, "offline": 1})


async def test_the_hives_are_counted_and_rare_states_only_where_there_are_some(tally: Counter[State]) -> None:
    said = Said()
    line = StatusLine(said, tally, Jobs(4))
    line.update()
    tally["unknown"] = 3
    line.update()

    assert said.lines == [
        "hives: 2 online, 0 suspect, 1 offline",
        "hives: 2 online, 0 suspect, 1 offline, 3 unknown",
    ]


async def test_what_keeps_others_from_reaching_her_is_said_with_it(tally: Counter[State]) -> None:
    line = StatusLine(Said(), tally, Jobs(4))
    line.trouble = "queen-rbee-tcp.socket is closed"

    assert line.counts() == "hives: 2 online, 0 suspect, 1 offline; queen-rbee-tcp.socket is closed"


async def test_a_line_is_shown_only_while_a_job_runs(tally: Counter[State]) -> None:
    said, jobs = Said(), Jobs(4)
    line = StatusLine(said, tally, jobs)
    job = jobs.open("add-hive", "localhost")
    line.narrate(ADDING, "Adding local pc to hive catalog.")
    job.done(Done(None))
    line.narrate(ADDING, "Adding local pc to hive catalog.")

    counts = "hives: 2 online, 0 suspect, 1 offline"
    assert said.lines == [f"{counts}; Adding local pc to hive catalog.", counts]
