"""Which cards there are: asked of an NVML that is opened for it."""

from __future__ import annotations

from functools import partial

from rbee.hive.devices.nvml.answers import take_bytes, take_text
from rbee.hive.devices.nvml.library import Library, OpenCard, failure_of
from rbee.hive.devices.nvml.query import Query


class InventoryQuery(Query):
    """Opens NVML for itself, because an open one shows the cards of the moment in which it was opened."""

    def run(self, library: Library) -> None:
        if library.is_open:
            self._shut_down(library)
        if self._open(library):
            try:
                self._read_all(library)
            except library.refusals as error:
                self.failure = failure_of(self.asking, error)
            finally:
                self._shut_down(library)
        self.shown = self.inventory().shown

    def _read_all(self, library: Library) -> None:
        self._count(library)
        self._for_each(self._cards, partial(self._read_card, library))

    def _read_card(self, library: Library, number: int, card: OpenCard) -> None:
        self._identify(library, number, card)
        if card.handle is not None:
            card.name = self._of(library, number, card, "name", "GetName", take_text)
            self._measure_memory(library, number, card)
        card.is_whole = True

    def _measure_memory(self, library: Library, number: int, card: OpenCard) -> None:
        """Ask for the size of a card's own memory: unsupported or 0 where it computes in the machine's RAM.

        GB10 and Jetsons do.
        """
        none = (0, 0)
        memory = self._of(library, number, card, "VRAM", "GetMemoryInfo", take_bytes, unsupported=none)
        if memory is not None:
            _, total = memory
            card.vram_bytes, card.memory_kind = (total, "dedicated") if total else (None, "shared")
