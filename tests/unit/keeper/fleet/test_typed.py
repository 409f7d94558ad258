"""The command line of add-hive, as hints repeat it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.keeper.fleet.typed import Typed


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (Typed("gpu1"), "rbeectl add-hive gpu1"),
        (Typed("gpu1", "ada"), "rbeectl add-hive ada@gpu1"),
        (
            Typed("gpu1", queen="[fd00::1]:9000", package=Path("my debs"), port=8601),
            "rbeectl add-hive gpu1 --queen '[fd00::1]:9000' --install 'my debs' --port 8601",
        ),
        (Typed("gpu1; reboot"), "rbeectl add-hive 'gpu1; reboot'"),
    ],
)
def test_it_is_what_a_shell_takes_with_all_that_was_typed(typed: Typed, line: str) -> None:
    assert str(typed) == line


def test_a_hint_changes_one_option_and_keeps_the_others() -> None:
    typed = Typed("gpu1", "ada", port=8601)

    assert typed.by("root") == "rbeectl add-hive root@gpu1 --port 8601"
    assert typed.at("queen2") == "rbeectl add-hive ada@gpu1 --queen queen2 --port 8601"
    assert str(typed) == "rbeectl add-hive ada@gpu1 --port 8601"


def test_the_folder_of_the_packages_is_left_to_the_person_who_has_not_typed_one() -> None:
    assert Typed("gpu1").installing() == "rbeectl add-hive gpu1 --install FOLDER"
    assert Typed("gpu1", package=Path("dist")).installing() == "rbeectl add-hive gpu1 --install dist"
