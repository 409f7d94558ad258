"""The headers that are passed on."""

from __future__ import annotations

from rbee.gateway.heads import answer_headers, request_head


def test_a_request_keeps_what_is_about_the_request_only() -> None:
    headers = [
        (b"host", b"rbee"), (b"content-length", b"5"), (b"authorization", b"Bearer key"),
        (b"X-API-Key", b"key"), (b"te", b"trailers"),
        (b"connection", b"keep-alive, X-Mine"), (b"x-mine", b"1"), (b"keep-alive", b"9"),
        (b"transfer-encoding", b"chunked"), (b"expect", b"100-continue"), (b"origin", b"http://evil"),
        (b"accept-encoding", b"gzip"), (b"cookie", b"a=b"),
        (b"content-type", b"application/json"), (b"user-agent", b"OpenAI"),
    ]  # fmt: skip

    assert request_head("POST", b"/v1/x?a=b", headers, 7) == (
        b"POST /v1/x?a=b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 7\r\n"
        b"content-type: application/json\r\nuser-agent: OpenAI\r\n\r\n"
    )


def test_an_answer_keeps_its_own_and_opens_nothing_to_web_pages() -> None:
    headers = [
        (b"Server", b"llama.cpp"), (b"Date", b"now"), (b"Connection", b"close"), (b"Keep-Alive", b"5"),
        (b"Access-Control-Allow-Origin", b"*"), (b"Transfer-Encoding", b"chunked"), (b"Set-Cookie", b"a=b"),
        (b"Content-Type", b"text/event-stream"), (b"Content-Length", b"3"),
    ]  # fmt: skip

    assert answer_headers(headers) == [(b"content-type", b"text/event-stream"), (b"content-length", b"3")]
