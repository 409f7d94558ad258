"""How tests are handed out: those that share go to one process, and one that ends its process fails once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tests.handing_out import InGroups

TESTS = ["alone_1", "alone_2", "shares_1@fleet", "shares_2@fleet", "shares_3@fleet", "alone_3", "alone_4"]


class Node:
    """A process that runs tests, as the scheduler sees it."""

    def __init__(self) -> None:
        self.gateway = SimpleNamespace(id="gw")
        self.shutting_down = False
        self.given: list[str] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += [TESTS[index] for index in indices]

    def shutdown(self) -> None:
        self.shutting_down = True


def started(count: int) -> tuple[InGroups, list[Node]]:
    options = SimpleNamespace(loadscopereorder=False)
    scheduler = InGroups(SimpleNamespace(getvalue=lambda _: ["popen"] * count, option=options))
    nodes = [Node() for _ in range(count)]
    for node in nodes:
        join(scheduler, node)
    scheduler.schedule()
    return scheduler, nodes


def join(scheduler: InGroups, node: Node) -> None:
    scheduler.add_node(node)
    scheduler.add_node_collection(node, TESTS)


def finish(scheduler: InGroups, node: Any, test: str) -> None:
    scheduler.mark_test_complete(node, TESTS.index(test))


def test_those_that_share_go_to_one_process_and_the_others_singly() -> None:
    _, (one, other) = started(2)
    assert one.given == ["alone_1", "shares_1@fleet", "shares_2@fleet", "shares_3@fleet"]
    assert other.given == ["alone_2", "alone_3"]


def test_a_test_of_which_its_process_died_is_not_given_to_the_next_with_the_rest_of_its_group() -> None:
    scheduler, (one, _) = started(2)
    finish(scheduler, one, "alone_1")
    finish(scheduler, one, "shares_1@fleet")

    assert scheduler.remove_node(one) == "shares_2@fleet"

    successor = Node()
    join(scheduler, successor)
    scheduler.schedule()
    left = [test for node in scheduler.nodes for test in node.given]
    assert sorted(left) == ["alone_2", "alone_3", "alone_4", "shares_3@fleet"]


def test_a_process_of_which_nothing_is_left_has_died_of_nothing() -> None:
    scheduler, (one, _) = started(2)
    for test in one.given:
        finish(scheduler, one, test)
    assert scheduler.remove_node(one) is None
