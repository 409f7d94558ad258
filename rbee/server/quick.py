"""Answers some requests as they are received, for which the app would take ten times as long.

The app makes a request, a task and a response for each. A heartbeat that changes nothing needs none of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from rbee.server.connection import check_head
from rbee.server.peer import AnyPeer
from rbee.server.responses import headers_at, json_content
from rbee.server.upgrading import UpgradingConnection

log = logging.getLogger("rbee")

QUICK_BYTES = 16 * 1024
"""Bytes of a body that is kept for a quick answer; a longer one goes to the app."""

Quick = Callable[[Any, bytes], Any]
"""Takes the peer and the body of a request. Returns the answer's shape, which must be hashable, or None if
the app is to answer."""


class QuickConnection(UpgradingConnection):
    """A connection with quick answers, to requests that come while nothing else of it is under way.

    All other requests, and those for which no quick answer is found, go to the app unchanged.
    """

    def __init__(self, *arguments: Any, quick: Mapping[tuple[bytes, bytes], Quick], **options: Any) -> None:
        """`quick` has the answers by method and target."""
        super().__init__(*arguments, **options)
        self._answers = quick
        self._quick: Quick | None = None
        """What may answer the request that is being received."""
        self._body = b""
        """Its body so far, which the app has not got."""
        self._sender: AnyPeer | None = None

    def _find_peer(self) -> AnyPeer:
        self._sender = peer = super()._find_peer()
        return peer

    def on_headers_complete(self) -> None:
        self._quick = self._find_quick()
        if self._quick is None:
            super().on_headers_complete()
        else:
            check_head(self.url, self.headers)
            self._awaited = "body"

    def on_body(self, body: bytes) -> None:
        if self._quick is None:
            super().on_body(body)
            return
        self._body += body
        self._size -= len(body)
        if len(self._body) > QUICK_BYTES:
            self._pass_on()

    def on_message_complete(self) -> None:
        if self._quick is not None:
            answer = None if self.transport.is_closing() else self._find_answer(self._quick)
            if answer is not None:
                self._quick, self._body = None, b""
                self._awaited = "request"
                self.transport.write(_response(answer, int(time.time())))
                return
            self._pass_on()
        super().on_message_complete()

    def _find_answer(self, quick: Quick) -> Any:
        try:
            return quick(self._sender, self._body)
        except Exception:  # or the parser would blame the client for it
            log.exception("a quick answer failed; the app answers")
            return None

    def _may_answer(self) -> bool:
        return self._quick is not None or super()._may_answer()

    def _find_quick(self) -> Quick | None:
        quick = self._answers.get((self.parser.get_method(), self.url))
        is_plain = (
            quick is not None
            and not self.pipeline
            and (self.cycle is None or self.cycle.response_complete)
            and not self.flow.write_paused  # the app waits for a client that does not read
            and not self.expect_100_continue
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.parser.should_upgrade()
        )
        return quick if is_plain else None

    def _pass_on(self) -> None:
        """Begin the request for the app, with what there is of its body."""
        body, self._quick, self._body = self._body, None, b""
        super().on_headers_complete()
        self._size += len(body)
        super().on_body(body)


@lru_cache(maxsize=16)  # most hives get the same answer
def _response(answer: Any, second: int) -> bytes:
    content = json_content(answer)
    head = b"".join([b"%s: %s\r\n" % header for header in headers_at(second)])
    return b"%s%scontent-length: %d\r\ncontent-type: application/json\r\n\r\n%s" % (
        STATUS_LINE[200], head, len(content), content,
    )  # fmt: skip
