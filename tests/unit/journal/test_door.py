"""What the door of group rbee permits of journalctl's options."""

from __future__ import annotations

import pytest

from rbee.errors import BadInput
from rbee.journal.door import permitted
from rbee.wire.logs import LogQuery


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ((), ()),
        (("-f", "-n", "5"), ("-f", "-n5")),
        (("--follow", "--lines=5", "--output=json"), ("--follow", "--lines=5", "--output=json")),
        (("-xe", "--since", "-1 h"), ("-x", "-e", "--since=-1 h")),
        (("-overbose", "-p", "debug", "--grep", "a b"), ("-overbose", "-pdebug", "--grep=a b")),
        (("--pri=err",), ("--priority=err",)),
    ],
)
def test_options_that_select_or_show_are_permitted(given: tuple[str, ...], passed: tuple[str, ...]) -> None:
    assert permitted(LogQuery(options=given)).options == passed


def test_fields_of_rbee_narrow_what_is_shown() -> None:
    query = permitted(LogQuery(options=("-n", "1", "RBEE_EVENT=worker-failed")))

    assert (query.options, query.fields) == (("-n1",), ("RBEE_EVENT=worker-failed",))


@pytest.mark.parametrize(
    "given",
    [
        ("--file=/etc/shadow",),
        ("-D", "/var/log"),
        ("--root=/",),
        ("--cursor-file=/tmp/x",),
        ("--unit=ssh.service",),
        ("-tsudo",),
        ("_PID=1",),
        ("+",),
        ("-n5", "_UID=0"),
        ("--", "_UID=0"),
        ("--vacuum-size=1",),
        ("--rotate",),
        ("--namespace=*",),
        ("-M", "other"),
        ("-m",),
        ("--lines",),
    ],
)
def test_what_names_another_journal_or_more_entries_is_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as caught:
        permitted(LogQuery(options=given))
    assert "--since" in str(caught.value.hint)
