"""What an emulated machine boots with, as programs of this computer read it."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest
from testbed.host import MachineError
from testbed.kernel import Kernel


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """Three modules, each of which needs the next, and one that is built in."""
    drivers = tmp_path / "lib/modules/6.1/kernel/drivers"
    drivers.mkdir(parents=True)
    (drivers / "card-driver.ko").write_bytes(b"\0depends=drm_kms,drm\0")
    (drivers / "drm-kms.ko.xz").write_bytes(lzma.compress(b"\0depends=drm,i2c-core\0"))
    (drivers / "drm.ko").write_bytes(b"\0depends=\0")
    (drivers.parents[1] / "modules.builtin").write_text("kernel/drivers/i2c/i2c-core.ko\n")
    return Kernel(tmp_path)


def test_a_module_comes_after_those_that_it_needs(kernel: Kernel) -> None:
    modules = kernel.modules(["card_driver"])
    assert list(modules) == ["drm", "drm_kms", "card_driver"]
    assert modules["drm_kms"] == b"\0depends=drm,i2c-core\0"


def test_what_is_loaded_is_not_loaded_again(kernel: Kernel) -> None:
    assert list(kernel.modules(["card-driver"], without=["drm"])) == ["drm_kms", "card_driver"]


def test_a_module_that_is_missing_is_named(kernel: Kernel) -> None:
    with pytest.raises(MachineError, match="no module nonesuch"):
        kernel.modules(["nonesuch"])
