"""Where the queen's catalog is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rbee.keeper.catalog.location


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the queen's catalog is; root restores, whoever runs the tests."""
    path = tmp_path / "state/catalog.db"
    monkeypatch.setattr(rbee.keeper.catalog.location, "own_path", lambda scope: path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return path
