"""NVIDIA's cards, as NVML tells them through the module `pynvml` (nvidia-ml-py 11 to 13).

A call into a broken driver may never come back, and nothing can end a thread that is
inside one. So all of NVML happens in one daemonic thread: the interpreter does not wait
for it at exit, as it would for an executor's. (A thread that sleeps uninterruptibly in
the kernel keeps any process from going, SIGKILL included; that is past mending here.)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from rbee.hive.devices.pci import normal_address
from rbee.hive.devices.text import printable

_log = logging.getLogger(__name__)

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
    18: "driver-mismatch",
    999: "unknown",
}

MOST_CARDS = 256  # as many as Devices holds; a broken driver may say any number
_MOST_BYTES = 2**53  # as much as a Count holds


@dataclass(frozen=True, slots=True)
class Failure:
    """Why NVML as a whole tells nothing, or not all."""

    cause: Cause
    detail: str


@dataclass(frozen=True, slots=True)
class NvmlCard:
    """One card as far as NVML told of it; `problems` has a line for each call that failed."""

    pci_address: str | None = None
    uuid: str | None = None
    name: str | None = None
    vram_bytes: int | None = None
    problems: tuple[str, ...] = ()

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


class Nvml:
    """Asks NVML anew for each look, with at most one thread at it at any time.

    A look that begins while another is under way shares that one's answer. An answer that
    came too late for whoever asked goes to the next look, if it is no older than `timeout`.
    """

    def __init__(self, timeout: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False
        self._probe: _Probe | None = None

    def look(self) -> Sight:
        """Returns within `timeout` seconds, with what is known by then; never raises."""
        with self._changed:
            if self._closed:
                return _blind("interrupted", "the hive is stopping")
            probe = self._probe = self._usable_probe() or self._start()
            self._changed.wait_for(lambda: probe.finished_at is not None or self._closed, self._timeout)
            if probe.finished_at is not None:
                if self._probe is probe:
                    self._probe = None
                return probe.sight()
            if self._closed:
                return probe.sight(Failure("interrupted", f"the hive is stopping, {probe.asking} unanswered"))
        detail = f"NVML did not answer within {self._timeout:g} s: {probe.asking}"
        return probe.sight(Failure("timeout", detail))

    def close(self) -> None:
        """Let every look return now, from any thread; looks after it do not ask NVML."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _usable_probe(self) -> _Probe | None:
        probe = self._probe
        if probe is None or probe.finished_at is None:
            return probe
        return probe if self._clock() - probe.finished_at <= self._timeout else None

    def _start(self) -> _Probe:
        probe = _Probe()
        try:
            threading.Thread(target=self._run, args=(probe,), name="nvml", daemon=True).start()
        except RuntimeError as error:  # no thread left under TasksMax=
            probe.failure = Failure("failed", f"no thread for NVML: {error}")
            probe.finished_at = self._clock()
        return probe

    def _run(self, probe: _Probe) -> None:
        try:
            probe.run()
        except Exception as error:
            _log.exception("NVML failed in a way that nobody foresaw")
            probe.failure = Failure("failed", f"{type(error).__name__}: {error}")
        finally:
            with self._changed:
                probe.finished_at = self._clock()
                self._changed.notify_all()


def _blind(cause: Cause, detail: str) -> Sight:
    return Sight((), None, Failure(cause, detail))


@dataclass(slots=True)
class _Reading:
    """What a probe knows of one card so far."""

    pci_address: str | None = None
    uuid: str | None = None
    name: str | None = None
    vram_bytes: int | None = None
    problems: tuple[str, ...] = ()
    is_whole: bool = False

    def so_far(self) -> NvmlCard:
        late = () if self.is_whole else ("NVML did not answer in time",)
        return NvmlCard(self.pci_address, self.uuid, self.name, self.vram_bytes, (*self.problems, *late))

    def complain(self, problem: str) -> None:
        self.problems = (*self.problems, problem)


class _Probe:
    """One round of questions. Its thread writes; others may read what is known at any moment."""

    def __init__(self) -> None:
        self.asking = "import pynvml"
        self.failure: Failure | None = None
        self.finished_at: float | None = None
        self._driver_version: str | None = None
        self._readings: list[_Reading] = []
        self._refusals: tuple[type[Exception], ...] = ()

    def sight(self, failure: Failure | None = None) -> Sight:
        cards = tuple(reading.so_far() for reading in self._readings)
        return Sight(cards, self._driver_version, failure or self.failure)

    def run(self) -> None:
        try:
            import pynvml  # here, because its import costs 22 ms and may fail
        except ImportError as error:
            self.failure = Failure("module-missing", f"the Python module pynvml is missing: {error}")
            return
        # Some versions answer FUNCTION_NOT_FOUND with an exception outside NVMLError, and
        # decode what drivers say without a net.
        mismatch = getattr(pynvml, "NVMLLibraryMismatchError", pynvml.NVMLError)
        self._refusals = (pynvml.NVMLError, mismatch, UnicodeDecodeError, _Nonsense)
        try:
            self.asking = "nvmlInit"
            pynvml.nvmlInit()
        except self._refusals as error:
            self.failure = _failure("nvmlInit", error)
            return
        try:
            self._read_all(pynvml)
        except self._refusals as error:
            self.failure = _failure(self.asking, error)
        finally:
            self._shut_down(pynvml)

    def _read_all(self, nvml: Any) -> None:
        self.asking = "nvmlDeviceGetCount"
        count = nvml.nvmlDeviceGetCount()
        if count > MOST_CARDS:
            self.failure = Failure("failed", f"NVML counts {count} cards; {MOST_CARDS} are looked at")
        self._readings = [_Reading() for _ in range(min(count, MOST_CARDS))]
        self._read_driver_version(nvml)
        for number, reading in enumerate(self._readings):
            self._read_card(nvml, number, reading)
            reading.is_whole = True

    def _read_driver_version(self, nvml: Any) -> None:
        self.asking = "nvmlSystemGetDriverVersion"
        try:
            self._driver_version = _take_text(nvml.nvmlSystemGetDriverVersion())
        except self._refusals as error:
            for reading in self._readings:
                reading.complain(f"driver version: {_explain(error)}")

    def _read_card(self, nvml: Any, number: int, reading: _Reading) -> None:
        """Each call that fails leaves its field None and a problem, and the next is made all the same."""

        def ask(what: str, function: str, argument: Any, take: Callable[[Any], Any]) -> Any:
            self.asking = f"{function} of card {number}"
            try:
                return take(getattr(nvml, function)(argument))
            except self._refusals as error:
                reading.complain(f"{what}: {_explain(error)}")
                return None

        handle = ask("card", "nvmlDeviceGetHandleByIndex", number, lambda handle: handle)
        if handle is None:
            return
        reading.pci_address = ask("PCI address", "nvmlDeviceGetPciInfo", handle, _take_pci_address)
        reading.uuid = ask("uuid", "nvmlDeviceGetUUID", handle, _take_text)
        reading.name = ask("name", "nvmlDeviceGetName", handle, _take_text)
        reading.vram_bytes = ask("VRAM", "nvmlDeviceGetMemoryInfo", handle, _take_vram)

    def _shut_down(self, nvml: Any) -> None:
        self.asking = "nvmlShutdown"
        try:
            nvml.nvmlShutdown()
        except self._refusals as error:
            _log.warning("nvmlShutdown: %s", _explain(error))  # what was read stays true


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


def _take_vram(memory: Any) -> int:
    total = int(memory.total)
    if total > _MOST_BYTES:
        raise _Nonsense(f"{total} bytes cannot be")
    return total


def _failure(call: str, error: Exception) -> Failure:
    code = getattr(error, "value", 13)  # NVMLLibraryMismatchError has none and means 13
    cause = _CAUSES.get(code, "failed") if isinstance(code, int) else "failed"
    return Failure(cause, f"{call}: {_explain(error)}")


def _explain(error: Exception) -> str:
    """An error in NVML's words and with its code; to be called in NVML's thread, as it may ask NVML."""
    if isinstance(error, UnicodeDecodeError):
        return "the driver's answer is not text"
    words = (printable(str(error)) or type(error).__name__).rstrip(".")
    if isinstance(error.__context__, OSError):  # what the dynamic loader said
        words = f"{words}: {printable(str(error.__context__))}"
    code = getattr(error, "value", None)
    return words if code is None else f"{words} (NVML error {code})"
