"""The gateway's units."""

from __future__ import annotations

from pathlib import Path

from rbee.keeper.doctor.gateway import check_gateway, has_gateway
from rbee.keeper.doctor.patient import Patient
from rbee.scope import GATEWAY_SOCKET_UNIT, GATEWAY_TCP_SOCKET_UNIT, GATEWAY_UNIT, QUEEN_SOCKET_UNIT
from tests.unit.keeper.doctor.doubles import FAILED, asked
from tests.unit.played_systemd import INACTIVE, PlayedBus


def test_a_gateway_that_sleeps_is_well(bus: PlayedBus, root: Path) -> None:
    assert asked(check_gateway, bus, root) == []
    assert not has_gateway(Patient(None, root, False, None))
    (root / "usr/libexec/rbee/rbee-gateway").touch()
    assert has_gateway(Patient(None, root, False, None))


def test_a_socket_that_does_not_listen_is_started_unless_rbee_is_off(bus: PlayedBus, root: Path) -> None:
    bus.states[GATEWAY_SOCKET_UNIT] = INACTIVE

    (complaint,) = asked(check_gateway, bus, root)
    assert complaint.cures[-1] == ("systemctl", "start", GATEWAY_SOCKET_UNIT)
    bus.states[QUEEN_SOCKET_UNIT] = INACTIVE
    assert asked(check_gateway, bus, root) == []


def test_a_socket_whose_file_somebody_deleted_is_made_anew(bus: PlayedBus, root: Path) -> None:
    (root / "run/rbee/openai.sock").unlink()

    (complaint,) = asked(check_gateway, bus, root)
    assert complaint.text == "systemd listens on /run/rbee/openai.sock, and somebody deleted that file"
    assert complaint.cures == (("systemctl", "restart", GATEWAY_SOCKET_UNIT),)


def test_a_gateway_that_has_failed_is_reported_with_its_status(bus: PlayedBus, root: Path) -> None:
    bus.states[GATEWAY_UNIT] = FAILED._replace(status_text="the certificate is not valid")

    (complaint,) = asked(check_gateway, bus, root)
    assert complaint.text == (
        "rbee-gateway.service has failed: it ended with exit status 1; "
        "its status: the certificate is not valid"
    )
    assert complaint.cures == (("systemctl", "reset-failed", GATEWAY_UNIT),)


def test_a_tcp_socket_that_could_not_be_opened_is_reported_with_its_address(
    bus: PlayedBus, root: Path
) -> None:
    bus.address = "127.0.0.1:8510"
    bus.states[GATEWAY_TCP_SOCKET_UNIT] = FAILED._replace(result="resources")

    (complaint,) = asked(check_gateway, bus, root)
    assert complaint.text == f"{GATEWAY_TCP_SOCKET_UNIT} could not be opened at 127.0.0.1:8510: resources"
    assert "gateway enable --listen ADDRESS:PORT" in (complaint.hint or "")


def test_without_a_bus_nothing_is_checked(root: Path) -> None:
    (note,) = asked(check_gateway, None, root)
    assert not note.is_fault
