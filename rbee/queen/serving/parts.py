"""The queen's other parts, as serving uses them."""

from __future__ import annotations

from typing import NamedTuple

from rbee.narration import Narrator
from rbee.queen.hives.hives import Hives
from rbee.queen.hives.liveness import Clocks
from rbee.queen.hives.work import HiveWork
from rbee.queen.jobs import Jobs
from rbee.queen.keys import ClientKeys
from rbee.queen.metrics import Metrics
from rbee.queen.models.models import Models
from rbee.queen.tasks import Tasks
from rbee.scope import Scope


class Parts(NamedTuple):
    """The parts that serving uses."""

    hives: Hives
    hive_work: HiveWork
    models: Models
    keys: ClientKeys
    jobs: Jobs
    narrator: Narrator
    tasks: Tasks
    metrics: Metrics
    scope: Scope
    clocks: Clocks = Clocks()
