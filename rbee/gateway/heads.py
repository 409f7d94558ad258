"""The headers that are passed on: the client's to the engine, and the engine's to the client."""

from __future__ import annotations

from collections.abc import Iterable

Headers = Iterable[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
    b"trailer", b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""Headers about one connection (RFC 9110, 7.6.1)."""

_KEPT_FROM_ENGINE = frozenset({
    b"accept-encoding", b"authorization", b"content-length", b"cookie", b"expect", b"host", b"origin",
    b"x-api-key",
})  # fmt: skip
"""A client's key is not for the engine; without Origin no engine allows one; without Accept-Encoding answers
are not compressed, and tokens can be counted."""

_KEPT_FROM_CLIENT = frozenset({b"date", b"server", b"set-cookie"})


def request_head(method: str, target: bytes, headers: Headers, size: int) -> bytes:
    """Return the head of the request to the engine, whose body has `size` bytes."""
    passed = [
        b"%s: %s\r\n" % (name, value) for name, value in _end_to_end(headers) if name not in _KEPT_FROM_ENGINE
    ]
    return b"%s %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: %d\r\n%s\r\n" % (
        method.encode(), target, size, b"".join(passed),
    )  # fmt: skip


def answer_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers of the engine's answer that the client gets."""
    return [
        (name, value)
        for name, value in _end_to_end(headers)
        # An engine may allow every origin; a web page must not read its answers here.
        if name not in _KEPT_FROM_CLIENT and not name.startswith(b"access-control-")
    ]


def _end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers that are not about one connection, with names in lower case."""
    lowered = [(name.lower(), value) for name, value in headers]
    named = {
        word.strip().lower() for name, value in lowered if name == b"connection" for word in value.split(b",")
    }
    return [(name, value) for name, value in lowered if name not in _HOP_BY_HOP and name not in named]
