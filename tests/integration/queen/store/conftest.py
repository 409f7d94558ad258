"""A store in a folder of its own."""

from tests.unit.queen.store.conftest import path

__all__ = ["path"]
