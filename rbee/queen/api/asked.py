"""Reading a request's path and headers."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from rbee.errors import BadInput, UnknownJob
from rbee.server.requests import peer_of
from rbee.wire.codec import decode
from rbee.wire.routes import EVENT_HEADER
from rbee.wire.types import FeedId, JobId, ModelName, Name, NewName, TokenId


def actor(request: Request) -> dict[str, str]:
    """Return the process that sent the request, as fields for the journal."""
    return peer_of(request).fields


def hive_id(request: Request) -> str:
    """Return the hive id in the path. Raises BadInput."""
    return _in_path(request, "hive_id", Name)


def token_id(request: Request) -> str:
    """Return the token id in the path. Raises BadInput."""
    return _in_path(request, "token_id", TokenId)


def model_name(request: Request) -> str:
    """Return the model's name in the path. Raises BadInput."""
    return _in_path(request, "model", ModelName)


def key_name(request: Request) -> str:
    """Return the key's name in the path. Raises BadInput."""
    return _in_path(request, "key", NewName)


def _in_path(request: Request, field: str, kind: Any) -> str:
    try:
        value: str = decode(kind, request.path_params[field])
    except BadInput as error:
        raise BadInput(f"{field} {error.message.removeprefix('the body ')}", field=field) from error
    return value


def job_id(request: Request) -> str:
    """Return the job id in the path; UnknownJob if it is not a job id."""
    try:
        return decode(JobId, request.path_params["job_id"])
    except BadInput as error:
        raise UnknownJob("job_id must be 32 hexadecimal digits", field="job_id") from error


def last_event_id(request: Request) -> int:
    """Return the number of the story's event that the reader has seen last, or 0. Raises BadInput."""
    text = request.headers.get(EVENT_HEADER, "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise BadInput(f"{EVENT_HEADER} must be the number of an event of this story", field=EVENT_HEADER)
    return int(text)


def feed_id(request: Request) -> str | None:
    """Return the id of the feed's event that the reader has seen last, or None. Raises BadInput."""
    text = request.headers.get(EVENT_HEADER)
    if text is None:
        return None
    try:
        return decode(FeedId, text)
    except BadInput as error:
        raise BadInput(f"{EVENT_HEADER} must be the id of an event", field=EVENT_HEADER) from error
