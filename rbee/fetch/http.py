"""A file on a web server. Range requests resume it where the connection was lost."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from rbee import __version__
from rbee.errors import BadInput
from rbee.fetch.errors import Again, Anew, BadRequest, Forbidden, NotThere, Unavailable
from rbee.fetch.source import Answer
from rbee.modelfile.url import refuse_unproven

TIMEOUT = 30.0
"""Seconds for connecting, and between two parts of a response."""

REDIRECTS_MOST = 10

RETRY_AFTER_MOST = 600.0
"""The longest Retry-After that is followed, in seconds."""

_PASSING = (408, 425, 429)
"""Statuses below 500 after which the same request may succeed."""


class WebFile:
    """A file at an http or https URL. `has_sum` is whether its SHA-256 is known, which http requires."""

    def __init__(self, url: str, *, has_sum: bool, timeout: float = TIMEOUT) -> None:
        self._url = url
        self._has_sum = has_sum
        self._client = httpx.Client(
            timeout=timeout,
            follow_redirects=True,
            max_redirects=REDIRECTS_MOST,
            # Not httpx's default, certifi: here the CAs of the machine and its administrator count.
            verify=ssl.create_default_context(),
            event_hooks={"request": [self._check]},
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextmanager
    def open(self, begin: int, version: str | None) -> Iterator[Answer]:
        """As Source.open()."""
        headers = {"Accept-Encoding": "identity", "User-Agent": f"rbee-fetch/{__version__}"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
        if begin and version is not None:
            headers["If-Range"] = version
        try:
            with self._client.stream("GET", self._url, headers=headers) as response:
                yield _answer(response, begin, version)
        except httpx.UnsupportedProtocol:
            raise Unavailable("the server redirects to an address that is neither http nor https") from None
        except httpx.TransportError as error:
            raise _trouble(error) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # their texts may have the URL in them
            raise Unavailable(f"the server's answer cannot be used: {type(error).__name__}") from None

    def _check(self, request: httpx.Request) -> None:
        """Check the scheme of each request, including those of redirects. Raises BadRequest."""
        try:
            refuse_unproven(request.url.scheme, has_sum=self._has_sum)
        except BadInput as error:
            raise BadRequest(
                f"the server redirects to {request.url.scheme}: {error.message}", hint=error.hint
            ) from error


def _trouble(error: httpx.TransportError) -> Exception:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return Unavailable(
            "the server's certificate is not valid",
            hint="Check the clock of the hive's machine; for a CA of your own see update-ca-certificates(8).",
        )
    if isinstance(error, httpx.TimeoutException):
        return Again("the server did not answer in time")
    if isinstance(error, httpx.ConnectError):
        return Again(f"the server is unreachable ({error})")
    return Again("the connection was lost")


def _answer(response: httpx.Response, begin: int, version: str | None) -> Answer:
    status, now = response.status_code, _version(response)
    place = re.fullmatch(
        r"bytes (?:(\d{1,16})-\d{1,16}|\*)/(\d{1,16}|\*)", response.headers.get("content-range", "")
    )
    total = int(place[2]) if place and place[2] != "*" else None
    if status == 416 and begin:
        if total != begin:
            raise Anew
        return Answer(begin, total, version, ())
    if status not in (200, 206):
        raise _refusal(response)
    if response.headers.get("content-encoding", "identity") not in ("identity", ""):
        raise Unavailable("the server compresses the file, so that its download could not be resumed")
    # Not iter_raw(size): it would drop an incomplete block when the connection is lost.
    blocks = response.iter_raw()
    if status == 200:
        length = response.headers.get("content-length", "")
        return Answer(0, int(length) if re.fullmatch(r"\d{1,16}", length) else None, now, blocks)
    if place is None or place[1] is None or int(place[1]) != begin:
        raise Anew
    if version is not None and now is not None and now != version:
        raise Anew  # the server has ignored If-Range
    return Answer(begin, total, now or version, blocks)


def _refusal(response: httpx.Response) -> Exception:
    status = response.status_code
    text = f"the server answers {status} {response.reason_phrase[:100]}".rstrip()
    if status >= 500 or status in _PASSING:
        after = response.headers.get("retry-after", "")
        seconds = float(after) if re.fullmatch(r"\d{1,6}", after) else None
        return Again(text, None if seconds is None else min(seconds, RETRY_AFTER_MOST))
    if status in (401, 403, 407):
        return Forbidden(text, hint="The file may need a login, or its licence to be accepted.")
    if status in (404, 410):
        return NotThere(text)
    return Unavailable(text)


def _version(response: httpx.Response) -> str | None:
    """Return a value for If-Range: a strong ETag, or a date. None if there is none that is well-formed."""
    tag, date = response.headers.get("etag", ""), response.headers.get("last-modified", "")
    if re.fullmatch(r'"[\x21\x23-\x7e]{0,500}"', tag):
        return str(tag)
    return str(date) if re.fullmatch(r"[A-Za-z0-9 ,:+-]{1,64}", date) else None
