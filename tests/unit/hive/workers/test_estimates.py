"""What engines say that models need: asked once, and again when anything has changed."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from rbee.engines.estimate import Question, read_question
from rbee.errors import UnitFailed
from rbee.hive.workers import estimates
from rbee.hive.workers.estimates import ASK_AGAIN, TRY_AGAIN, Estimates, Identity, identity
from rbee.scope import SYSTEM, user_scope
from rbee.systemd.unit import UnitState
from rbee.wire.devices import Cpu, Devices, Gpu
from rbee.wire.workers import AskEstimate, Estimate
from tests.unit.hive.workers.played import PlayedMachine, PlayedUnits, Tape

pytestmark = pytest.mark.deadline(10)

UNIT = "rbee-estimate.service"
DROPIN = "etc/rbee/engines.d/test.conf.d/estimate.conf"


class Answering(PlayedUnits):
    """Runs no command: its status is `says`, and `questions` what it was asked, with the model's path."""

    folder: Path
    says = "needs 700 bytes"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.questions: list[Question] = []
        self.models: list[str] = []
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def start(self, unit: str) -> None:
        self._ask("start", unit)
        lines = [one.split("=", 1) for one in (self.folder / "environment").read_text().splitlines()]
        variables = {name: value[1:-1].replace('\\"', '"') for name, value in lines}
        self.questions.append(read_question(variables))
        self.models.append(os.readlink(self.folder / "model"))
        self.is_asked.set()
        await asyncio.sleep(0)
        await self.may_answer.wait()
        self.states[unit] = UnitState("loaded", "active", "running", status_text=self.says)


class Machine(PlayedMachine):
    def __init__(self) -> None:
        self.latest = Devices(Cpu("a cpu", 1, 2, 4, 16 * 2**30))

    def has_a_card(self) -> None:
        self.latest = self.latest._replace(gpus=(Gpu(0, "nvidia", "a card", None, 8 * 2**30, None, None),))


class Asked:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 0.0
        self.units, self.tape, self.machine = Answering(), Tape(), Machine()
        self.units.folder = root / "estimate"
        self.put("etc/rbee/engines.d/test.conf", "[Engine]\nExec=/bin/engine %m\nFormats=gguf\n")
        self.put(DROPIN, "[Engine]\nEstimate=/bin/needs %m %c\n")
        self.put("bin/engine", "").chmod(0o755)
        self.put("bin/needs", "1").chmod(0o755)
        self.model = self.put("bee.gguf", "bee")
        self.again()

    def again(self) -> None:
        """As a hive that has just started."""
        self.estimates = Estimates(
            SYSTEM, self.units.folder, self.units, self.tape, self.machine, self.root, lambda: self.now
        )

    def put(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    async def ask(self, *kinds: str, context: int = 4096, path: str | None = None) -> Estimate:
        asked = AskEstimate("bee", path or str(self.model), "gguf", context, ("ram",), None, 3)
        return await self.estimates.estimate(asked._replace(kinds=kinds or ("ram",)))  # type: ignore[arg-type]

    @property
    def times(self) -> int:
        return self.units.asked.count(("start", UNIT))


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


async def test_the_command_runs_in_its_unit_with_the_model_and_its_answer_is_kept(asked: Asked) -> None:
    assert await asked.ask() == Estimate("test", 700)
    assert await asked.ask() == Estimate("test", 700)

    assert asked.units.questions == [Question(("/bin/needs", "/run/rbee-estimate/model", "4096"))]
    assert asked.units.models == [str(asked.model)]
    assert asked.units.asked == [("start", UNIT), ("stop", UNIT)]
    assert (asked.units.followed, asked.units.folder.exists()) == ({}, False)
    assert asked.tape.told == []


async def test_an_engine_without_a_command_is_not_asked_nor_one_that_cannot_serve_the_model(
    asked: Asked,
) -> None:
    (asked.root / "bin/engine").chmod(0o600)
    assert await asked.ask() == Estimate()
    (asked.root / "bin/engine").chmod(0o755)
    asked.put(DROPIN, "[Engine]\nEstimate=/bin/needs\nEstimate=\n")
    assert await asked.ask() == Estimate()
    asked.put("etc/rbee/engines.d/test.conf", "[Engine]\nExec=/bin/engine %m\nFormats=safetensors\n")
    asked.put(DROPIN, "[Engine]\nEstimate=/bin/needs\n")
    assert await asked.ask() == Estimate()

    assert asked.times == 0


@pytest.mark.parametrize("what", ["context", "file", "dropin", "program", "size"])
async def test_it_is_asked_again_when_something_has_changed(asked: Asked, what: str) -> None:
    await asked.ask()
    asked.units.says = "needs 800 bytes"
    context = 4096
    if what == "context":
        context = 512
    elif what == "file":
        os.utime(asked.model, ns=(1, 1))
    elif what == "dropin":
        asked.put(DROPIN, "[Engine]\nEstimate=/bin/needs %m %c\nEnvironment=A=1\n")
    elif what == "program":
        os.utime(asked.root / "bin/needs", ns=(1, 1))
    else:
        asked.put("bee.gguf", "another bee")

    assert (await asked.ask(context=context)).ram_bytes == 800
    assert (await asked.ask(context=context)).ram_bytes == 800
    assert asked.times == 2


async def test_ram_and_cards_have_one_answer_unless_the_command_is_another_one(asked: Asked) -> None:
    assert await asked.ask("ram", "gpu") == Estimate("test", 700)
    asked.machine.has_a_card()
    assert await asked.ask("gpu", "ram") == Estimate("test", 700, 700)
    assert asked.times == 1

    asked.put(DROPIN, "[Engine]\nEstimate=/bin/needs %d\n")
    assert await asked.ask("ram", "gpu") == Estimate("test", 700, 700)
    assert [one.argv[1] for one in asked.units.questions[1:]] == ["cpu", "gpu"]


async def test_a_failure_names_the_file_and_the_command_is_narrated_once_and_kept_for_a_while(
    asked: Asked,
) -> None:
    asked.units.says = "no answer: it exited with status 1, and said 'no card'"
    problem = (
        f"{asked.root / DROPIN}: Estimate=/bin/needs /run/rbee-estimate/model 4096: "
        "it exited with status 1, and said 'no card'"
    )
    for _ in range(2):
        assert await asked.ask() == Estimate("test", problem=problem)
    assert asked.times == 1
    asked.now += ASK_AGAIN
    await asked.ask()
    assert asked.times == 2

    text = f"test does not say what memory bee needs: {problem}"
    assert asked.tape.told == [("estimate-failed", text, {"model": "bee"})]
    asked.now += ASK_AGAIN
    asked.units.says = "needs 7 bytes"
    assert (await asked.ask()).ram_bytes == 7
    asked.now += 100 * ASK_AGAIN
    await asked.ask()
    assert asked.times == 3


async def test_a_file_that_the_hive_cannot_see_is_asked_about_again(asked: Asked) -> None:
    for times in (1, 2):
        assert (await asked.ask(path="/nowhere/bee.gguf")).ram_bytes == 700
        assert (await asked.ask(path="/nowhere/bee.gguf")).ram_bytes == 700
        assert asked.times == times
        asked.now += ASK_AGAIN


async def test_a_unit_that_does_not_start_says_nothing_about_the_command_and_is_tried_again_soon(
    asked: Asked,
) -> None:
    asked.units.refusal = UnitFailed("its job ended as 'failed'")
    for _ in range(2):
        answer = await asked.ask()
        assert answer.problem is not None
        where = f"see: sudo journalctl -u {UNIT} -e"
        assert answer.problem.endswith(f"4096: {UNIT} did not run it: its job ended as 'failed'; {where}")
        assert answer.is_passing
    assert asked.units.asked.count(("stop", UNIT)) == 1

    asked.now += TRY_AGAIN
    assert await asked.ask() == Estimate("test", 700)


async def test_a_unit_whose_end_is_not_heard_of_does_not_keep_the_turn(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "RUN_TIMEOUT", 0.05)
    start, never = asked.units.start, asyncio.Event()
    asked.units.start = lambda unit: never.wait()  # type: ignore[assignment, method-assign, return-value]
    answer = await asked.ask()

    assert answer.problem is not None
    assert f"{UNIT} did not run it: it has not answered within 0.05 s; see:" in answer.problem
    assert answer.is_passing
    asked.units.start = start  # type: ignore[method-assign]
    assert await asked.ask(context=2) == Estimate("test", 700)


async def test_a_unit_that_an_earlier_hive_has_left_is_stopped_first(asked: Asked) -> None:
    asked.units.states[UNIT] = UnitState("loaded", "active", "running", status_text="needs 1 bytes")

    assert (await asked.ask()).ram_bytes == 700
    assert asked.units.asked == [("stop", UNIT), ("start", UNIT), ("stop", UNIT)]


async def test_one_command_runs_at_a_time_and_one_question_has_one_run(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimates, "WAITING_MAX", 2)
    asking = [asyncio.ensure_future(asked.ask(context=tokens)) for tokens in (1, 1, 2)]
    answers = await asyncio.gather(*asking)

    assert [one.ram_bytes for one in answers] == [700, 700, 700]
    assert asked.units.asked == [("start", UNIT), ("stop", UNIT)] * 2
    asked.units.may_answer.clear()
    more = [asyncio.ensure_future(asked.ask(context=tokens)) for tokens in (3, 4, 5)]
    (refused,), others = await asyncio.wait(more, return_when=asyncio.FIRST_COMPLETED)
    text = "2 commands of engines (Estimate=) are waiting for their turn"
    assert refused.result() == Estimate("test", problem=text, is_passing=True)
    asked.units.may_answer.set()
    assert [one.ram_bytes for one in await asyncio.gather(*others)] == [700, 700]


async def test_who_does_not_wait_for_the_answer_has_it_the_next_time(asked: Asked) -> None:
    asking = asyncio.ensure_future(asked.ask())
    await asked.units.is_asked.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    assert (await asked.ask()).ram_bytes == 700
    assert asked.times == 1


async def test_a_hive_that_ends_does_not_wait_for_a_command(asked: Asked) -> None:
    never = asyncio.Event()

    async def start(unit: str) -> None:
        asked.units.asked.append(("start", unit))
        asked.units.is_asked.set()
        await never.wait()

    asked.units.start = start  # type: ignore[method-assign]
    asking = asyncio.ensure_future(asked.ask())
    await asked.units.is_asked.wait()
    await asked.estimates.close()

    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asked.units.asked == [("start", UNIT)]


async def test_a_model_on_a_file_system_that_hangs_takes_one_thread_and_a_bounded_time(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_back, looks = threading.Event(), []

    def look(path: Path) -> Identity:
        if path.suffix == ".gguf":
            looks.append(path)
            is_back.wait(10)
        return identity(path)

    monkeypatch.setattr(estimates, "identity", look)
    monkeypatch.setattr(estimates, "LOOK_TIMEOUT", 0.05)
    monkeypatch.setattr(estimates, "LOOKS_MAX", 1)
    other = str(asked.put("other.gguf", "other"))

    says = f"the disk or the network file system of {asked.model} did not answer within 0.05 s"
    assert [await asked.ask() for _ in range(2)] == [Estimate("test", problem=says, is_passing=True)] * 2
    busy = "the disks of 1 other models have not answered yet"
    assert (await asked.ask(path=other)).problem == busy
    assert (looks, asked.times) == ([asked.model], 0)

    is_back.set()
    monkeypatch.setattr(estimates, "LOOK_TIMEOUT", 5)
    assert (await asked.ask()).ram_bytes == 700
    assert (await asked.ask(path=other)).ram_bytes == 700


async def test_the_oldest_answer_makes_room(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "KEPT_MAX", 2)
    for context in (1, 2, 3, 2, 3):
        await asked.ask(context=context)
    assert asked.times == 3
    await asked.ask(context=1)
    assert asked.times == 4


async def test_a_user_s_own_rbee_has_no_such_unit(asked: Asked) -> None:
    own = Estimates(user_scope(), asked.root, asked.units, asked.tape, asked.machine, asked.root)

    assert await own.estimate(AskEstimate("bee", "/m", "gguf", 1, ("ram",))) == Estimate()
    assert asked.units.asked == []


def test_a_folder_is_another_one_when_a_file_in_it_is(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "model/a.safetensors"
    file.write_text("1")
    before = identity(tmp_path / "model")
    os.utime(file, ns=(1, 1))

    assert before is not None
    assert identity(tmp_path / "model") != before
    assert identity(tmp_path / "nothing") is None
