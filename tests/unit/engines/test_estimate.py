"""What the command of Estimate= may print, and how question and answer get from the hive to it and back."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.engines.estimate import (
    BYTES_MAX,
    OUTPUT_MAX,
    QUOTED,
    BadAnswerError,
    Question,
    answer_of,
    parse_answer,
    read_question,
    read_status_text,
    status_text,
)

VALID = st.integers(1, BYTES_MAX)


@pytest.mark.parametrize(
    ("output", "count"),
    [
        (b"5368709120", 5368709120),
        (b"5368709120\n", 5368709120),
        (b"loading\n99 %\n5368709120\r\n\n", 5368709120),
        (b"\t 007 \n", 7),
        (b"0" * 6000 + b"7", 7),
        (str(BYTES_MAX).encode(), BYTES_MAX),
    ],
)
def test_the_last_line_is_the_answer(output: bytes, count: int) -> None:
    assert parse_answer(output) == count


@pytest.mark.parametrize(
    ("output", "why"),
    [
        (b"", "it printed nothing"),
        (b"\n\n", "it printed nothing"),
        (b"5\n \n", "its last line is empty"),
        (b"-5\n", "not a number of bytes: '-5'"),
        (b"+5", "not a number"),
        (b"5.0", "not a number"),
        (b"1e9", "not a number"),
        (b"5 GiB", "not a number"),
        (b"0x10", "not a number"),
        (b"1_000", "not a number"),
        ("\u0665".encode(), "not a number"),  # a digit for str.isdigit() and int()
        (b"5\x00", "not a number of bytes: '5\\x00'"),
        (b"0", "it printed 0"),
        (b"1" + 30 * b"0", "more than 70368744177664 bytes, 64 TiB"),
        (str(BYTES_MAX + 1).encode(), "more than"),
        (b"9" * 60_000, "more than"),
        (b"\xff\n", "not UTF-8"),
        (b"7" + b"\n" * OUTPUT_MAX, "more than 64 KiB"),
    ],
)
def test_everything_else_is_no_answer_and_the_reason_is_short(output: bytes, why: str) -> None:
    with pytest.raises(BadAnswerError, match=re.escape(why)) as caught:
        parse_answer(output)
    assert len(str(caught.value)) < QUOTED + 100
    assert str(caught.value).isprintable()


@given(VALID, st.text(), st.sampled_from(["", "\n", "\r\n", "\n\n"]))
def test_whatever_is_before_a_number_on_the_last_line_does_not_matter(n: int, before: str, end: str) -> None:
    output = f"{before}\n{n}{end}".encode(errors="ignore")

    assert parse_answer(output) == n


def judged(status: int, output: bytes, errors: bytes = b"") -> int | str:
    """The answer, or the reason why there is none."""
    try:
        return answer_of(status, output, errors)
    except BadAnswerError as error:
        return str(error)


@given(st.binary(max_size=300))
def test_any_output_gives_a_number_in_bounds_or_a_printable_reason(output: bytes) -> None:
    found = judged(0, output)

    assert found.isprintable() if isinstance(found, str) else 1 <= found <= BYTES_MAX


@given(st.integers(-64, 255), st.binary(max_size=300), st.binary(max_size=300))
def test_only_a_command_that_has_succeeded_has_an_answer(status: int, output: bytes, errors: bytes) -> None:
    found = judged(status, output, errors)

    assert found.isprintable() if isinstance(found, str) else status == 0


def test_a_failure_names_the_status_and_what_was_said_last() -> None:
    for status, output, errors, why in (
        (1, b"7\n", b"reading\nno such card\n\n", "it exited with status 1, and said 'no such card'"),
        (2, b"usage: x\n", b"", "it exited with status 2, and said 'usage: x'"),
        (-9, b"", b"", "it was killed by signal 9, and said nothing"),
        (1, b"", b"\x1b[31m\xff", "it exited with status 1, and said '\\x1b[31m\ufffd'"),
    ):
        assert judged(status, output, errors) == why


@given(VALID)
def test_an_answer_survives_the_status_text(count: int) -> None:
    assert read_status_text(status_text(count)) == count


@given(st.text())
def test_no_reason_is_taken_for_an_answer(why: str) -> None:
    with pytest.raises(BadAnswerError) as caught:
        read_status_text(status_text(BadAnswerError(why)))
    assert str(caught.value) == (why or "it was not run to its end")


def test_a_status_text_that_was_never_set_is_no_answer() -> None:
    with pytest.raises(BadAnswerError, match="was not run to its end"):
        read_status_text("")


def test_a_question_survives_the_environment_file() -> None:
    question = Question(("/bin/a b", '"$X"', "ü\n"), (("A", "1 2"), ("B", "\\")))
    # As EnvironmentFile= reads it: quotes are removed, and so is the backslash before a special character.
    lines = question.content().decode().splitlines()
    variables = {
        name: re.sub(r"\\([\"\\`$])", r"\1", value[1:-1])
        for name, value in (line.split("=", 1) for line in lines)
    }

    assert read_question(variables) == question


@pytest.mark.parametrize(
    ("argv", "environment"),
    [("[]", "{}"), ("{}", "{}"), ("[1]", "{}"), ("no JSON", "{}"), ('["a"]', "[]"), ('["a"]', '{"A": 1}')],
)
def test_an_environment_that_is_not_the_hives_is_refused(argv: str, environment: str) -> None:
    with pytest.raises(ValueError, match=r"RBEE_|Expecting value"):
        read_question({"RBEE_ARGV": argv, "RBEE_ENVIRONMENT": environment})
