"""Which URLs may be fetched, and how one is shown: without the parts that may have secrets."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

from rbee.errors import BadInput
from rbee.text import printable, shortened

SHOWN_MOST = 200
"""The most characters of a URL in a message."""


def parsed(url: str, *, has_sum: bool) -> SplitResult:
    """Return the parts of a URL that may be fetched: https, file, or http with a SHA-256 to compare.

    Raises BadInput for any other.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise BadInput(
            "the url is not valid: its host or port cannot be read", hint="https://HOST/PATH", field="url"
        ) from None
    if not url.isascii() or re.search(r"[\x00-\x20\x7f]", url):
        raise BadInput(
            "the url is not valid: it has spaces or characters that are not ASCII",
            hint="Percent-encode them, such as %20 for a space.",
            field="url",
        )
    if parts.scheme not in ("http", "https", "file"):
        raise BadInput(
            f"the url has the unsupported scheme {parts.scheme}" if parts.scheme else "the url has no scheme",
            hint="Use https, http or file.",
            field="url",
        )
    if parts.scheme == "file":
        if host not in (None, "localhost") or not parts.path.startswith("/") or "\0" in unquote(parts.path):
            raise BadInput(
                "the url is not valid: it is not an absolute path on the hive's machine",
                hint="file:///PATH",
                field="url",
            )
        return parts
    if not host:
        raise BadInput("the url is not valid: it names no host", field="url")
    if parts.scheme == "http":
        refuse_unproven(parts.scheme, has_sum=has_sum)
    return parts


def refuse_unproven(scheme: str, *, has_sum: bool) -> None:
    """Raise BadInput for a transfer that can be tampered with, unless a SHA-256 proves the file."""
    if scheme != "https" and not has_sum:
        raise BadInput(
            f"over {scheme} the file could be replaced on its way",
            hint="Use https, or give --sha256.",
            field="url",
        )


def shown(url: str) -> str:
    """Return a URL for messages: without user, password, query and fragment, which may have secrets."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "a URL that is not valid"
    address = f"[{host}]" if ":" in host else host
    rest = "?…" if parts.query else ""
    place = f"{address}:{port}" if port is not None else address
    return shortened(printable(f"{parts.scheme}://{place}{parts.path}{rest}"), SHOWN_MOST)
