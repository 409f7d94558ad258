"""A query: some calls of NVML, and what is known of their answers at any moment."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rbee.hive.devices.nvml.answers import take_handle, take_pci_address, take_text
from rbee.hive.devices.nvml.library import (
    LIBRARY,
    NOT_SUPPORTED,
    Library,
    OpenCard,
    code_of,
    explain,
    failure_of,
)
from rbee.hive.devices.nvml.results import MOST_CARDS, Failure, Inventory, Shown
from rbee.hive.devices.text import printable

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Card = TypeVar("Card")

CARDS_AT_ONCE = 16
"""Cards asked in parallel: one that is slow, or hangs, does not keep the others waiting."""


class Query(ABC):
    """Calls of NVML, one after the other; but several cards are asked in parallel, as NVML is thread-safe.

    NVML's thread and its helpers write; others may read what is known so far at any moment.
    """

    def __init__(self) -> None:
        self._call = f"load {LIBRARY} and the module pynvml"
        self._calls: dict[int, str] = {}
        """The call in progress for each card, by the card's number."""
        self.asked_at = 0.0
        self.finished_at: float | None = None
        self.failure: Failure | None = None
        self.waiters = 0
        self.shown: Shown | None = None
        self._cards: list[OpenCard] = []
        self._driver_version: str | None = None

    @abstractmethod
    def run(self, library: Library) -> None:
        """Make the calls, in NVML's thread and its helpers."""

    @property
    def asking(self) -> str:
        """The calls in progress, for messages."""
        return ", ".join(call for _, call in sorted(self._calls.copy().items())) or self._call

    def inventory(self, failure: Failure | None = None) -> Inventory:
        """Return which cards are known so far; `failure` is why the caller waits no longer."""
        cards = tuple(card.so_far() for card in self._cards)
        return Inventory(cards, self._driver_version, failure or self.failure)

    def _for_each(self, cards: Sequence[Card], work: Callable[[int, Card], None]) -> None:
        """Do the work for each card, for several in parallel; raise the first error once all is done."""
        left = list(enumerate(cards))[::-1]
        errors: list[Exception] = []

        def take_cards() -> None:
            while left:
                try:
                    number, card = left.pop()
                except IndexError:  # another thread has taken the last one
                    return
                try:
                    work(number, card)
                except Exception as error:
                    errors.append(error)
                self._calls.pop(number, None)

        helpers = []
        for _ in range(min(len(cards), CARDS_AT_ONCE) - 1):
            helper = threading.Thread(target=take_cards, name="nvml-card", daemon=True)
            try:
                helper.start()
            except RuntimeError:  # TasksMax= is reached: the threads so far do all the work
                break
            helpers.append(helper)
        take_cards()
        for helper in helpers:
            helper.join()
        if errors:
            raise errors[0]

    def _open(self, library: Library) -> bool:
        """Open NVML and return whether that worked; if not, set `failure`."""
        try:
            library.load()
        except OSError as error:
            self.failure = Failure("library-missing", printable(str(error)) or LIBRARY)
            return False
        except ImportError as error:
            self.failure = Failure("module-missing", f"the Python module pynvml is missing: {error}")
            return False
        try:
            self._call = "nvmlInit"
            library.nvml.nvmlInit()
        except library.refusals as error:
            self.failure = failure_of("nvmlInit", error)
            return False
        library.is_open, library.opened_at = True, library.clock()
        return True

    def _shut_down(self, library: Library) -> None:
        self._call = "nvmlShutdown"
        library.is_open, library.cards = False, []
        try:
            library.nvml.nvmlShutdown()
        except library.refusals as error:
            _log.warning("nvmlShutdown: %s", explain(error))  # what was read stays true

    def _count(self, library: Library) -> None:
        """Count the cards and read the driver's version; raise NVML's error if the count fails."""
        self._call = "nvmlDeviceGetCount"
        library.count = library.nvml.nvmlDeviceGetCount()
        if library.count > MOST_CARDS:
            self.failure = Failure("failed", f"NVML counts {library.count} cards; {MOST_CARDS} are looked at")
        self._cards = [OpenCard() for _ in range(min(library.count, MOST_CARDS))]
        self._read_driver_version(library)

    def _read_driver_version(self, library: Library) -> None:
        self._call = "nvmlSystemGetDriverVersion"
        try:
            self._driver_version = take_text(library.nvml.nvmlSystemGetDriverVersion())
        except library.refusals as error:
            if code_of(error) != NOT_SUPPORTED:
                for card in self._cards:
                    card.complain(f"driver version: {explain(error)}")

    def _identify(self, library: Library, number: int, card: OpenCard) -> None:
        card.handle = self._ask(
            library, number, card, "card", "nvmlDeviceGetHandleByIndex", number, take_handle
        )
        if card.handle is not None:
            card.pci_address = self._of(library, number, card, "PCI address", "GetPciInfo", take_pci_address)
            card.uuid = self._of(library, number, card, "uuid", "GetUUID", take_text)

    def _of(
        self,
        library: Library,
        number: int,
        card: OpenCard,
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
        card: OpenCard,
        what: str,
        function: str,
        argument: Any,
        take: Callable[[Any], Answer],
        *,
        unsupported: Answer | None = None,
    ) -> Answer | None:
        """Return a call's answer; if it fails, note a problem of the card and return None.

        What a kind of card does not support is no problem: a Jetson has no PCI address, say. But
        without a handle nothing else can be asked of a card, so that is one.
        """
        self._calls[number] = f"{function} of card {number}"
        try:
            return take(getattr(library.nvml, function)(argument))
        except library.refusals as error:
            if code_of(error) == NOT_SUPPORTED and card.handle is not None:
                return unsupported
            card.complain(f"{what}: {explain(error)}")
            return None


class Shutdown(Query):
    """Closes NVML, after nobody has looked for long enough."""

    def run(self, library: Library) -> None:
        self._shut_down(library)
