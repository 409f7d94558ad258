"""Serving an app on sockets that systemd handed over; errors become problem documents."""

from rbee.server.app import Admit, Handler, build_app
from rbee.server.connection import BODY_LIMIT
from rbee.server.daemon import run_daemon, stop_signal
from rbee.server.peer import AnyPeer, Peer, RemotePeer
from rbee.server.requests import any_peer_of, peer_of, read_body, read_query, read_shape, remote_peer_of
from rbee.server.responses import Chunks, event_stream, file_answer, json_response, problem_response
from rbee.server.uvicorn import GRACE, Remote, serve

__all__ = [
    "BODY_LIMIT", "GRACE", "Admit", "AnyPeer", "Chunks", "Handler", "Peer", "Remote", "RemotePeer",
    "any_peer_of", "build_app", "event_stream", "file_answer", "json_response", "peer_of",
    "problem_response", "read_body", "read_query", "read_shape", "remote_peer_of", "run_daemon", "serve",
    "stop_signal",
]  # fmt: skip
