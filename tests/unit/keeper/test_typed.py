"""Names that were typed: refused by their field, and what was meant by one that is mistyped."""

from __future__ import annotations

import pytest

from rbee.errors import BadInput
from rbee.keeper.typed import NEAR_MAX, checked, did_you_mean
from rbee.wire.types import Name, TokenId

VERBS = (
    "add-hive",
    "remove-hive",
    "list-hives",
    "list-devices",
    "status",
    "show",
    "shutdown",
    "top",
    "token",
)


def test_what_fits_is_what_was_typed() -> None:
    assert checked(Name, "HIVE", "gpu1") == "gpu1"


@pytest.mark.parametrize(("kind", "text"), [(Name, "a b"), (Name, ""), (TokenId, "\x1b[2J")])
def test_what_does_not_fit_is_refused_by_its_field_and_not_repeated(kind: object, text: str) -> None:
    with pytest.raises(BadInput) as caught:
        checked(kind, "HIVE", text)

    assert caught.value.field == "HIVE"
    assert caught.value.message.startswith("HIVE must ")
    assert "the body" not in caught.value.message
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("list", "list-hives or list-devices"),
        ("hive", "add-hive or remove-hive"),
        ("stauts", "status"),
        ("sh", "show or shutdown"),
    ],
)
def test_names_that_begin_so_or_have_it_between_hyphens_come_before_those_spelled_alike(
    typed: str, meant: str
) -> None:
    assert did_you_mean(typed, VERBS) == f"; did you mean {meant}?"


@pytest.mark.parametrize("typed", ["", "xyzzy"])
def test_nothing_is_suggested_where_nothing_is_near(typed: str) -> None:
    assert did_you_mean(typed, VERBS) == ""


def test_no_more_are_suggested_than_a_line_holds() -> None:
    assert did_you_mean("gpu", (f"gpu{n}" for n in range(100))).count("gpu") == NEAR_MAX
