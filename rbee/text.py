"""Text from outside: names, arguments, what firmware, units and other machines say."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text on one line, with whatever could steer who shows it as an escape.

    That is controls, line ends among them, and also the marks that turn the direction of text
    around (Trojan Source, CVE-2021-42574): all that Unicode does not call printable.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
