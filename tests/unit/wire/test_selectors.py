"""Choosing hives by their labels."""

from __future__ import annotations

import pytest

from rbee.errors import BadInput
from rbee.wire.selectors import Selector

LABELS = {"rack": "3", "spare": "", "example.org/gpu": "h100"}


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("rack=3", True),
        ("rack=4", False),
        ("rack!=4", True),
        ("rack!=3", False),
        ("nothing!=3", True),
        ("nothing=", False),
        ("spare", True),
        ("spare=", True),
        ("!spare", False),
        ("!nothing", True),
        ("example.org/gpu=h100", True),
        ("rack=3,spare,!nothing", True),
        (" rack=3 , spare ", True),
        ("rack=3,rack=4", False),
    ],
)
def test_all_that_stands_between_the_commas_must_be_so(text: str, takes: bool) -> None:
    assert Selector.parse(text).takes(LABELS) is takes


def test_one_that_was_not_given_takes_all() -> None:
    assert Selector().takes(LABELS)


@pytest.mark.parametrize(
    "text", ["", ",", "a,", "=3", "!", "!=3", "a=b=c", "a b", "ü", "a=\x1b", "x" * 64, "!a=b"]
)
def test_what_is_no_selector_is_refused_and_says_what_is_one(text: str) -> None:
    with pytest.raises(BadInput, match="^-l takes KEY=VALUE, KEY!=VALUE, KEY or !KEY") as caught:
        Selector.parse(text, "-l")
    assert caught.value.field == "-l"
