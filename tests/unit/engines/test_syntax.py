"""systemd's syntax of files and command lines, as engines' drop-ins have it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.engines.syntax import Assignment, BadLineError, expand, parse, split_words


def test_assignments_have_their_lines_and_what_continues_them() -> None:
    text = "# a comment\n\n[Engine]\nExec=/bin/x \\\n  # in between\n  --y\n; another\nFormats = gguf\n"

    assert parse(text) == [
        Assignment(4, "Engine", "Exec", "/bin/x  --y"),
        Assignment(8, "Engine", "Formats", "gguf"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("Exec=/bin/x\n", 1, "before any section"),
        ("[Engine]\nExec /bin/x\n", 2, "neither [Section] nor Key=value"),
        ("[Engine]\n\n=x\n", 3, "neither"),
        ("[Engine\nExec=x\n", 1, "neither"),
    ],
)
def test_a_line_that_is_neither_is_named(text: str, line: int, said: str) -> None:
    with pytest.raises(BadLineError) as caught:
        parse(text)
    assert caught.value.line == line
    assert said in caught.value.reason


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", ()),
        ("a  b\tc", ("a", "b", "c")),
        ("'a b' \"c d\"", ("a b", "c d")),
        ("a'b c'd", ("ab cd",)),
        ("\"\" ''", ("", "")),
        (r"a\x20b \s \t \\ \" \u00e9 \101", ("a b", " ", "\t", "\\", '"', "é", "A")),
        ("$HOME `x` | > * ; &&", ("$HOME", "`x`", "|", ">", "*", ";", "&&")),
        ("'it\\'s'", ("it's",)),
    ],
)
def test_words_are_split_as_systemd_splits_them_and_by_no_shell(value: str, words: tuple[str, ...]) -> None:
    assert split_words(value) == words


@pytest.mark.parametrize("value", ["'a", 'a "b', "\\", "\\q", "\\x2", "\\u12", "\\000", "\\ud800"])
def test_what_cannot_be_split_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"quote|escape|character"):
        split_words(value)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
def test_a_word_that_is_quoted_comes_back(words: list[str]) -> None:
    quoted = " ".join('"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"' for word in words)

    assert split_words(quoted) == tuple(words)


def test_specifiers_are_expanded_once() -> None:
    assert expand("%a/%%a/%b", {"a": "%b", "b": "%%"}) == "%b/%a/%%"


@pytest.mark.parametrize("word", ["%x", "100%", "%%%"])
def test_an_unknown_specifier_is_refused_with_those_there_are(word: str) -> None:
    with pytest.raises(ValueError, match=r"has the unknown specifier %.?; known are %a %%"):
        expand(word, {"a": ""})
