"""How the queen is, as systemd says it."""

from __future__ import annotations

import pytest

from rbee.scope import QUEEN_SOCKET_UNIT, QUEEN_UNIT, SYSTEM
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import UNUSABLE, Ran, Rbeectl, has_no_queen
from tests.unit.played_systemd import ACTIVE, INACTIVE, LISTENING, PlayedBus


@pytest.mark.parametrize("result", ["exit-code", "start-limit-hit"])
@pytest.mark.parametrize(("active", "sub"), [("failed", "failed"), ("deactivating", "stop-post")])
def test_who_looks_is_told_each_time_why_a_queen_cannot_run(
    bus: PlayedBus, rbeectl: Rbeectl, result: str, active: str, sub: str
) -> None:
    bus.states[QUEEN_UNIT] = UNUSABLE._replace(result=result, active=active, sub=sub)

    for verb in (["list-hives"], ["catalog", "backup", "/tmp/x"]):
        assert rbeectl(*verb) == Ran(
            78, "", "rbeectl: the queen has failed: rbee.conf: soon is no span\n  try: mend it\n"
        )


@pytest.mark.parametrize("verb", ["list-hives", "list-devices"])
@pytest.mark.parametrize(
    ("queen", "listening", "word"),
    [
        (INACTIVE, LISTENING, "asleep"),
        (INACTIVE, INACTIVE, "off"),
        (UnitState("loaded", "failed", "failed", result="signal"), LISTENING, "failed"),
        (UnitState("loaded", "activating", "start"), LISTENING, "waking"),
        (UnitState("loaded", "deactivating", "stop-sigterm"), LISTENING, "stopping"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_looking_wakes_nobody_and_says_how_the_queen_is(
    bus: PlayedBus, rbeectl: Rbeectl, queen: UnitState, listening: UnitState, word: str, verb: str
) -> None:
    bus.states |= {QUEEN_UNIT: queen, QUEEN_SOCKET_UNIT: listening}

    ran = rbeectl(verb)

    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines() == [
        {
            "failed": "rbeectl: the queen has failed: signal; this command does not wake it",
        }.get(word, f"rbeectl: the queen is {word}; this command does not wake it"),
        {
            "failed": "  try: sudo rbeectl doctor",
            "waking": "  try: Ask again in a moment.",
            "stopping": "  try: rbeectl wake, once it has stopped",
        }.get(word, "  try: rbeectl wake"),
    ]
    assert bus.asked == []


QUEENS = (
    ["add-hive", "localhost"], ["add-hive", "gpu1"], ["remove-hive", "gpu1"],
    ["list-hives"], ["list-devices"], ["show", "gpu1"], ["label", "gpu1", "a=b"],
    ["cordon", "gpu1", "why"], ["uncordon", "gpu1"],
    ["tcp", "enable"], ["tcp", "disable"], ["tcp", "status"], ["token", "create"], ["token", "list"],
    ["token", "revoke", "0123abcd"], ["wake"], ["wake", "--no-wait"], ["sleep"], ["status", "gpu1"], ["top"],
    ["monitor"], ["metrics"], ["audit"], ["catalog", "backup", "/tmp/x"], ["catalog", "check"],
)  # fmt: skip
"""What only a queen does."""


@pytest.mark.parametrize("verb", QUEENS, ids=" ".join)
def test_on_a_machine_without_a_queen_what_is_hers_is_said_to_be_elsewhere(
    bus: PlayedBus, rbeectl: Rbeectl, verb: list[str]
) -> None:
    has_no_queen(bus, ACTIVE)

    ran = rbeectl(*verb)

    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines() == [
        "rbeectl: there is no queen on this machine",
        f"  try: Type it on the queen's machine; to make this machine one of its hives: {SYSTEM.rejoin}",
        "  try: To have one here, with rbee's packages in this folder: sudo apt install ./*.deb",
    ]
    assert bus.asked == []


def test_a_hive_that_knows_its_queen_says_where_a_verb_is_typed(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    has_no_queen(bus, ACTIVE._replace(status_text="queen at queen:8500: nobody listens on queen:8500"))

    assert "try: Type it on the machine of this hive's queen, queen:8500\n" in rbeectl("list-hives").err


def test_for_a_program_an_asleep_queen_is_json_too(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("list-hives", "--json")

    assert (ran.code, ran.err) == (3, "")
    assert ran.json[0]["type"] == "urn:rbee:problem:not-running"


def test_a_listening_socket_is_what_asleep_means(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    assert bus.states[QUEEN_SOCKET_UNIT] == LISTENING
    assert "the queen is asleep" in rbeectl("status").out
