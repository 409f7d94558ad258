"""The machines that devices are looked for in, each by a process of its own."""

from tests.unit.hive.devices.conftest import later, libraries, machine, open_machine

__all__ = ["later", "libraries", "machine", "open_machine"]
