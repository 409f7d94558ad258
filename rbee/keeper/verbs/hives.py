"""The hives of the catalog: adding, removing and listing them, and what they have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from rbee.errors import BadInput
from rbee.keeper.hives import Hives
from rbee.keeper.listener import closed_tcp
from rbee.keeper.options import doing, in_session, looking, selecting
from rbee.keeper.output import tables
from rbee.keeper.output.tables import Frame
from rbee.keeper.selectors import Selector
from rbee.keeper.session import Session
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.hives import Hives as Listed
from rbee.wire.hives import HiveView
from rbee.wire.jobs import JobStarted

NO_HIVES = "No hives. Add this machine: rbeectl add-hive localhost"
NO_SUCH_HIVES = "No hive has these labels"


@click.command("add-hive")
@click.argument("host", metavar="[USER@]HOST")
@click.option("--port", type=int, help="The port kept in the hive's row; 8600 for a new one.")
@click.option("--user", metavar="USER", help="SSH user on HOST; needs root or sudo.")
@click.option(
    "--queen",
    "address",
    metavar="ADDRESS[:PORT]",
    help="Where HOST finds the queen, if not where ssh came from.",
)
@click.option(
    "--install", "package", metavar="PATH", help="Install rbee-hive there from this .deb or folder."
)
@doing
@in_session
def add_hive(
    session: Session, host: str, port: int | None, user: str | None, address: str | None, package: str | None
) -> None:
    """Add HOST to the hive catalog and see it online.

    HOST is localhost, or a machine that your ssh knows by that name: it joins by ssh, where it has not
    yet. A hive that is there already goes on from wherever it is.
    """
    from rbee.keeper.fleet.host import bring_and_add, bring_host  # lists need neither
    from rbee.keeper.fleet.typed import Typed

    host, user = split_user(host, user)
    typed = Typed(host, user, address, Path(package) if package else None, port)
    with session.queen() as queen:
        if not session.waits:
            bring_host(queen, typed)
            tell_begun(session, Hives(queen).begin_adding(host, port))
            return
        hive = bring_and_add(queen, typed)
    if session.as_json:
        session.tell_json({"event": "done", "hive": encode(hive)})
    else:
        session.say(f"Hive {printable(hive.id)} is Online")
        session.say(devices_page([hive], session.frame))


def split_user(host: str, user: str | None) -> tuple[str, str | None]:
    """HOST and USER of what ssh, too, takes as USER@HOST; the hive's name is HOST alone."""
    before, at, machine = host.rpartition("@")
    if not at:
        return host, user
    if not before:
        raise BadInput("HOST must have a user before its @, or no @", field="HOST")
    if user not in (None, before):
        raise BadInput(
            "HOST must not have another user before its @ than --user has",
            hint=f"rbeectl add-hive {machine} --user {user}",
            field="HOST",
        )
    return machine, before


@click.command("remove-hive")
@click.argument("hive")
@click.option("--force", is_flag=True, help="Also one on another machine that cannot be told.")
@doing
@in_session
def remove_hive(session: Session, hive: str, force: bool) -> None:
    """Stop HIVE and take it out of the hive catalog.

    One on another machine is told to forget its queen, and keeps its packages.
    """
    with session.queen() as queen:
        hives = Hives(queen)
        if not session.waits:
            tell_begun(session, hives.begin_removing(hive, is_forced=force))
            return
        was_there = hives.remove(hive, is_forced=force)
        near = "" if was_there else hives.near(hive)
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
@selecting
@looking
@in_session
def list_hives(session: Session, selector: Selector) -> None:
    """List the hives of the catalog and who is alive."""
    with session.queen() as queen:
        there = Hives(queen).all()
        closed = closed_tcp(queen.work.bus)
    hives = tuple(hive for hive in there if selector.takes(hive))
    if session.as_json:
        session.tell_json(encode(Listed(hives)))
    elif hives:
        session.show(lambda frame: hives_page(hives, frame))
    elif session.has_legend:
        session.say(NO_SUCH_HIVES if there else NO_HIVES)
    if closed:
        session.warn(closed.message, closed.hint)


@click.command("list-devices", short_help="List the devices of hives, and what they do.")
@click.argument("hive", required=False)
@selecting
@looking
@in_session
def list_devices(session: Session, hive: str | None, selector: Selector) -> None:
    """List the devices of HIVE, or of every hive, and what they do right now."""
    with session.queen() as queen:
        known = Hives(queen)
        there = [known.one(hive)] if hive is not None else list(known.all())
        hives = [one for one in there if selector.takes(one)]
        samples = known.samples(hives)
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
        found = tables.findings(hives) if session.has_legend else []
        session.show(lambda frame: "\n".join([tables.live_table(hives, samples, frame), *found]))
    elif session.has_legend:
        session.say(NO_SUCH_HIVES if there else NO_HIVES)


def hives_page(hives: Iterable[HiveView], frame: Frame) -> str:
    return tables.hives_table(hives, tables.now_ms(), frame)


def devices_page(hives: list[HiveView], frame: Frame) -> str:
    page = tables.devices_table(hives, frame)
    return "\n".join([page, *(tables.findings(hives) if frame.has_header else ())])
