"""Where a model comes from: a path, or a URL, whose secrets are neither kept nor shown.

A URL may have a password, and its query a signature or a token. Only the hive that fetches it gets those: in
the catalog, and so in its backups, in the audit, the journal and every answer, SECRET stands in their place.
"""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from rbee.errors import TEXT_LIMIT, BadInput
from rbee.wire.models import AddModel
from rbee.wire.types import LOCALHOST

SECRET = "***"  # noqa: S105  # it stands for one
"""Replaces a user and password, and a query."""

SCHEMES = ("https", "http", "file")


class Source(NamedTuple):
    """A model's source as it is shown, and the id of its fetch, None for a path."""

    shown: str
    fetch: str | None

    @property
    def is_whole(self) -> bool:
        """Is `shown` all of it, with nothing left out?"""
        return SECRET not in self.shown


def source_of(asked: AddModel) -> Source:
    """Return the source of a model to be added. Raises BadInput."""
    if (asked.path is None) == (asked.url is None):
        raise BadInput("a model has either a path or a url", field="path" if asked.path else "url")
    if asked.path is not None:
        return _path(asked.path)
    assert asked.url is not None
    return _url(asked.url, asked.sha256)


def _path(path: str) -> Source:
    pure = PurePosixPath(path)
    if not pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise BadInput(f"path must be absolute, without '..', and is {path[:200]!r}", field="path")
    if len(path) > TEXT_LIMIT:
        raise BadInput(f"path may have at most {TEXT_LIMIT} characters", field="path")
    return Source(path, None)


def _url(url: str, sha256: str | None) -> Source:
    fault = BadInput(
        f"url must begin with {', '.join(f'{scheme}://' for scheme in SCHEMES)}, and name a host and a file",
        field="url",
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise fault from error
    if parts.scheme not in SCHEMES or not (url.isascii() and url.isprintable()) or " " in url:
        raise fault
    is_local = parts.scheme == "file"
    if parts.path in ("", "/") or (host not in (None, LOCALHOST) if is_local else not host):
        raise fault
    if parts.scheme == "http" and sha256 is None:
        raise BadInput(
            "url is plain http, so the network could replace the file: give its sha256, or use https",
            hint="Use https, or give --sha256.",
            field="sha256",
        )
    # The user name may be a token, too.
    place = f"[{host}]" if host and ":" in host else host or ""
    place = place if port is None else f"{place}:{port}"
    bare = urlunsplit((parts.scheme, place, parts.path, parts.query, ""))
    shown_place = f"{SECRET}@{place}" if "@" in parts.netloc else place
    query = SECRET if parts.query else ""
    shown = urlunsplit((parts.scheme, shown_place, parts.path, query, ""))
    if len(shown) > TEXT_LIMIT:
        raise BadInput(f"url may have at most {TEXT_LIMIT} characters before its query", field="url")
    # Without the password: with another one, it is still the same file.
    return Source(shown, hashlib.sha256(f"{bare}{sha256 or ''}".encode()).hexdigest()[:16])
