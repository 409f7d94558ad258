"""Labels and cordons of a hive, and who set them."""

from __future__ import annotations

import pytest

from rbee.errors import BadInput, UnknownHive
from rbee.wire.catalog import Audit
from rbee.wire.hives import LABELS_MAX, Label, SetCordon, SetLabels
from rbee.wire.routes import QueenRoutes
from tests.unit.queen.joined import OPERATOR, Queen, as_the_keeper_reads, beat

pytestmark = pytest.mark.deadline(10)


async def test_labels_are_set_and_taken_away_and_are_no_more_than_there_may_be(queen: Queen) -> None:
    await queen.member()
    marks = SetLabels((Label("rack", "3"), Label("spare", "")))
    view = await queen.hives.hive("gpu1").standing.set_labels(marks, OPERATOR)
    assert view.labels == marks.set
    marks = SetLabels((Label("rack", "4"),), ("spare", "x"))
    view = await queen.hives.hive("gpu1").standing.set_labels(marks, OPERATOR)
    assert view.labels == (Label("rack", "4"),)
    many = SetLabels(tuple(Label(f"k{n}", "") for n in range(LABELS_MAX)))
    with pytest.raises(BadInput, match=f"at most {LABELS_MAX} labels"):
        await queen.hives.hive("gpu1").standing.set_labels(many, OPERATOR)
    assert queen.hives.view("gpu1").labels == view.labels
    with pytest.raises(UnknownHive):
        await queen.hives.hive("gpu9").standing.set_labels(marks, OPERATOR)


async def test_an_address_that_is_known_is_not_written_again(queen: Queen) -> None:
    peer = await queen.member(address="10.0.0.1")
    standing = queen.hives.hive("gpu1").standing

    assert not await standing.store_address("10.0.0.1", peer.credential, peer.fields)
    assert await standing.store_address("10.0.0.9", peer.credential, peer.fields)
    assert not await standing.store_address("10.0.0.9", peer.credential, peer.fields)
    row = await queen.catalog.hives.find("gpu1")
    assert row is not None
    assert row.address == standing.row.address == "10.0.0.9"


async def test_each_change_has_its_author_in_the_audit_and_in_the_journal(queen: Queen) -> None:
    peer = await queen.member()
    await queen.hives.hive("gpu1").standing.set_labels(SetLabels((Label("rack", "3"),)), OPERATOR)
    await queen.hives.hive("gpu1").standing.set_labels(
        SetLabels((Label("rack", "3"),)), OPERATOR
    )  # no change
    await queen.hives.hive("gpu1").standing.set_cordon(SetCordon("a fan is loud"), OPERATOR)
    await queen.hives.hive("gpu1").standing.set_cordon(SetCordon(None), OPERATOR)
    await queen.catalog.hives.set_status("gpu1", "online")  # who comes and goes is no deed
    await queen.catalog.hives.set_status("gpu1", "offline")
    entries = await queen.catalog.audit.last(100, None)
    told = [
        (entry.text.split(" with token")[0], entry.actor_uid, entry.actor_credential) for entry in entries
    ]
    assert told == [
        (f"token {entries[0].text[6:14]} was made, for 1 use", 1000, None),
        ("hive gpu1 joined from 10.0.0.1", None, peer.credential),
        ("the labels of hive gpu1 are rack=3", 1000, None),
        ("hive gpu1 is cordoned: a fan is loud", 1000, None),
        ("hive gpu1 is not cordoned any more", 1000, None),
    ]
    assert [entry.text for entry in await queen.catalog.audit.last(2, "gpu1")] == [
        text for text, *_ in told[-2:]
    ]
    assert await queen.catalog.audit.last(100, "GPU1") == await queen.catalog.audit.last(100, "gpu1")
    assert await queen.catalog.audit.last(100, "gpu9") == []


async def test_the_longest_marks_that_may_be_do_not_break_the_audit(queen: Queen) -> None:
    await queen.member()
    await queen.hives.hive("gpu1").standing.set_cordon(SetCordon("x" * 2000), OPERATOR)
    labels = tuple(Label(f"k{number:02}{'a' * 60}", "v" * 63) for number in range(LABELS_MAX))
    await queen.hives.hive("gpu1").standing.set_labels(SetLabels(labels), OPERATOR)
    as_the_keeper_reads(QueenRoutes.AUDIT, Audit(tuple(await queen.catalog.audit.last(100, None))))


async def test_how_far_a_hive_s_clock_is_ahead_is_that_of_its_last_beat_and_decides_nothing(
    queen: Queen,
) -> None:
    await queen.member()
    standing = queen.hives.hive("gpu1").standing
    assert standing.view().clock_skew_ms is None

    for sent_at in ("2031-01-31t12:00:00.123456789z", "2031-01-31T14:00:01+02:00"):
        standing.take_beat(beat("ready")._replace(timestamp=sent_at), 15.0)

    view = standing.view()
    assert view.last_beat_ms is not None
    assert view.clock_skew_ms == 1_927_627_201_000 - view.last_beat_ms
    assert not standing.life.judge(queen.hives.hive("gpu1").patience)
