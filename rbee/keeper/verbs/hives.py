"""The hives of the catalog: adding, removing and listing them, and what they have."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click

from rbee.contracts import Hives, HiveView, JobStarted, encode
from rbee.keeper import tables
from rbee.keeper.options import doing, in_session, looking
from rbee.keeper.session import Session
from rbee.text import printable

NO_HIVES = "No hives. Add this machine: rbeectl add-hive localhost"


@click.command("add-hive")
@click.argument("host")
@click.option("--port", type=int, help="The port kept in the hive's row; 8600 for a new one.")
@doing
@in_session
def add_hive(session: Session, host: str, port: int | None) -> None:
    """Add HOST to the hive catalog and see it online.

    Today HOST is localhost. A hive that is there already goes on from wherever it is.
    """
    with session.keeper() as work:
        if not session.waits:
            tell_begun(session, work.begin_add_hive(host, port))
            return
        hive = work.add_hive(host, port)
    if session.as_json:
        session.tell_json({"event": "done", "hive": encode(hive)})
    else:
        session.say(f"Hive {printable(hive.id)} is Online")
        session.say(devices_page(session, [hive]))


@click.command("remove-hive")
@click.argument("hive")
@doing
@in_session
def remove_hive(session: Session, hive: str) -> None:
    """Stop HIVE and take it out of the hive catalog."""
    with session.keeper() as work:
        if not session.waits:
            tell_begun(session, work.begin_remove_hive(hive))
            return
        was_there = work.remove_hive(hive)
        near = "" if was_there else work.near(hive)
    if session.as_json:
        session.tell_json({"event": "done", "hive": None, "was_there": was_there})
    elif was_there:
        session.say(f"Hive {printable(hive)} is removed")
    else:
        session.say(f"Hive {printable(hive)} was not in the hive catalog{near}")


def tell_begun(session: Session, job: JobStarted) -> None:
    """Say which job it is that nobody waits for."""
    if session.as_json:
        session.tell_json({"event": "job", **encode(job)})
    else:
        session.say(f"Job {job.job_id} goes on; follow it: sudo rbeectl logs -f --job {job.job_id}")


@click.command("list-hives")
@looking
@in_session
def list_hives(session: Session) -> None:
    """List the hives of the catalog and who is alive."""
    with session.keeper() as work:
        hives = work.list_hives()
    if session.as_json:
        session.tell_json(encode(Hives(hives)))
    elif hives:
        session.show(hives_page(session, hives))
    elif session.has_legend:
        session.say(NO_HIVES)


@click.command("list-devices", short_help="List the devices of hives, and what they do.")
@click.argument("hive", required=False)
@looking
@in_session
def list_devices(session: Session, hive: str | None) -> None:
    """List the devices of HIVE, or of every hive, and what they do right now."""
    with session.keeper() as work:
        hives = [work.hive(hive)] if hive is not None else list(work.list_hives())
        samples = work.samples(hives)
    if session.as_json:
        told = [
            {
                "id": one.id,
                "state": one.state,
                "devices": encode(one.devices),
                "sample": encode(samples.get(one.id)),
            }
            for one in hives
        ]
        session.tell_json({"hives": told})
    elif hives:
        page = tables.live_table(hives, samples, session.frame)
        session.show("\n".join([page, *(tables.findings(hives) if session.has_legend else ())]))
    elif session.has_legend:
        session.say(NO_HIVES)


def hives_page(session: Session, hives: Iterable[HiveView]) -> str:
    return tables.hives_table(hives, now_ms(), session.frame)


def devices_page(session: Session, hives: list[HiveView]) -> str:
    page = tables.devices_table(hives, session.frame)
    return "\n".join([page, *(tables.findings(hives) if session.has_legend else ())])


def now_ms() -> int:
    return time.time_ns() // 1_000_000
