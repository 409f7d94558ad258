"""What of a request stands in its path and its headers."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from rbee.errors import BadInput, UnknownJob
from rbee.server.requests import peer_of
from rbee.wire.codec import decode
from rbee.wire.routes import EVENT_HEADER
from rbee.wire.types import FeedId, JobId, Name, TokenId


def actor(request: Request) -> dict[str, str]:
    """Who asked, as fields for the journal."""
    return peer_of(request).fields


def hive_id(request: Request) -> str:
    return _in_path(request, "hive_id", Name)


def token_id(request: Request) -> str:
    return _in_path(request, "token_id", TokenId)


def _in_path(request: Request, field: str, kind: Any) -> str:
    try:
        value: str = decode(kind, request.path_params[field])
    except BadInput as error:
        raise BadInput(f"{field} {error.message.removeprefix('the body ')}", field=field) from error
    return value


def job_id(request: Request) -> str:
    """UnknownJob for what is no id of a job."""
    try:
        return decode(JobId, request.path_params["job_id"])
    except BadInput as error:
        raise UnknownJob("job_id must be 32 hexadecimal digits", field="job_id") from error


def last_event_id(request: Request) -> int:
    """The number of the event of a story that the reader has seen last; 0 for none."""
    text = request.headers.get(EVENT_HEADER, "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise BadInput(f"{EVENT_HEADER} must be the number of an event of this story", field=EVENT_HEADER)
    return int(text)


def feed_id(request: Request) -> str | None:
    """The event of the feed that the reader has seen last, if the request says so."""
    text = request.headers.get(EVENT_HEADER)
    if text is None:
        return None
    try:
        return decode(FeedId, text)
    except BadInput as error:
        raise BadInput(f"{EVENT_HEADER} must be the id of an event", field=EVENT_HEADER) from error
