"""Choosing hives by their labels, such as rack=3,gpu!=none,spare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rbee.errors import BadInput
from rbee.wire.codec import decode
from rbee.wire.types import LabelKey, LabelValue


class _Term(NamedTuple):
    """`value` is None if the term is about the key only."""

    key: str
    value: str | None
    is_wanted: bool


class Selector(NamedTuple):
    """All of its terms must hold; one without terms selects every hive. `text` is what it was parsed from."""

    terms: tuple[_Term, ...] = ()
    text: str = ""

    @classmethod
    def parse(cls, text: str, field: str = "selector") -> Selector:
        """Parse KEY=VALUE, KEY!=VALUE, KEY or !KEY, separated by commas.

        BadInput names a term that is none of these, and `field`, which the text was given for.
        """
        return cls(tuple(_term(part.strip(), field) for part in text.split(",")), text)

    def takes(self, labels: Mapping[str, str]) -> bool:
        """Does a hive with these labels match all terms?"""
        return all(
            (term.key in labels if term.value is None else labels.get(term.key) == term.value)
            is term.is_wanted
            for term in self.terms
        )


def _term(text: str, field: str) -> _Term:
    key, sign, value = text.partition("=")
    is_wanted = not (key.endswith("!") if sign else key.startswith("!"))
    key = key.removesuffix("!") if sign else key.removeprefix("!")
    try:
        return _Term(decode(LabelKey, key), decode(LabelValue, value) if sign else None, is_wanted)
    except BadInput as error:
        raise BadInput(
            f"{field} takes KEY=VALUE, KEY!=VALUE, KEY or !KEY, separated by commas, and not '{text:.100}'",
            field=field,
        ) from error
