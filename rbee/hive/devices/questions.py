"""What NVML is asked, in rounds, and what it may be believed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from rbee.hive.devices.pci import normal_address
from rbee.hive.devices.sysfs import MOST_BYTES
from rbee.hive.devices.text import printable
from rbee.wire.devices import MemoryKind

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

Cause = Literal[
    "module-missing",
    "library-missing",
    "driver-not-loaded",
    "no-permission",
    "driver-mismatch",
    "unknown",
    "timeout",
    "interrupted",
    "failed",
]

# By NVML's return codes, nvml.h. A driver library that lacks a function which this
# pynvml calls is of another generation: that, too, is a mismatch.
_CAUSES: dict[int, Cause] = {
    4: "no-permission",
    9: "driver-not-loaded",
    12: "library-missing",
    13: "driver-mismatch",
    17: "no-permission",  # "blocked by the operating system", by a cgroup say
    18: "driver-mismatch",
    999: "unknown",
}

# What NVML says when the cards or the driver are no longer those that it was opened with:
# uninitialised, driver not loaded, GPU is lost, reset required, driver and library do not match.
_STALE = frozenset({1, 9, 15, 16, 18})
_NOT_SUPPORTED = 3

MOST_CARDS = 256  # as many as Devices holds; a broken driver may say any number


@dataclass(frozen=True, slots=True)
class Failure:
    """Why NVML as a whole tells nothing, or not all."""

    cause: Cause
    detail: str


@dataclass(frozen=True, slots=True)
class NvmlCard:
    """One card as far as NVML told of it; `problems` has a line for each call that failed.

    What this kind of card does not support is None and no problem.
    """

    pci_address: str | None = None
    uuid: str | None = None
    name: str | None = None
    vram_bytes: int | None = None
    problems: tuple[str, ...] = ()
    memory_kind: MemoryKind | None = None

    @property
    def is_nameless(self) -> bool:
        """NVML counted it and said nothing else that tells it from another card."""
        return self.pci_address is None and self.uuid is None and self.name is None


@dataclass(frozen=True, slots=True)
class Sight:
    """What NVML told: cards in its own order, and the driver's version if it said."""

    cards: tuple[NvmlCard, ...]
    driver_version: str | None
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class NvmlReading:
    """What one card does; what it does not tell is None. `problems` says what failed beside that."""

    pci_address: str | None = None
    uuid: str | None = None
    utilisation_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Readings:
    """What the cards do, in NVML's own order, as far as it told."""

    cards: tuple[NvmlReading, ...]
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class View:
    """Which cards and which driver NVML shows, to be compared; each card's PCI address and uuid."""

    driver_version: str | None
    cards: tuple[tuple[str | None, str | None], ...]
    cause: Cause | None


def view_of(sight: Sight) -> View:
    cards = tuple((card.pci_address, card.uuid) for card in sight.cards)
    return View(sight.driver_version, cards, sight.failure.cause if sight.failure else None)


# Rounds of questions


class Library:
    """NVML as its thread has it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.nvml: Any = None
        self.refusals: tuple[type[Exception], ...] = ()
        self.is_open = False
        self.opened_at = 0.0
        self.count = 0
        self.cards: list[_Card] = []

    def load(self) -> None:
        if self.nvml is not None:
            return
        import pynvml  # here, because its import costs 22 ms and may fail

        # Some versions answer FUNCTION_NOT_FOUND with an exception outside NVMLError, and
        # decode what drivers say without a net.
        mismatch = getattr(pynvml, "NVMLLibraryMismatchError", pynvml.NVMLError)
        self.refusals = (pynvml.NVMLError, mismatch, UnicodeDecodeError, _Nonsense)
        self.nvml = pynvml


@dataclass(slots=True)
class _Card:
    """What a round knows of one card so far."""

    handle: Any = None
    pci_address: str | None = None
    uuid: str | None = None
    name: str | None = None
    vram_bytes: int | None = None
    memory_kind: MemoryKind | None = None
    problems: tuple[str, ...] = ()
    is_whole: bool = False

    def so_far(self) -> NvmlCard:
        late = () if self.is_whole else (_LATE,)
        problems = (*self.problems, *late)
        return NvmlCard(self.pci_address, self.uuid, self.name, self.vram_bytes, problems, self.memory_kind)

    def complain(self, problem: str) -> None:
        self.problems = (*self.problems, problem)


@dataclass(slots=True)
class _Doing:
    """What a round knows so far of what one card does."""

    card: _Card
    utilisation: float | None = None
    memory: tuple[int, int] | None = None
    temperature: float | None = None
    power: float | None = None
    problems: tuple[str, ...] = ()
    is_whole: bool = False

    def so_far(self) -> NvmlReading:
        # A card without memory of its own may say 0 of 0.
        used, total = self.memory if self.memory and self.memory[1] else (None, None)
        late = () if self.is_whole else (_LATE,)
        return NvmlReading(
            pci_address=self.card.pci_address,
            uuid=self.card.uuid,
            utilisation_percent=self.utilisation,
            memory_used_bytes=used,
            memory_total_bytes=total,
            temperature_celsius=self.temperature,
            power_watts=self.power,
            problems=(*self.problems, *late),
        )


_LATE = "NVML did not answer in time"


class Round:
    """One round of questions. Its thread writes; others may read what is known at any moment."""

    def __init__(self) -> None:
        self.asking = "import pynvml"
        self.asked_at = 0.0
        self.finished_at: float | None = None
        self.failure: Failure | None = None
        self.waiters = 0
        self.view: View | None = None
        self._cards: list[_Card] = []
        self._driver_version: str | None = None

    def run(self, library: Library) -> None:
        raise NotImplementedError

    def sight(self, failure: Failure | None = None) -> Sight:
        cards = tuple(card.so_far() for card in self._cards)
        return Sight(cards, self._driver_version, failure or self.failure)

    def _open(self, library: Library) -> bool:
        """Open NVML; where that fails, `failure` says why."""
        try:
            library.load()
        except ImportError as error:
            self.failure = Failure("module-missing", f"the Python module pynvml is missing: {error}")
            return False
        try:
            self.asking = "nvmlInit"
            library.nvml.nvmlInit()
        except library.refusals as error:
            self.failure = _failure("nvmlInit", error)
            return False
        library.is_open, library.opened_at = True, library.clock()
        return True

    def _shut_down(self, library: Library) -> None:
        self.asking = "nvmlShutdown"
        library.is_open, library.cards = False, []
        try:
            library.nvml.nvmlShutdown()
        except library.refusals as error:
            _log.warning("nvmlShutdown: %s", _explain(error))  # what was read stays true

    def _count(self, library: Library) -> None:
        """How many cards there are, and of which driver; raises what the count was refused with."""
        self.asking = "nvmlDeviceGetCount"
        library.count = library.nvml.nvmlDeviceGetCount()
        if library.count > MOST_CARDS:
            self.failure = Failure("failed", f"NVML counts {library.count} cards; {MOST_CARDS} are looked at")
        self._cards = [_Card() for _ in range(min(library.count, MOST_CARDS))]
        self._read_driver_version(library)

    def _read_driver_version(self, library: Library) -> None:
        self.asking = "nvmlSystemGetDriverVersion"
        try:
            self._driver_version = _take_text(library.nvml.nvmlSystemGetDriverVersion())
        except library.refusals as error:
            if _code(error) != _NOT_SUPPORTED:
                for card in self._cards:
                    card.complain(f"driver version: {_explain(error)}")

    def _identify(self, library: Library, number: int, card: _Card) -> None:
        card.handle = self._ask(library, number, card, "card", "nvmlDeviceGetHandleByIndex", number, _same)
        if card.handle is not None:
            card.pci_address = self._of(library, number, card, "PCI address", "GetPciInfo", _take_pci_address)
            card.uuid = self._of(library, number, card, "uuid", "GetUUID", _take_text)

    def _of(
        self,
        library: Library,
        number: int,
        card: _Card,
        what: str,
        function: str,
        take: Callable[[Any], Answer],
        *,
        unsupported: Answer | None = None,
    ) -> Answer | None:
        call = f"nvmlDevice{function}"
        return self._ask(library, number, card, what, call, card.handle, take, unsupported=unsupported)

    def _ask(
        self,
        library: Library,
        number: int,
        card: _Card,
        what: str,
        function: str,
        argument: Any,
        take: Callable[[Any], Answer],
        *,
        unsupported: Answer | None = None,
    ) -> Answer | None:
        """A call that fails leaves its field None and a problem, and the next is made all the same.

        What a kind of card does not support is no problem: a Jetson has no PCI address, say. Without
        a handle there is nothing else to ask of a card, so that one is.
        """
        self.asking = f"{function} of card {number}"
        try:
            return take(getattr(library.nvml, function)(argument))
        except library.refusals as error:
            if _code(error) == _NOT_SUPPORTED and card.handle is not None:
                return unsupported
            card.complain(f"{what}: {_explain(error)}")
            return None


class Probe(Round):
    """What cards there are: of an NVML that is opened for it, as one that is open shows what was."""

    def run(self, library: Library) -> None:
        if library.is_open:
            self._shut_down(library)
        if self._open(library):
            try:
                self._read_all(library)
            except library.refusals as error:
                self.failure = _failure(self.asking, error)
            finally:
                self._shut_down(library)
        self.view = view_of(self.sight())

    def _read_all(self, library: Library) -> None:
        self._count(library)
        for number, card in enumerate(self._cards):
            self._identify(library, number, card)
            if card.handle is not None:
                card.name = self._of(library, number, card, "name", "GetName", _take_text)
                self._measure_memory(library, number, card)
            card.is_whole = True

    def _measure_memory(self, library: Library, number: int, card: _Card) -> None:
        """A card that has no memory of its own says that it does not support the question, or 0.

        So GB10 and Jetsons do, which compute in the machine's RAM.
        """
        none = (0, 0)
        memory = self._of(library, number, card, "VRAM", "GetMemoryInfo", _take_bytes, unsupported=none)
        if memory is not None:
            _, total = memory
            card.vram_bytes, card.memory_kind = (total, "dedicated") if total else (None, "shared")


class Pulse(Round):
    """What the cards do."""

    def __init__(self, reopen_after: float) -> None:
        super().__init__()
        self._reopen_after = reopen_after
        self._doings: list[_Doing] = []
        self._is_stale = False

    def readings(self, failure: Failure | None = None) -> Readings:
        return Readings(tuple(doing.so_far() for doing in self._doings), failure or self.failure)

    def run(self, library: Library) -> None:
        if library.is_open or self._begin(library):
            self._read_all(library)
        # Not each time: a card that stays lost would have NVML opened at every look.
        if self._is_stale and library.clock() - library.opened_at >= self._reopen_after:
            if library.is_open:
                self._shut_down(library)
            self.failure = None
            if self._begin(library):
                self._read_all(library)

    def _begin(self, library: Library) -> bool:
        """Open NVML and learn which cards it shows; where that fails, `failure` says why."""
        is_begun = False
        if self._open(library):
            try:
                self._count(library)
                for number, card in enumerate(self._cards):
                    self._identify(library, number, card)
                library.cards, is_begun = self._cards, True
            except library.refusals as error:
                self.failure = _failure(self.asking, error)
                self._shut_down(library)
        self.view = view_of(self.sight())
        return is_begun

    def _read_all(self, library: Library) -> None:
        self.asking, self._is_stale = "nvmlDeviceGetCount", False
        self._doings = [_Doing(card) for card in library.cards]
        try:
            self._is_stale = library.nvml.nvmlDeviceGetCount() != library.count
            for number, doing in enumerate(self._doings):
                self._read(library, number, doing)
        except library.refusals as error:
            self._is_stale = _code(error) in _STALE
            self.failure = _failure(self.asking, error)

    def _read(self, library: Library, number: int, doing: _Doing) -> None:
        if doing.card.handle is None:
            doing.problems = doing.card.problems
        else:
            doing.problems = tuple(self._measure(library, number, doing))
        doing.is_whole = True

    def _measure(self, library: Library, number: int, doing: _Doing) -> Iterator[str]:
        """Ask for each value; yields a line for each that failed, and ends where the card is lost."""
        nvml, handle = library.nvml, doing.card.handle
        for what, field, function, arguments, take in _QUANTITIES:
            self.asking = f"{function} of card {number}"
            # That of the temperature goes with CUDA 14, and leaves one that takes the same.
            call = getattr(nvml, function, None) or getattr(nvml, f"{function}V")
            try:
                setattr(doing, field, take(call(handle, *arguments)))
            except library.refusals as error:
                if _code(error) == _NOT_SUPPORTED:
                    continue  # this kind of card has no such sensor
                if _code(error) in _STALE:
                    self._is_stale = True
                    yield _explain(error)
                    return
                yield f"{what}: {_explain(error)}"


class Closing(Round):
    """Nobody has looked for long enough."""

    def run(self, library: Library) -> None:
        self._shut_down(library)


class _Nonsense(Exception):
    """NVML reported success and an answer that cannot be true."""


def _take_pci_address(info: Any) -> str:
    text = _take_text(info.busId)  # bytes or str, by pynvml's version; decoded on access
    address = normal_address(text)
    if address is None:
        raise _Nonsense(f"{text!r} is none")
    return address


def _take_text(raw: str | bytes) -> str:
    text = printable(raw)
    if text is None:
        raise _Nonsense("the driver's answer is empty")
    return text


def _take_bytes(memory: Any) -> tuple[int, int]:
    used, total = int(memory.used), int(memory.total)
    for count in (total, used):
        if count > MOST_BYTES:
            raise _Nonsense(f"{count} bytes cannot be")
    return used, total


def _take_utilisation(rates: Any) -> float:
    return _take_up_to(100, int(rates.gpu), "%")


def _take_celsius(celsius: int) -> float:
    return _take_up_to(1000, celsius, " °C")


def _take_watts(milliwatts: int) -> float:
    return _take_up_to(1_000_000, milliwatts / 1000, " W")


def _take_up_to(most: float, number: float, unit: str) -> float:
    if not number <= most:
        raise _Nonsense(f"{number:g}{unit} cannot be")
    return float(number)


_QUANTITIES: tuple[tuple[str, str, str, tuple[int, ...], Callable[[Any], Any]], ...] = (
    ("utilisation", "utilisation", "nvmlDeviceGetUtilizationRates", (), _take_utilisation),
    ("memory", "memory", "nvmlDeviceGetMemoryInfo", (), _take_bytes),
    ("temperature", "temperature", "nvmlDeviceGetTemperature", (0,), _take_celsius),  # 0: of the GPU itself
    ("power", "power", "nvmlDeviceGetPowerUsage", (), _take_watts),
)


def _same(handle: Any) -> Any:
    return handle


def _failure(call: str, error: Exception) -> Failure:
    return Failure(_CAUSES.get(_code(error), "failed"), f"{call}: {_explain(error)}")


def _code(error: Exception) -> int:
    """NVML's return code, -1 for an error of our own."""
    if isinstance(error, (UnicodeDecodeError, _Nonsense)):
        return -1
    code = getattr(error, "value", 13)  # NVMLLibraryMismatchError has none and means 13
    return code if isinstance(code, int) else -1


def _explain(error: Exception) -> str:
    """An error in NVML's words and with its code; to be called in NVML's thread, as it may ask NVML."""
    if isinstance(error, UnicodeDecodeError):
        return "the driver's answer is not text"
    words = (printable(str(error)) or type(error).__name__).rstrip(".")
    if isinstance(error.__context__, OSError):  # what the dynamic loader said
        words = f"{words}: {printable(str(error.__context__))}"
    code = getattr(error, "value", None)
    return words if code is None else f"{words} (NVML error {code})"
