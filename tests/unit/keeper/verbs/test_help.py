"""The verb help."""

from __future__ import annotations

import pytest

from tests.unit.keeper.doubles import Rbeectl


@pytest.mark.parametrize("verb", [[], ["add-hive"], ["catalog"], ["token", "create"]], ids=" ".join)
def test_help_is_a_verb_too(rbeectl: Rbeectl, verb: list[str]) -> None:
    ran = rbeectl("help", *verb)

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == rbeectl(*verb, "--help").out
    assert rbeectl("help", "--json", *verb).json == [{"text": ran.out.removesuffix("\n")}]


@pytest.mark.parametrize(
    ("verb", "told"),
    [
        (
            ["list"],
            "No such command 'list'; "
            "did you mean list-hives or list-devices or list-workers or list-engines?",
        ),
        (["token", "creat"], "No such command 'creat'; did you mean create?"),
        (["wake", "up"], "'wake' has no verb 'up'"),
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one),
)
def test_the_help_of_a_verb_that_was_mistyped_suggests_too(
    rbeectl: Rbeectl, verb: list[str], told: str
) -> None:
    ran = rbeectl("help", *verb)

    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
