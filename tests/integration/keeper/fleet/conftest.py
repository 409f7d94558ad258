"""A machine that ssh reaches, for rbeectl with a queen that is served."""

from tests.unit.keeper.fleet.conftest import joining, packages, remote, there

__all__ = ["joining", "packages", "remote", "there"]
