"""Choosing hives by their labels: -l rack=3,gpu!=none,spare."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.errors import BadInput
from rbee.wire.codec import decode
from rbee.wire.types import LabelKey, LabelValue

if TYPE_CHECKING:
    from rbee.wire.hives import HiveView


class _Term(NamedTuple):
    """`value` is None if the term is about the key only."""

    key: str
    value: str | None
    is_wanted: bool


class Selector(NamedTuple):
    """All of its terms must hold; one without terms selects every hive."""

    terms: tuple[_Term, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Selector:
        """KEY=VALUE, KEY!=VALUE, KEY or !KEY, separated by commas; BadInput names a term that is not."""
        return cls(tuple(_term(part.strip()) for part in text.split(",")))

    def takes(self, hive: HiveView) -> bool:
        """Has a hive the labels that are asked for?"""
        labels = {label.key: label.value for label in hive.labels}
        return all(
            (term.key in labels if term.value is None else labels.get(term.key) == term.value)
            is term.is_wanted
            for term in self.terms
        )


def _term(text: str) -> _Term:
    key, sign, value = text.partition("=")
    is_wanted = not (key.endswith("!") if sign else key.startswith("!"))
    key = key.removesuffix("!") if sign else key.removeprefix("!")
    try:
        return _Term(decode(LabelKey, key), decode(LabelValue, value) if sign else None, is_wanted)
    except BadInput as error:
        raise BadInput(
            f"-l takes KEY=VALUE, KEY!=VALUE, KEY or !KEY, separated by commas, and not '{text:.100}'",
            field="-l",
        ) from error
