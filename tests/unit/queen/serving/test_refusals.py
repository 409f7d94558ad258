"""What is said to those who wait for a model that cannot be started."""

from __future__ import annotations

from rbee.errors import ModelNotReady, NoRoom
from rbee.queen.serving.placement import Decision
from rbee.queen.serving.refusals import cure, needs, not_there, refusal
from rbee.scope import SYSTEM
from rbee.wire.workers import Placement
from tests.unit.queen.models.rows import ROW

GIB = 2**30

PLACEMENT = Placement("bee", 5 * GIB, "estimate", 2048, "refuse", "localhost ram has 3.0 GiB free")
SHORT = Decision(PLACEMENT, None)
BLOCKED = Decision(PLACEMENT._replace(reason="localhost: stopped"), None, is_blocked=True)


def test_a_lack_of_memory_is_refused_with_the_arithmetic() -> None:
    error = refusal(ROW, SHORT, None, SYSTEM)
    assert isinstance(error, NoRoom)
    assert (
        error.message
        == "bee needs 5.0 GiB (estimate); no device has room for it: localhost ram has 3.0 GiB free"
    )
    assert (error.hint, cure(SHORT, ROW, None, SYSTEM)) == ("rbeectl place bee --dry-run", None)


def test_a_hive_that_was_removed_is_to_be_added() -> None:
    error = refusal(ROW, BLOCKED, None, SYSTEM)
    assert isinstance(error, ModelNotReady)
    assert error.message == (
        "bee cannot run now: the beehive localhost, which has its file, is not in the hive catalog"
    )
    assert error.hint == cure(BLOCKED, ROW, None, SYSTEM) == "rbeectl add-hive localhost"


def test_a_file_that_has_not_arrived_says_how_far_it_is() -> None:
    assert not_there(ROW, SYSTEM) is None
    assert not_there(ROW._replace(state="missing"), SYSTEM) is None
    error = not_there(ROW._replace(state="fetching", reason="62 %"), SYSTEM)
    assert error is not None
    assert (error.message, error.hint) == ("the model bee is fetching: 62 %", "rbeectl model show bee")


def test_what_an_engine_says_has_its_name() -> None:
    said = PLACEMENT._replace(source="engine", engine="vllm")
    assert needs(SHORT) == "bee needs 5.0 GiB (estimate)"
    assert needs(Decision(said, None)) == "bee needs 5.0 GiB (says vllm)"
