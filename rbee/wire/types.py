"""Types of the fields in shapes: annotations with bounds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

from rbee.errors import TEXT_LIMIT


class Limit(NamedTuple):
    """Bounds of an annotated field: of the value for a number, of the length for anything else.

    `description` explains the pattern in messages: what the value must be.
    """

    least: int
    most: int
    pattern: str | None = None
    description: str | None = None
    format: str | None = None


DEFAULT_PORT = 8600
QUEEN_PORT = 8500
"""The port on which a queen listens for remote hives."""
GATEWAY_PORT = 8510
"""The port on which a gateway listens for clients."""
LOCALHOST = "localhost"
"""The id and the host of the hive on the queen's own machine."""
AUDIT_MAX = 1000
"""The most entries of the audit in one answer."""
HIVES_MAX = 1000
"""The most hives on a page."""
EVENTS_MAX = 1000
"""The most events of the feed in one answer."""
_ENDS = ", and begin and end with a letter or a digit"
_HEX = "made of the digits 0 to 9 and a to f"
_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_NAME_DESCRIPTION = f"made of English letters, digits, '.', '_' and '-'{_ENDS}"
Name = Annotated[str, Limit(1, 253, _NAME, _NAME_DESCRIPTION)]
NewName = Annotated[str, Limit(1, 63, _NAME, _NAME_DESCRIPTION)]
"""A Name for a hive that joins: at most as long as a label of DNS, so that tables can show it."""
Place = Annotated[str, Limit(1, 285, rf"{_NAME}\+*", "a hive's name, or the `next` of the previous page")]
"""The hive after which a page of a list begins. Unreadable names in the catalog are distinguished by '+'."""
Port = Annotated[int, Limit(1, 65535)]
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
Host = Annotated[
    str,
    Limit(
        1,
        254,
        rf"{_LABEL}(\.{_LABEL})*\.?|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*",
        "a host's name, with at most 63 characters between two dots, or an IP address",
    ),
]
"""A queen's host name, with or without a dot at its end, or its IPv4 or IPv6 address.

No label is empty or longer than 63: Python's resolver raises UnicodeError for such a name.
"""
JobId = Annotated[str, Limit(32, 32, r"[0-9a-f]{32}", _HEX)]
Timestamp = Annotated[str, Limit(20, 40, format="date-time")]
Text = Annotated[str, Limit(0, TEXT_LIMIT)]
Word = Annotated[str, Limit(1, 64, r"[a-z0-9-]+", "made of small English letters, digits and '-'")]
WordOrEmpty = Annotated[str, Limit(0, 64, r"[a-z0-9-]*", "made of small English letters, digits and '-'")]
Count = Annotated[int, Limit(0, 2**53)]
EventId = Annotated[int, Limit(0, 999_999_999)]
Fingerprint = Annotated[str, Limit(1, 64, r"[0-9a-f]+", _HEX)]
Percent = Annotated[float, Limit(0, 100)]
Cpus = Annotated[float, Limit(0, 10**6)]
Load = Annotated[float, Limit(0, 10**9)]
Seconds = Annotated[float, Limit(0, 10**9)]
Celsius = Annotated[float, Limit(-274, 10_000)]
Watts = Annotated[float, Limit(0, 10**6)]
FeedId = Annotated[str, Limit(18, 32, r"[0-9a-f]{16}-[0-9]{1,15}", "the id of an event, such as one before")]
Priority = Annotated[int, Limit(0, 7)]
Pem = Annotated[str, Limit(1, 8000)]
MachineId = Annotated[str, Limit(32, 32, r"[0-9a-f]{32}", _HEX)]
TokenId = Annotated[str, Limit(8, 8, r"[0-9a-f]{8}", _HEX)]
Sha256 = Annotated[str, Limit(64, 64, r"[0-9a-f]{64}", _HEX)]
Format = Literal["gguf", "safetensors"]
"""The format of a model's file."""
ModelName = NewName
"""A name of a model, as clients of the gateway write it."""
WorkerId = Annotated[
    str,
    Limit(1, 24, r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", f"made of small English letters, digits and '-'{_ENDS}"),
]
"""A worker's name: that of its model, in lower case and truncated, and a number. Part of its user's name."""
LabelKey = Annotated[
    str,
    Limit(
        1,
        63,
        r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?",
        f"made of English letters, digits, '.', '_', '/' and '-'{_ENDS}",
    ),
]
SelectorText = Annotated[str, Limit(1, 4096)]
"""Labels that hives must have; rbee.wire.selectors parses it."""
LabelValue = Annotated[
    str,
    Limit(
        0,
        63,
        r"([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?",
        f"empty, or made of English letters, digits, '.', '_' and '-'{_ENDS}",
    ),
]


def is_same_name(one: str, other: str | None) -> bool:
    """Are two names of hives the same? Case does not count, as for hosts (RFC 4343)."""
    return other is not None and one.lower() == other.lower()


def spelled(name: str, names: Iterable[str]) -> str:
    """Return the spelling that a name has among `names`, or the name itself if it is not there.

    A catalog from before 0.5.0 may have two that differ only in case: then the exact spelling is returned.
    """
    same = [other for other in names if is_same_name(name, other)]
    return name if not same or name in same else same[0]
