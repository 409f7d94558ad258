"""How memory is shown by holder."""

from __future__ import annotations

from rbee.keeper.output.memory import holder_lines, memory_properties, memory_table
from rbee.wire.workers import Holder, Memory, Pool
from tests.unit.wire_values import HIVE_VIEW

GIB = 2**30
RAM = Pool(
    "ram", "RAM", 64 * GIB, 50 * GIB, 4 * GIB,
    (Holder("worker", 6 * GIB, "bee-1"), Holder("process", 3 * GIB, "session-3.scope", "ada"),
     Holder("process", GIB, "kernel and everything else")),
)  # fmt: skip
CARD = Pool(
    "gpu0", "NVIDIA RTX A6000", 48 * GIB, None, 0, (Holder("process", None, None, None, 812),),
    problem="the driver hangs",
)  # fmt: skip
MEMORY = Memory((RAM, CARD))


def test_the_table_has_holders_and_what_is_claimed_and_free() -> None:
    assert memory_table([HIVE_VIEW], {"localhost": MEMORY}).splitlines() == [
        "HIVE       POOL  MEMORY    KIND     HOLDER                        USER  PID",
        "localhost  ram   6.0 GiB   worker   bee-1                         -     -",
        "localhost  ram   3.0 GiB   process  session-3.scope               ada   -",
        "localhost  ram   1.0 GiB   process  kernel and everything else    -     -",
        "localhost  ram   4.0 GiB   claimed  by workers, and not used yet  -     -",
        "localhost  ram   50.0 GiB  free     -                             -     -",
        "localhost  ram   64.0 GiB  total    RAM                           -     -",
        "localhost  gpu0  unknown   process  -                             -     812",
        "localhost  gpu0  unknown   free     the driver hangs              -     -",
        "localhost  gpu0  48.0 GiB  total    NVIDIA RTX A6000              -     -",
    ]


def test_a_hive_whose_memory_is_not_known_is_listed_with_the_reason() -> None:
    offline = HIVE_VIEW._replace(id="gpu1", state="offline")
    _, here, there = memory_table([HIVE_VIEW, offline], {}).splitlines()
    assert here == "localhost  -     unknown  -     the hive does not answer  -     -"
    assert there == "gpu1       -     unknown  -     the hive is offline       -     -"


def test_a_card_without_memory_of_its_own_says_whose_it_has() -> None:
    shared = CARD._replace(name="NVIDIA GB10", shares_ram=True)
    table = memory_table([HIVE_VIEW], {"localhost": Memory((shared,))})
    assert "NVIDIA GB10, of the machine's RAM" in table


def test_top_has_the_largest_holders_that_are_known() -> None:
    assert holder_lines(RAM) == [
        "6.0 GiB  worker bee-1",
        "3.0 GiB  session-3.scope of ada",
        "1.0 GiB  kernel and everything else",
        "4.0 GiB  claimed",
    ]
    assert holder_lines(CARD) == ["unknown  process 812"]
    many = CARD._replace(holders=tuple(Holder("process", GIB, "x.service", None, pid) for pid in range(7)))
    assert holder_lines(many)[4:] == ["1.0 GiB  x.service, pid 4", "2 more"]


def test_names_of_other_people_s_units_steer_no_terminal() -> None:
    rude = CARD._replace(holders=(Holder("process", GIB, "\x1b[2J", "\x1b[2J", 1),))
    shown = [*holder_lines(rude), memory_table([HIVE_VIEW], {"localhost": Memory((rude,))})]
    assert "\x1b" not in "".join(shown)


def test_the_properties_of_show_are_in_bytes() -> None:
    assert memory_properties(MEMORY) == {
        "MemoryFree": str(50 * GIB),
        "MemoryClaimed": str(4 * GIB),
        "MemoryHolders": f"worker bee-1: {6 * GIB}; session-3.scope of ada: {3 * GIB}; "
        f"kernel and everything else: {GIB}",
        "GPU0MemoryFree": "",
        "GPU0MemoryClaimed": "0",
        "GPU0MemoryHolders": "process 812: ",
    }
