"""Errors survive the way over a socket, and nothing that comes back crashes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rbee import errors
from rbee.errors import PROBLEM_PREFIX, TEXT_LIMIT, RbeeError, from_problem
from rbee.wire.codec import decode
from rbee.wire.daemon import Problem

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RbeeError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_over_a_socket(kind: type[RbeeError]) -> None:
    sent = kind("the disk is full", hint="Make room.", field="host")

    received = from_problem(json.loads(json.dumps(sent.to_problem())))

    assert type(received) is kind
    assert (received.message, received.hint, received.field) == ("the disk is full", "Make room.", "host")
    assert (received.exit_code, received.status) == (kind.exit_code, kind.status)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_problem_says_what_it_is_as_rfc_9457_has_it(kind: type[RbeeError]) -> None:
    assert kind("it broke").to_problem() == {
        "type": f"urn:rbee:problem:{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": "it broke",
    }
    assert decode(Problem, kind("it broke", hint="mend it", field="x").to_problem()).hint == "mend it"


def test_a_problem_repeats_no_more_than_the_contract_takes() -> None:
    long = f"what {'x' * 64_000} why"
    problem = RbeeError(long, hint=long).to_problem()

    for text in (decode(Problem, problem).detail, decode(Problem, problem).hint):
        assert text is not None
        assert len(text) == TEXT_LIMIT
        assert (text[:6], text[-5:]) == ("what x", "x why")


def test_no_two_errors_share_a_slug() -> None:
    assert len({kind.slug for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_has_an_exit_code_and_a_status_that_mean_failure(kind: type[RbeeError]) -> None:
    assert 1 <= kind.exit_code <= 255
    assert 400 <= kind.status <= 599
    assert kind.title


def test_the_message_is_what_str_gives() -> None:
    assert str(errors.BadInput("port must be a whole number", hint="8600")) == "port must be a whole number"


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ({}, "it failed without a reason"),
        ({"type": "urn:rbee:problem:of-the-future", "detail": "new"}, "new"),
        ({"type": PROBLEM_PREFIX, "detail": "no slug"}, "no slug"),
        ({"type": None, "title": "only a title"}, "only a title"),
        ({"type": ["list"], "detail": {"an": "object"}}, "{'an': 'object'}"),
        ({"type": "about:blank", "detail": "", "title": ""}, "it failed without a reason"),
        ({"type": 7, "detail": 8, "hint": 9, "field": ["x"], "status": "?"}, "8"),
    ],
)
def test_a_problem_that_is_not_ours_becomes_the_root_error(problem: dict[str, Any], message: str) -> None:
    error = from_problem(problem)

    assert type(error) is RbeeError
    assert (error.message, error.hint, error.field) == (message, None, None)
