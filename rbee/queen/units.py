"""The queen's units: see rbee.systemd.aio."""

from rbee.systemd.aio import AsyncBus

__all__ = ["AsyncBus"]
