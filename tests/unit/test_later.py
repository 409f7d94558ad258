"""rbee.later, with packages that note in a list when they are imported."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from rbee.later import put_off

LOADED: list[str] = []
NOTE = f"from {__name__} import LOADED\nLOADED.append(__name__)\n"


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "unhurried"
    folder.mkdir()
    (folder / "__init__.py").write_text(f"{NOTE}from unhurried.part import VALUE\n")
    (folder / "part.py").write_text(f"{NOTE}VALUE = 5\n")
    (folder / "other.py").write_text(f"{NOTE}")
    (folder / "own.py").write_text(f"{NOTE}def __getattr__(name):\n    return name\n")
    (folder / "broken.py").write_text("raise ImportError('broken')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    LOADED.clear()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "unhurried"]:
        del sys.modules[name]


def test_a_module_is_imported_once_something_in_it_is_used() -> None:
    put_off(["unhurried"])

    unhurried = import_module("unhurried")
    before = list(LOADED)

    assert (before, unhurried.VALUE, LOADED) == ([], 5, ["unhurried", "unhurried.part"])


def test_a_module_of_a_package_is_imported_without_the_package() -> None:
    put_off(["unhurried"])

    import_module("unhurried.other")

    assert LOADED == ["unhurried.other"]


def test_a_part_that_is_put_off_is_an_attribute_of_its_package() -> None:
    put_off(["unhurried", "unhurried.part"])

    part = import_module("unhurried").part
    before = list(LOADED)

    assert (before, part.VALUE, LOADED) == ([], 5, ["unhurried.part"])


def test_what_it_does_not_have_is_an_attribute_error_as_ever() -> None:
    put_off(["unhurried"])

    with pytest.raises(AttributeError, match="'unhurried' has no attribute 'missing'"):
        import_module("unhurried").missing  # noqa: B018  # the access is what is tested


def test_a_module_with_a_getattr_of_its_own_keeps_it() -> None:
    put_off(["unhurried.own"])

    own = import_module("unhurried.own")

    assert (own.one, own.other) == ("one", "other")


def test_two_threads_that_are_the_first_import_it_once() -> None:
    put_off(["unhurried"])
    unhurried = import_module("unhurried")
    together, values = threading.Barrier(8), []

    def use() -> None:
        together.wait()
        values.append(unhurried.VALUE)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (values, LOADED.count("unhurried")) == ([5] * 8, 1)


def test_what_fails_to_import_says_so_at_its_first_use() -> None:
    put_off(["unhurried.broken"])

    with pytest.raises(ImportError, match="broken"):
        import_module("unhurried.broken").anything  # noqa: B018  # the access is what is tested


def test_what_is_imported_or_not_installed_is_left_alone() -> None:
    loaded = import_module("unhurried.other")

    put_off(["unhurried.other", "not_installed"])

    assert (sys.modules["unhurried.other"], "not_installed" in sys.modules) == (loaded, False)
