"""The launcher of a worker, up to the point where it becomes the engine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rbee.engines.order import Order
from rbee.errors import BadConfig
from rbee.worker.__main__ import check, engine_environment, main

EXIT_CONFIG = 78


@pytest.fixture
def order(tmp_path: Path) -> Order:
    model = tmp_path / "model"
    model.touch()
    return Order(
        "bee", "llama", (sys.executable,), (("LANG", "C"),), model, "/srv/bee.gguf",
        tmp_path / "engine.sock", "/health",
    )  # fmt: skip


def test_an_engine_that_can_be_executed_and_read_is_right(order: Order) -> None:
    check(order)
    check(order._replace(model=order.model.parent))


def test_a_program_that_is_missing_is_named(order: Order) -> None:
    with pytest.raises(BadConfig, match="the engine llama, /no/such, was not found") as refused:
        check(order._replace(argv=("/no/such",)))
    assert refused.value.hint == "rbeectl list-engines"


def test_a_program_that_may_not_be_executed_is_named(order: Order) -> None:
    with pytest.raises(BadConfig, match="may not be executed by a worker"):
        check(order._replace(argv=(str(order.model),)))


def test_a_model_that_is_gone_is_named_by_its_place_on_the_machine(order: Order) -> None:
    order.model.unlink()

    with pytest.raises(BadConfig, match="cannot find the model's file /srv/bee.gguf: No such") as refused:
        check(order)
    assert refused.value.hint == "rbeectl model show bee"


@pytest.mark.parametrize(("is_folder", "mode"), [(False, "o+r"), (True, "-R o+rX")])
def test_a_model_that_may_not_be_read_has_the_command_that_helps(
    order: Order, monkeypatch: pytest.MonkeyPatch, is_folder: bool, mode: str
) -> None:
    model = order.model.parent if is_folder else order.model
    # Root may read everything.
    monkeypatch.setattr(os, "access", lambda path, _mode: path != model)

    with pytest.raises(BadConfig, match="may not be read by others") as refused:
        check(order._replace(model=model))
    assert refused.value.hint == f"sudo chmod {mode} /srv/bee.gguf"


def test_an_engine_s_environment_has_nothing_of_the_launcher_s(order: Order) -> None:
    given = {"PATH": "/bin", "LANG": "de", "RBEE_ARGV": "[]", "NOTIFY_SOCKET": "/run/x", "WATCHDOG_PID": "1"}

    home = str(order.socket.parent)
    assert engine_environment(order, given) == {
        "PATH": "/bin",
        "LANG": "C",
        "HOME": home,
        "XDG_CACHE_HOME": f"{home}/cache",
    }


def test_an_environment_without_an_order_ends_with_the_status_of_a_configuration(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["bee-1"], {}) == EXIT_CONFIG
    assert "the worker's environment, which the hive writes, is not valid" in capsys.readouterr().err


def test_what_cannot_be_started_is_said_with_its_cure(
    order: Order, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {
        "RBEE_MODEL_NAME": "bee", "RBEE_ENGINE": "llama", "RBEE_ARGV": '["/no/such"]',
        "RBEE_ENVIRONMENT": "{}",
        "RBEE_MODEL": f'"{order.model}"', "RBEE_MODEL_PATH": '"/srv/bee.gguf"',
        "RBEE_SOCKET": str(order.socket), "RBEE_READY": "/health", "RBEE_BYTES": "0",
    }  # fmt: skip

    assert main(["bee-1"], environ) == EXIT_CONFIG
    assert "/no/such, was not found; try: rbeectl list-engines" in capsys.readouterr().err


def test_an_engine_on_a_port_needs_the_proxy(
    order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = tmp_path / "proxyd"
    monkeypatch.setattr("rbee.worker.__main__.PROXY", str(proxy))
    check(order)
    with pytest.raises(
        BadConfig, match="proxyd, which an engine with Socket=tcp needs, was not found"
    ) as refused:
        check(order._replace(port=8080))
    assert refused.value.hint == "sudo apt install --reinstall systemd"
    proxy.touch(mode=0o755)
    check(order._replace(port=8080))
