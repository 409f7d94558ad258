"""What may be fetched, and how it is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import BadInput
from rbee.modelfile.url import parsed, shown
from tests.model_files import refusal_of


@pytest.mark.parametrize(
    "url", ["https://example.org/bee.gguf", "file:///srv/bee.gguf", "https://a:b@[::1]:8/x?y#z"]
)
def test_https_and_files_need_no_sum(url: str) -> None:
    assert parsed(url, has_sum=False).geturl() == url


def test_http_needs_a_sum() -> None:
    parsed("http://example.org/bee.gguf", has_sum=True)
    with pytest.raises(BadInput, match="could be replaced") as refused:
        parsed("http://example.org/bee.gguf", has_sum=False)
    assert "--sha256" in (refused.value.hint or "")


@pytest.mark.parametrize(
    "url",
    [
        "", "bee.gguf", "/srv/bee.gguf", "ftp://example.org/x", "https://", "https:///x", "http://[::1/x",
        "https://example.org:99999/x", "https://example.org/a b", "https://example.org/\x1b", "https://exämple.org/",
        "file://elsewhere/srv/x", "file:relative", "file:///a%00b", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_others_are_refused(url: str) -> None:
    with pytest.raises(BadInput) as refused:
        parsed(url, has_sum=True)
    assert refused.value.field == "url"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://ada:secret@example.org/a/bee.gguf?token=hidden#x", "https://example.org/a/bee.gguf?…"),
        ("https://secret@[::1]:8443/x", "https://[::1]:8443/x"),
        ("file:///srv/bee.gguf", "file:///srv/bee.gguf"),
        ("http://ada:secret@[::1/x", "a URL that is not valid"),
        ("https://ada:secret@host:port/x", "a URL that is not valid"),
    ],
)
def test_it_is_shown_without_its_secrets(url: str, text: str) -> None:
    assert shown(url) == text


@given(st.text(max_size=60), st.booleans())
def test_any_text_is_a_url_or_refused_and_can_be_shown(text: str, has_sum: bool) -> None:
    for url in (text, f"https://{text}", f"file://{text}"):
        refusal_of(lambda url=url: parsed(url, has_sum=has_sum))  # type: ignore[misc]
        assert shown(url).isprintable()
