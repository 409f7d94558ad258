"""Whose the processes on a card are."""

from __future__ import annotations

from pathlib import Path

from rbee.hive.devices.held import HeldCard
from rbee.hive.devices.nvml.results import NvmlProcess
from rbee.hive.memory.cards import read_card
from rbee.hive.memory.cgroups import Unit
from rbee.hive.memory.ledger import Ledger
from rbee.wire.workers import Holder

OWNERS = {
    1: Unit("rbee-worker@bee-1.service", None, Path("x")),
    2: Unit("rbee-worker@bee-1.service", None, Path("x")),
    3: Unit("ollama.service", None, Path("x")),
    4: Unit("session-3.scope", "ada", Path("x")),
}


def card(*processes: NvmlProcess) -> HeldCard:
    return HeldCard(2, "Tesla T4", 1000, 400, processes=processes)


def test_a_worker_holds_what_all_its_processes_hold() -> None:
    reading = read_card(card(NvmlProcess(1, 100), NvmlProcess(2, 50)), OWNERS, ["bee-1", "bee-2"])
    assert (reading.id, reading.total, reading.free) == ("gpu2", 1000, 600)
    assert reading.held == {"bee-1": 150}


def test_others_are_told_by_unit_user_and_pid_as_far_as_they_are_known() -> None:
    reading = read_card(card(NvmlProcess(3, 1), NvmlProcess(4, 2), NvmlProcess(5, None)), OWNERS, [])
    assert reading.others == (
        Holder("process", 1, "ollama.service", None, 3),
        Holder("process", 2, "session-3.scope", "ada", 4),
        Holder("process", None, None, None, 5),
    )


def test_what_is_unknown_of_one_process_is_unknown_of_its_worker() -> None:
    reading = read_card(card(NvmlProcess(1, None), NvmlProcess(2, 50)), OWNERS, ["bee-1"])
    assert reading.held == {"bee-1": None}


def test_a_driver_that_lists_no_processes_leaves_open_what_a_worker_holds() -> None:
    reading = read_card(HeldCard(0, "AMD", 1000, 400), OWNERS, ["bee-1"])
    assert (reading.held, reading.free, reading.problem) == ({"bee-1": None}, 600, None)


def test_whether_a_card_s_uuid_is_known_is_passed_on() -> None:
    ledger = Ledger()
    named, unnamed = (read_card(HeldCard(0, "x", 9, 4, has_uuid=known), {}, []) for known in (True, False))
    assert [ledger.pool(one, {one.id: one}).has_uuid for one in (named, unnamed)] == [True, False]


def test_a_card_that_tells_nothing_says_so_and_one_that_shares_the_ram_need_not() -> None:
    silent = read_card(HeldCard(0, "Arc A770", None, None), {}, [])
    assert (silent.free, silent.problem) == (
        None,
        "the driver of Arc A770 does not report how much of its memory is in use",
    )
    shared = read_card(HeldCard(0, "NVIDIA GB10", None, None, is_shared=True), {}, [])
    assert (shared.shares_ram, shared.problem) == (True, None)
