"""The sockets' files."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

from rbee.keeper.doctor.check import Complaint
from rbee.keeper.doctor.sockets import check_sockets, complain_of_socket, listening_paths
from rbee.scope import HIVE_SOCKET_UNIT, QUEEN_SOCKET_UNIT, TARGET
from tests.unit.keeper.doctor.doubles import asked
from tests.unit.played_systemd import INACTIVE, PlayedBus

RESTART = ("systemctl", "restart", TARGET)


def test_a_deleted_folder_is_made_again_and_the_units_restarted_where_they_listen(
    bus: PlayedBus, root: Path
) -> None:
    for name in ("queen", "hive", "openai"):
        (root / f"run/rbee/{name}.sock").unlink()
    (complaint,) = [c for c in asked(check_sockets, bus, root) if "queen.sock" in c.text]
    assert complaint.cures == (RESTART,)
    (root / "run/rbee").rmdir()
    make = ("systemd-tmpfiles", "--create", "rbee.conf")
    assert [c.cures for c in asked(check_sockets, bus, root)] == [(make, RESTART)]

    # Off: there is nothing to restart.
    bus.states |= {QUEEN_SOCKET_UNIT: INACTIVE, HIVE_SOCKET_UNIT: INACTIVE}
    assert [c.cures for c in asked(check_sockets, bus, root)] == [(make,)]


def test_a_socket_s_file_is_held_against_its_unit(root: Path) -> None:
    path = Path("/run/rbee/queen.sock")
    heard = listening_paths(root)
    assert heard == {f"/run/rbee/{name}.sock" for name in ("queen", "hive", "openai")}
    found = (root / "run/rbee/queen.sock").stat()
    owner = pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name

    def complaints(
        mode: int = 0o660, group: str = owner[1], heard: set[str] | None = heard
    ) -> list[Complaint]:
        access = (owner[0], group, mode)
        return list(complain_of_socket(QUEEN_SOCKET_UNIT, path, root, access, heard))

    assert complaints() == []
    assert complaints(heard=None) == [], "where /proc/net/unix cannot be read nothing is made of it"
    assert [c.cures for c in complaints(heard=set())] == [(RESTART,)]
    assert [c.cures for c in complaints(0o600)] == [(("chmod", "0600", str(path)),)]
    assert [c.cures for c in complaints(group="bees")] == [(("chown", f"{owner[0]}:bees", str(path)),)]
    (root / "run/rbee/queen.sock").unlink()
    (root / "run/rbee/queen.sock").touch()
    assert [c.cures for c in complaints()] == [(("rm", "-r", str(path)), RESTART)]
