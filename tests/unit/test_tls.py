"""What both ends of a fleet's connections know of TLS: tokens and fingerprints."""

from __future__ import annotations

import pytest

from rbee import tls
from rbee.errors import BadInput

TOKEN = ("0123abcd", "A" * 32, "f" * 64)


def test_a_token_is_read_as_it_was_written() -> None:
    assert tls.read_token(f" {tls.token_text(*TOKEN)}\n") == TOKEN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x.y.z",
        ".".join(TOKEN[:2]),
        ".".join((*TOKEN, "")),
        ".".join(("0123ABCD", *TOKEN[1:])),
        ".".join((TOKEN[0], "A" * 31, TOKEN[2])),
        ".".join((*TOKEN[:2], "f" * 63)),
        ".".join((TOKEN[0], "A" * 31 + "\x1b", TOKEN[2])),
        "a" * 100_000,
    ],
)
def test_what_is_no_token_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(BadInput, match=r"^the token is (not valid|damaged): ") as caught:
        tls.read_token(text)

    assert caught.value.field == "token"
    assert len(text) < 4 or text not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (".".join(TOKEN) + "a", "its third part should have 64 characters, and has 65"),
        (".".join(("0123ABCD", *TOKEN[1:])), "it has characters that no token has"),
    ],
)
def test_a_token_that_was_copied_badly_is_said_to_be_damaged(text: str, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        tls.read_token(text)

    assert caught.value.message == f"the token is damaged: {told}. Was all of it copied?"


def test_a_fingerprint_is_of_the_certificate_and_not_of_how_it_is_written() -> None:
    pem = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"

    # sha256(b"hello")
    expected = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert tls.fingerprint(pem) == tls.fingerprint(f"\n{pem}\n") == expected
    with pytest.raises(BadInput, match="is not a certificate"):
        tls.fingerprint("hello")


def test_nothing_older_than_tls_1_3_is_spoken() -> None:
    context = tls.trusting_context()

    assert context.minimum_version == tls.ssl.TLSVersion.TLSv1_3
