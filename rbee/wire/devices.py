"""A machine's devices."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from rbee.wire.types import (
    Count,
    Cpus,
    Limit,
    Name,
    Text,
    Word,
)

MemoryKind = Literal["dedicated", "shared"]


class Cpu(NamedTuple):
    """A machine's processors and RAM; a value that the machine does not report is None.

    `model` is that of one socket's processor. `cpus_allowed` and `ram_allowed_bytes` are the limits by the
    cgroup of a guest, or of all that rbee runs; None if unlimited. A hive before 0.5.0 reports neither.
    """

    model: Text | None
    sockets: Count | None
    cores: Count | None
    threads: Count | None
    ram_bytes: Count | None
    cpus_allowed: Cpus | None = None
    ram_allowed_bytes: Count | None = None


class Gpu(NamedTuple):
    """One GPU; a value that its driver does not report is None. `problem` is what is wrong with the card.

    `index` counts the hive's cards from 0 in the order of their PCI addresses;
    `vendor` is 'nvidia', 'amd', 'intel' or the PCI vendor id as four hex digits.
    `memory_kind` is 'dedicated' for a card with its own memory, 'shared' for one that uses the machine's
    RAM. `vram_bytes` is its own memory, or what the firmware has reserved for a card that shares;
    `shared_memory_bytes` is how much of the RAM it may use beside that.
    """

    index: Count  # type: ignore[assignment]  # tuple.index, which nobody needs
    vendor: Word
    name: Text | None
    uuid: Text | None
    vram_bytes: Count | None
    driver: Text | None
    pci_address: Text | None
    problem: Text | None = None
    memory_kind: MemoryKind | None = None
    shared_memory_bytes: Count | None = None

    @property
    def memory_bytes(self) -> int | None:
        """All the memory that the card can use; None if that is not known."""
        if self.memory_kind != "shared":
            return self.vram_bytes
        if self.shared_memory_bytes is None:
            return None
        return self.shared_memory_bytes + (self.vram_bytes or 0)


class Finding(NamedTuple):
    """Something that kept detection from being complete; `code` is stable, `detail` is for people."""

    code: Word
    detail: Text


class Devices(NamedTuple):
    """The answer of a hive's /v1/devices."""

    cpu: Cpu
    gpus: Annotated[tuple[Gpu, ...], Limit(0, 256)] = ()
    findings: Annotated[tuple[Finding, ...], Limit(0, 64)] = ()
    model_catalog: Annotated[tuple[Name, ...], Limit(0, 10_000)] = ()
    worker_catalog: Annotated[tuple[Name, ...], Limit(0, 10_000)] = ()
