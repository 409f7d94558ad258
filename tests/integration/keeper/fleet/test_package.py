"""Installing rbee-hive on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rbee.scope import HIVE_UNIT
from tests.unit.keeper.doubles import Rbeectl, WithQueen
from tests.unit.keeper.fleet.remote_machine import GPU1, MEMBER, Queen, RemoteMachine, failing
from tests.unit.played_systemd import INACTIVE, PlayedBus


def test_of_a_folder_the_packages_that_a_hive_needs_are_installed_and_taken_away_again(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine, packages: Path
) -> None:
    arguments = ("add-hive", "gpu1", "--install", str(packages))
    ran = with_queen(Queen().handlers, lambda: rbeectl(*arguments))

    assert ran.code == 0
    names = ["python3-rbee_0.4.0_all.deb", "rbee-hive_0.4.0_all.deb", "rbeectl_0.4.0_all.deb"]
    assert f"(bee keeper) installing {', '.join(names)} on gpu1\n" in ran.out
    programs = ["mktemp", "sh", "sh", "sh", "chmod", "env", "env", "rm", "install", "setpriv"]
    assert remote.programs == programs
    copied = {command.argv[-1]: command.content for command in remote.ran if command.argv[0] == "sh"}
    assert copied == {f"/tmp/there/{name}": f"the package {name.partition('_')[0]}" for name in names}
    hive, command = remote.ran[5].argv, remote.ran[6].argv
    assert "apt-get" in hive
    assert hive[-2:] == [f"/tmp/there/{name}" for name in names[:2]]
    # Which recommends a queen.
    assert command[-2:] == ["--no-install-recommends", f"/tmp/there/{names[2]}"]
    assert remote.ran[7].argv[-1] == "/tmp/there"
    assert ("start", HIVE_UNIT) in remote.bus.asked


@pytest.mark.parametrize("name", ["rbeectl_0.4.0_all.deb", "python3-rbee_0.4.0_all.deb", ""])
def test_packages_that_make_no_hive_are_refused_before_anything_is_copied(
    awake: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    remote: RemoteMachine,
    packages: Path,
    name: str,
) -> None:
    (packages / "rbee-hive_0.4.0_all.deb").unlink()
    ran = failing(rbeectl, with_queen, Queen(), remote, "--install", str(packages / name))

    assert (ran.code, remote.programs) == (2, [])
    assert "does not have what makes a hive: the packages rbee-hive and python3-rbee\n" in ran.err


def test_a_hive_s_package_alone_that_apt_refuses_wants_the_other(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine, packages: Path
) -> None:
    remote.play(fails="*apt-get*", says="E: Unmet dependencies", status=100)
    path = packages / "rbee-hive_0.4.0_all.deb"
    ran = failing(rbeectl, with_queen, Queen(), remote, "--install", str(path))

    assert ran.code == 1
    assert "try: With the package python3-rbee in the folder, too: rbeectl add-hive " in ran.err


def test_another_failure_of_apt_with_a_hive_s_package_alone_wants_nothing_else(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine, packages: Path
) -> None:
    remote.play(fails="*apt-get*", says="E: Sub-process /usr/bin/dpkg returned an error code (1)", status=100)
    path = packages / "rbee-hive_0.4.0_all.deb"
    ran = failing(rbeectl, with_queen, Queen(), remote, "--install", str(path))

    assert ran.code == 1
    assert "python3-rbee" not in ran.err
    assert "try: ssh -t gpu1 sudo apt --fix-broken install; then rbeectl add-hive " in ran.err


def test_a_package_that_is_not_there_is_named_before_anything_is_copied(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine, packages: Path
) -> None:
    arguments = ("add-hive", "gpu1", "--install", str(packages / "none"))
    ran = with_queen(Queen().handlers, lambda: rbeectl(*arguments))

    assert (ran.code, remote.programs) == (2, [])
    assert f"rbeectl: {packages}/none cannot be read: No such file or directory\n" in ran.err


def test_an_installation_that_fails_is_told_and_leaves_no_package_there(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, remote: RemoteMachine, packages: Path
) -> None:
    remote.play(fails="*apt-get*", says="E: Unmet dependencies", status=100)
    ran = failing(rbeectl, with_queen, Queen(), remote, "--install", str(packages))

    assert ran.code == 1
    assert "E: Unmet dependencies" in ran.err
    assert remote.programs[-1] == "rm"


@pytest.mark.parametrize("what", ["an empty folder", "no file"])
def test_what_is_no_package_is_refused_by_its_option(
    awake: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    remote: RemoteMachine,
    packages: Path,
    tmp_path: Path,
    what: str,
) -> None:
    path = tmp_path / "nothing"
    if what == "an empty folder":
        path.mkdir()
    ran = failing(rbeectl, with_queen, Queen(), remote, "--install", str(path), "--json")

    assert (ran.code, ran.json[-1]["field"]) == (2, "--install")
    assert str(path) in ran.json[-1]["detail"]


@pytest.mark.parametrize("state", ["offline", "online"])
def test_where_the_package_is_installed_already_it_is_said_that_nothing_is(
    awake: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    remote: RemoteMachine,
    packages: Path,
    state: Any,
) -> None:
    remote.bus.states[HIVE_UNIT] = INACTIVE
    remote.is_a(**MEMBER)
    queen = Queen(GPU1._replace(state=state, last_beat_ms=1))
    ran = with_queen(queen.handlers, lambda: rbeectl("add-hive", "gpu1", "--install", str(packages)))

    assert ran.code == 0, ran
    assert "(bee keeper) gpu1 has rbee-hive already: --install changes nothing there\n" in ran.out
    assert not any("apt-get" in command.argv for command in remote.ran)
