"""Keys and certificates."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rbee.keeper.doctor.keys import check_keys
from tests.unit.keeper.doctor.doubles import asked
from tests.unit.played_systemd import PlayedBus


def certificate_of(days: tuple[int, int]) -> str:
    """One in PEM that is valid from so many days from now to so many."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([])
    begins, ends = (now + timedelta(days=day) for day in days)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begins).not_valid_after(ends)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


GOOD, FUTURE, PAST = (-1, 1), (1, 2), (-2, -1)


@pytest.mark.parametrize(
    ("place", "days", "words", "has_cure"),
    [
        ("var/lib/queen-rbee/tls/ca.crt", GOOD, None, False),
        (
            "var/lib/queen-rbee/tls/ca.crt",
            FUTURE,
            "CA is not valid before .* No hive has joined",
            True,
        ),
        ("var/lib/queen-rbee/tls/ca.crt", PAST, "queen's CA has expired on", True),
        ("run/credentials/queen-rbee.service/rbee.ca.crt", FUTURE, "queen's CA is not valid before", False),
        ("var/lib/queen-rbee/tls/queen.crt", FUTURE, "the queen's certificate is not valid before", True),
        ("var/lib/queen-rbee/tls/queen.crt", PAST, "the queen's certificate has expired on", True),
        ("var/lib/rbee-hive/membership", GOOD, None, False),
        ("var/lib/rbee-hive/membership", FUTURE, "the certificate of this hive is not valid before", False),
        ("var/lib/rbee-hive/membership", PAST, "the certificate of this hive has expired on", False),
    ],
)
def test_a_certificate_that_is_not_valid_now_is_named(
    bus: PlayedBus, root: Path, place: str, days: tuple[int, int], words: str | None, has_cure: bool
) -> None:
    (root / place).parent.mkdir(parents=True)
    # A membership begins with its queen's CA, in a line, and its key.
    head = f"# {json.dumps({'ca': certificate_of(PAST)})}\n" if "membership" in place else ""
    (root / place).write_text(head + certificate_of(days))

    found = asked(check_keys, bus, root, is_root=True)

    assert len(found) == (words is not None)
    for complaint in found:
        assert re.search(words or "", complaint.text)
        assert bool(complaint.cures) is has_cure
        assert complaint.cures or complaint.hint


def test_new_keys_cost_the_hives_that_have_joined_and_are_left_to_a_person(
    bus: PlayedBus, root: Path
) -> None:
    state = root / "var/lib/queen-rbee"
    (state / "tls").mkdir(parents=True)
    (state / "tls/ca.crt").write_text(certificate_of(FUTURE))
    with closing(sqlite3.connect(state / "catalog.db")) as connection:
        connection.execute("CREATE TABLE hives (id, credential)")
        connection.execute("INSERT INTO hives VALUES ('gpu1', 'c'), ('gpu2', 'd'), ('localhost', NULL)")
        connection.commit()

    (complaint,) = asked(check_keys, bus, root, is_root=True)

    assert "2 hives have joined, and with new keys each has to join again" in complaint.text
    assert complaint.cures == ()
    assert "sudo rm -r /var/lib/queen-rbee/tls; sudo systemctl try-restart" in (complaint.hint or "")


def test_who_may_not_look_at_keys_is_told_so(bus: PlayedBus, root: Path) -> None:
    (note,) = asked(check_keys, bus, root)

    assert not note.is_fault
