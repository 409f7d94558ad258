"""A web server of one file, with ranges, and with the faults that servers have.

Also a program, for machines: file_server.py PORT FILE [JSON of Faults]. It prints the Range of each request.
Standard library only.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import http.server
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HTML = b"<!DOCTYPE html>\n<html><head><title>Please log in</title></head></html>\n" * 20


@dataclasses.dataclass
class Faults:
    """What is wrong with it. `statuses` are answered first, in this order.

    `cut` closes each connection after so many bytes of the body, `slow` waits so many seconds after each
    64 KiB. `promise` is added to Content-Length. `change_after` answers `other` after so many requests.
    """

    cut: int = 0
    slow: float = 0.0
    promise: int = 0
    statuses: list[int] = dataclasses.field(default_factory=list)
    ranges: bool = True
    tag: bool = True
    if_range: bool = True
    length: bool = True
    html: bool = False
    html_on_resume: bool = False
    change_after: int = 0
    redirect: str = ""
    compressed: bool = False
    user: str = ""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `content`, later `other`. `asked` has Range and If-Range of each request, `say` gets a line."""

    daemon_threads = True

    def __init__(
        self,
        content: bytes,
        faults: Faults,
        *,
        other: bytes = b"",
        port: int = 0,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.content, self.other, self.faults = content, other, faults
        self.asked: list[tuple[str | None, str | None]] = []
        self.say = say
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/model.gguf"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no error."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_GET(self) -> None:
        server, faults = self.server, self.server.faults
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        server.asked.append((wanted, condition))
        server.say(f"Range: {wanted}")
        if faults.statuses and (status := faults.statuses.pop(0)):
            return self.answer(status, b"", {"Content-Length": "0", **faults.headers})
        if faults.redirect:
            return self.answer(302, b"", {"Location": faults.redirect, "Content-Length": "0"})
        if faults.user and self.headers.get("Authorization") != faults.user:
            return self.answer(401, b"", {"Content-Length": "0"})
        if faults.html or (faults.html_on_resume and wanted):
            faults.html_on_resume = False
            return self.answer(200, HTML, {"Content-Type": "text/html", "Content-Length": str(len(HTML))})
        has_changed = faults.change_after and len(server.asked) > faults.change_after
        return self.send_file(server.other if has_changed else server.content, wanted, condition)

    def send_file(self, content: bytes, wanted: str | None, condition: str | None) -> None:
        faults = self.server.faults
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        is_range = wanted is not None and faults.ranges
        is_range = is_range and (condition in (None, tag) or not faults.if_range)
        begin = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted and is_range else 0
        headers = {"ETag": tag} if faults.tag else {}
        if is_range and begin >= len(content):
            headers |= {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"}
            return self.answer(416, b"", headers)
        body = content[begin:]
        if is_range:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        if faults.compressed:
            headers["Content-Encoding"] = "gzip"
        if faults.length:
            headers["Content-Length"] = str(len(body) + faults.promise)
        else:
            headers["Connection"] = "close"
        return self.answer(206 if is_range else 200, body, headers)

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        faults = self.server.faults
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        sent = 0
        with suppress(OSError):
            while sent < len(body):
                size = min(1 << 16, len(body) - sent, *([faults.cut - sent] if faults.cut else []))
                if size <= 0:
                    break
                self.wfile.write(body[sent : sent + size])
                sent += size
                if faults.slow and self.server.closing.wait(faults.slow):
                    break
        if sent < len(body) or faults.promise or not faults.length:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def served(content: bytes, faults: Faults | None = None, *, other: bytes = b"") -> Iterator[FileServer]:
    """Serve a file on loopback."""
    with FileServer(content, faults or Faults(), other=other) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    other = Path(f"{sys.argv[2]}.other")
    FileServer(
        Path(sys.argv[2]).read_bytes(),
        Faults(**json.loads(sys.argv[3] if sys.argv[3:] else "{}")),
        other=other.read_bytes() if other.exists() else b"",
        port=int(sys.argv[1]),
        say=functools.partial(print, flush=True),
    ).serve_forever()
