"""What those see that wait for a start."""

from __future__ import annotations

from rbee.narration import Narrator
from rbee.queen.jobs import Job
from rbee.queen.serving.start import Start


def test_only_what_is_new_is_announced() -> None:
    start = Start("bee", Job("start-worker", None), Narrator(), 0.0, 0, "waking bee")
    heard = []
    start.progress._heard = lambda: heard.append((start.text, start.percent))
    start.show("loading bee", 5.0)
    start.show("loading bee", 5.0)
    start.show("loading bee", 6.0)

    assert heard == [("loading bee", 5.0), ("loading bee", 6.0)]
