"""User rbee-hive plants links in its folder, where an operator's root puts an invitation."""

from __future__ import annotations

from tests.system.commands import rbeectl
from tests.system.fleet.fleet import Fleet
from tests.system.planted import TARGET, racing

STATE = "/var/lib/rbee-hive"


def test_a_link_to_a_folder_in_an_invitation_s_place_leads_root_nowhere(reached_fleet: Fleet) -> None:
    gpu1 = reached_fleet.hives["gpu1"]
    gpu1.run("install", "-d", "-o", "rbee-hive", "-g", "rbee-hive", "-m", "0700", STATE)
    gpu1.run("mkdir", "/etc/of-root.d")
    for name in ("invitation", ".invitation.new", "membership"):
        gpu1.run("setpriv", "--reuid=rbee-hive", "ln", "-s", "/etc/of-root.d", f"{STATE}/{name}")

    added = rbeectl(reached_fleet.queen, "add-hive", "root@gpu1", timeout=60)

    assert gpu1.run("ls", "/etc/of-root.d").stdout == ""
    assert gpu1.run("stat", "-c", "%U %a", "/etc/of-root.d").stdout == "root 755\n"
    assert added.code == 0, added


def test_a_hive_that_plants_links_has_root_write_or_chmod_nothing(reached_fleet: Fleet) -> None:
    gpu1 = reached_fleet.hives["gpu1"]
    gpu1.run("install", "-d", "-o", "rbee-hive", "-g", "rbee-hive", "-m", "0700", STATE)
    # One at a time: a place that is exchanged all the time is where root meets the link.
    for name in ("invitation", ".invitation.new", "membership"):
        with racing(gpu1, "rbee-hive", STATE, name):
            for _ in range(3):
                rbeectl(reached_fleet.queen, "add-hive", "root@gpu1", timeout=90)
                rbeectl(gpu1, "join", "queen", "--token", reached_fleet.token(), user=None, timeout=90)
    added = rbeectl(reached_fleet.queen, "add-hive", "root@gpu1", timeout=60)
    assert added.code == 0, added


def test_a_hive_that_plants_what_never_ends_holds_nobody_up(reached_fleet: Fleet) -> None:
    gpu1 = reached_fleet.hives["gpu1"]
    gpu1.run("install", "-d", "-o", "rbee-hive", "-g", "rbee-hive", "-m", "0700", STATE)
    as_hive = ("setpriv", "--reuid=rbee-hive", "--regid=rbee-hive", "--clear-groups")
    gpu1.run(*as_hive, "mkfifo", f"{STATE}/membership")
    assert rbeectl(gpu1, "doctor", user=None, timeout=20).code in (0, 1)
    told = rbeectl(gpu1, "join", "queen", "--token", "x", user=None, timeout=20)
    assert told.code != 0
    assert TARGET not in told.err
