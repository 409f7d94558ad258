"""How tests are handed out to the processes that run them, with pytest-xdist's --dist=loadgroup."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from _pytest.nodeid import NodeId
from xdist.scheduler import LoadGroupScheduling


def group(item: pytest.Item) -> str | None:
    """A name for the tests that share what is made once for them; None if a test shares nothing.

    Handed out singly, each process would make it anew: a fleet takes seconds of a processor.
    """
    assert isinstance(item, pytest.Function)
    fixtures = item._fixtureinfo.name2fixturedefs
    shared = [name for name, defined in fixtures.items() if defined[-1].scope == "module"]
    if not shared:
        return None
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    chosen = [str(parameters[name]) for name in (*shared, "suite") if name in parameters]
    return "-".join([item.path.stem, *chosen])


def name_groups(items: Iterable[pytest.Item]) -> None:
    """Add each test's group to its name, from which the scheduler takes it.

    xdist 3.8 does so for its mark xdist_group, but into a field that pytest 9.2 has no more.
    """
    for item in items:
        if name := group(item):
            item._id = NodeId.parse(f"{item.nodeid}@{name}")


class InGroups(LoadGroupScheduling):  # type: ignore[misc]
    """A group to one process, any other test singly; one that ends its process fails once."""

    def remove_node(self, node: Any) -> str | None:
        """xdist would give the rest to another process together with the test that the process died of."""
        units = self.assigned_work[node].values()
        left = [(unit, test) for unit in units for test, is_done in unit.items() if not is_done]
        if left:
            unit, died_of = left[0]
            unit[died_of] = True
        super().remove_node(node)
        return died_of if left else None

    def _reschedule(self, node: Any) -> None:
        """A process runs a test once it knows the next."""
        super()._reschedule(node)
        while self.workqueue and not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            self._assign_work_unit(node)
