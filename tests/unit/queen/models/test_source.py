"""Where a model comes from, and what of that is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import BadInput
from rbee.queen.models.source import Source, source_of
from rbee.wire.models import AddModel

SUM = "a" * 64


def of_url(url: str, sha256: str | None = SUM) -> Source:
    return source_of(AddModel("bee", url=url, sha256=sha256))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://models.example/a.gguf", "https://models.example/a.gguf"),
        ("https://models.example:8443/a/b.gguf#part", "https://models.example:8443/a/b.gguf"),
        ("https://ada:secret@models.example/a.gguf", "https://***@models.example/a.gguf"),
        ("https://token@models.example:1/a.gguf", "https://***@models.example:1/a.gguf"),
        ("https://models.example/a.gguf?X-Signature=secret", "https://models.example/a.gguf?***"),
        ("http://[fd00::1]:80/a.gguf", "http://[fd00::1]:80/a.gguf"),
        ("file:///srv/a.gguf", "file:///srv/a.gguf"),
        ("http://localhost/a.gguf", "http://localhost/a.gguf"),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    source = of_url(url)

    assert source.shown == shown
    assert source.is_whole == ("***" not in shown)
    assert source.fetch is not None
    assert len(source.fetch) == 16


WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=20)


@given(user=WORD, password=WORD, query=WORD)
def test_nothing_secret_is_left_in_what_is_shown(user: str, password: str, query: str) -> None:
    shown = of_url(f"https://{user}:{password}@h.example/a?k={query}").shown

    assert not any(secret in shown for secret in (user, password, query))


def test_one_file_has_one_fetch_whoever_fetches_it() -> None:
    one = of_url("https://h/a.gguf")

    assert one == of_url("https://h/a.gguf#x")
    assert of_url("https://ada:one@h/a.gguf").fetch == of_url("https://bob:two@h/a.gguf").fetch == one.fetch
    others = {of_url(url).fetch for url in ("https://h/b.gguf", "https://h/a.gguf?x", "http://h/a.gguf")}
    assert one.fetch not in others
    assert len(others) == 3
    assert of_url("https://h/a.gguf", None).fetch != one.fetch


def test_a_path_is_shown_as_it_is_and_not_fetched() -> None:
    assert source_of(AddModel("bee", path="/srv/a b.gguf")) == Source("/srv/a b.gguf", None)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (AddModel("bee"), "url"),
        (AddModel("bee", path="/a", url="https://h/a"), "path"),
        (AddModel("bee", path="a.gguf"), "path"),
        (AddModel("bee", path="/srv/../etc/a"), "path"),
        (AddModel("bee", path="/srv/a\0"), "path"),
        (AddModel("bee", path="/" + "a" * 2000), "path"),
        (AddModel("bee", url="ftp://h/a"), "url"),
        (AddModel("bee", url="https://h"), "url"),
        (AddModel("bee", url="https:///a"), "url"),
        (AddModel("bee", url="https://h:port/a"), "url"),
        (AddModel("bee", url="https://[h/a"), "url"),
        (AddModel("bee", url="https://h/ä"), "url"),
        (AddModel("bee", url="https://h/a b"), "url"),
        (AddModel("bee", url="https://h/a\nb"), "url"),
        (AddModel("bee", url="file://h/a"), "url"),
        (AddModel("bee", url="https://h/" + "a" * 2000), "url"),
        (AddModel("bee", url="http://h/a"), "sha256"),
    ],
)
def test_what_is_no_source_is_refused(asked: AddModel, field: str) -> None:
    with pytest.raises(BadInput) as caught:
        source_of(asked)
    assert caught.value.field == field
    assert asked.url is None or "/a" not in caught.value.message
