"""The arguments with which journalctl(1) selects rbee's entries."""

from __future__ import annotations

import itertools

import pytest

from rbee.journal.matches import WITHOUT_ENGINES, command, matches
from rbee.scope import SYSTEM
from rbee.wire.logs import LogQuery
from tests.unit.keeper.doubles import JOB

OURS = ("queen-rbee.service", "rbee-hive.service", "rbee-hive-redial.service", "rbee-worker@bee-1.service",
        "rbee-worker@bee-[0-9]*.service")  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [
        LogQuery(),
        LogQuery(hive="localhost"),
        LogQuery(hive="blade"),
        LogQuery(job=JOB),
        LogQuery(hive="blade", job=JOB),
        LogQuery(model="bee"),
        LogQuery(worker="bee-1"),
    ],
)
def test_each_term_names_a_unit_of_rbee_or_its_slice(query: LogQuery) -> None:
    """Any process may log the other fields."""
    found = matches(query)
    if found[0] == "--unit":
        assert set(found[::2]) == {"--unit"}
        assert set(found[1::2]) <= set(OURS)
        return
    for term in " ".join(found).split(" + "):
        by = [one.partition("=") for one in term.split()]
        units = [value for field, _, value in by if field in ("_SYSTEMD_UNIT", "UNIT")]
        assert (set(units) <= set(OURS) and units) or "_SYSTEMD_SLICE=rbee.slice" in term
        assert "UNIT=" not in term.replace("_SYSTEMD_UNIT=", "") or "_PID=1" in term


@pytest.mark.parametrize(
    "query", [LogQuery(hive="localhost"), LogQuery(hive="blade", job=JOB), LogQuery(job=JOB)]
)
def test_a_field_is_in_each_term(query: LogQuery) -> None:
    words = matches(query._replace(fields=("RBEE_EVENT=a + b",)))
    terms = [
        list(term) for is_plus, term in itertools.groupby(words, lambda word: word == "+") if not is_plus
    ]

    assert len(terms) >= 3
    assert all(term[0] == "RBEE_EVENT=a + b" for term in terms)


def test_what_engines_print_is_left_out_except_of_jobs_models_and_workers() -> None:
    def level(query: LogQuery) -> bool:
        return WITHOUT_ENGINES in command(query, SYSTEM)

    assert [level(one) for one in (LogQuery(), LogQuery(hive="blade"))] == [True, True]
    others = LogQuery(job=JOB), LogQuery(model="bee"), LogQuery(worker="bee-1")
    assert [level(one) for one in others] == [False] * 3


def test_an_option_of_the_query_comes_after_the_level() -> None:
    words = command(LogQuery(options=("--priority=debug",)), SYSTEM)

    assert words[:3] == ("journalctl", WITHOUT_ENGINES, "--priority=debug")
