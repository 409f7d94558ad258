"""A gateway that answers one thing, on a real socket."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class PlayedGateway:
    """Answers with `status` and the `parts`, each a chunk; `asked` are the bodies of the requests."""

    parts: Iterable[bytes]
    status: int = 200
    is_cut: bool = False
    """Does the connection break after the parts?"""
    asked: list[Any] = field(default_factory=list)


@contextmanager
def gateway_at(path: Path, played: PlayedGateway) -> Iterator[PlayedGateway]:
    """The gateway, served at `path`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            played.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(played.status)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            with suppress(BrokenPipeError):  # the client leaves once it has the last event
                for part in played.parts:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                    self.wfile.flush()
                if not played.is_cut:
                    self.wfile.write(b"0\r\n\r\n")

        def address_string(self) -> str:
            return "rbeectl"

        def log_message(self, *_arguments: object) -> None:
            pass

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield played
        finally:
            server.shutdown()
            serving.join()
            path.unlink()


def chunk(text: str | None = None, end: str | None = None) -> bytes:
    """One event of a chat completion."""
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": end}
    return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def problem(message: str, code: str) -> bytes:
    """An error as the gateway has it."""
    return json.dumps({"error": {"message": message, "type": "x", "code": code, "param": None}}).encode()
