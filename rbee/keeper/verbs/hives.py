"""rbeectl add-hive, remove-hive, list-hives and list-devices."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rbee.errors import BadInput, RbeeError
from rbee.keeper.hives import Hives, labels_by_key
from rbee.keeper.listener import closed_tcp
from rbee.keeper.options import doing, in_session, looking, selecting
from rbee.keeper.output import tables
from rbee.keeper.output.tables import Frame
from rbee.keeper.queen.queen import Queen
from rbee.keeper.session import Session
from rbee.scope import Scope
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.hives import HiveView
from rbee.wire.routes import QueenRoutes
from rbee.wire.selectors import Selector

if TYPE_CHECKING:
    from rbee.wire.jobs import JobStarted

NO_SUCH_HIVES = "No hive has these labels"


@click.command("add-hive")
@click.argument("host", metavar="[USER@]HOST")
@click.option("--port", type=int, help="Port to store in the catalog; 8600 for a new hive.")
@click.option("--user", metavar="USER", help="SSH user on HOST; needs root or sudo.")
@click.option(
    "--queen",
    "address",
    metavar="ADDRESS[:PORT]",
    help="Address at which HOST reaches the queen, if not the one that ssh uses.",
)
@click.option(
    "--install", "package", metavar="PATH", help="Install rbee-hive on HOST from this .deb or folder."
)
@doing
@in_session
def add_hive(
    session: Session, host: str, port: int | None, user: str | None, address: str | None, package: str | None
) -> None:
    """Add HOST to the hive catalog, and wait until its hive is online.

    HOST is localhost, or another machine by the name that ssh knows: if it has not joined, it joins by
    ssh. Adding a hive again starts it if it is offline.
    """
    from rbee.keeper.changes import Changes  # only to change something
    from rbee.keeper.fleet.host import bring_and_add, bring_host
    from rbee.keeper.fleet.typed import Typed

    host, user = split_user(host, user, session.scope)
    typed = Typed(host, user, address, Path(package) if package else None, port, session.scope)
    with session.queen() as queen:
        if not session.waits:
            bring_host(queen, typed)
            print_begun(session, Changes(queen).begin_adding(host, port))
            return
        hive = bring_and_add(queen, typed)
        engines = engines_of(queen, hive.id)
    if session.as_json:
        session.tell_json({"event": "done", "hive": encode(hive)})
    else:
        session.say(f"Hive {printable(hive.id)} is Online")
        session.say(devices_page([hive], session.frame))
        for line in engines:
            session.say(line)


def engines_of(queen: Queen, hive_id: str) -> list[str]:
    """The engines of a hive that was added, a line each, with what is missing; [] if they are not known."""
    try:
        listed = queen.client.ask(QueenRoutes.ENGINES, hive=hive_id)
    except RbeeError:
        return []  # the hive is online all the same
    asked = [hive for hive in listed.hives if hive.hive_id == hive_id]
    return [
        *(
            f"Engine {printable(engine.name)}: {printable(engine.problem or 'can be used')}"
            for hive in asked
            for engine in hive.engines
        ),
        *(f"An engine is refused: {printable(problem)}" for hive in asked for problem in hive.problems),
    ]


def split_user(host: str, user: str | None, scope: Scope) -> tuple[str, str | None]:
    """HOST and USER of USER@HOST, as ssh takes it; the hive's name is HOST alone. BadInput."""
    before, at, machine = host.rpartition("@")
    if not at:
        return host, user
    if not before:
        raise BadInput("HOST must have a user before its @, or no @", field="HOST")
    if user not in (None, before):
        raise BadInput(
            "HOST has another user before its @ than --user",
            hint=scope.rbeectl(f"add-hive {machine} --user {user}"),
            field="HOST",
        )
    return machine, before


@click.command("remove-hive")
@click.argument("hive")
@click.option("--force", is_flag=True, help="Also remove a hive on another machine that cannot be reached.")
@doing
@in_session
def remove_hive(session: Session, hive: str, force: bool) -> None:
    """Stop HIVE and remove it from the hive catalog.

    On another machine the hive forgets its queen; its packages stay installed.
    """
    from rbee.keeper.changes import Changes  # only to change something

    with session.queen() as queen:
        changes = Changes(queen)
        if not session.waits:
            print_begun(session, changes.begin_removing(hive, is_forced=force))
            return
        was_there = changes.remove(hive, is_forced=force)
        near = "" if was_there else Hives(queen).near(hive)
    if session.as_json:
        session.tell_json({"event": "done", "hive": None, "was_there": was_there})
    elif was_there:
        session.say(f"Hive {printable(hive)} is removed")
    else:
        session.say(f"Hive {printable(hive)} was not in the hive catalog{near}")


def print_begun(session: Session, job: JobStarted) -> None:
    """Print the id of a job that was started with --no-wait."""
    from rbee.keeper.jobs import log_of  # only to change something

    if session.as_json:
        session.tell_json({"event": "job", **encode(job)})
    else:
        session.say(f"Job {job.job_id} continues; follow it: {log_of(job.job_id, session.scope)}")


@click.command("list-hives")
@selecting
@looking
@in_session
def list_hives(session: Session, selector: Selector) -> None:
    """List the hives of the catalog, with their states."""
    with session.queen() as queen:
        hives = Hives(queen)
        pages = (page for page in hives.pages(selector) if page)
        first = next(pages, ())
        closed = closed_tcp(queen.work.bus)
        now_ms = tables.now_ms()
        if session.as_json:
            session.tell_json({"hives": [encode(hive) for page in (first, *pages) for hive in page]})
        elif first:
            session.show_pages(chain((first,), pages), partial(tables.hives_table, now_ms))
        elif session.has_legend:
            session.say(NO_SUCH_HIVES if hives.has_any() else tables.no_hives(session.scope))
    if closed:
        session.warn(closed.message, closed.hint)


@click.command("list-devices", short_help="List the devices of hives, and their current use.")
@click.argument("hive", required=False)
@click.option("-m", "--memory", is_flag=True, help="List who holds their memory instead.")
@selecting
@looking
@in_session
def list_devices(session: Session, hive: str | None, memory: bool, selector: Selector) -> None:
    """List the devices of HIVE, or of every hive, and their current use."""
    with session.queen() as queen:
        known = Hives(queen)
        if hive is None:
            hives = [one for page in known.pages(selector) for one in page]
        else:
            hives = [one for one in [known.one(hive)] if selector.takes(labels_by_key(one))]
        memories = known.memories(hives) if memory else {}
        samples = {} if memory else known.samples(hives)
        has_any = bool(hives) or known.has_any()
    if session.as_json and memory:
        books = [{"id": one.id, "state": one.state, "memory": encode(memories.get(one.id))} for one in hives]
        session.tell_json({"hives": books})
    elif session.as_json:
        listed = [
            {
                "id": one.id,
                "state": one.state,
                "devices": encode(one.devices),
                "sample": encode(samples.get(one.id)),
            }
            for one in hives
        ]
        session.tell_json({"hives": listed})
    elif hives and memory:
        from rbee.keeper.output.memory import memory_table

        session.show(partial(memory_table, hives, memories))
    elif hives:
        notes = tables.findings(hives) if session.has_legend else []
        session.show(lambda frame: "\n".join([tables.live_table(hives, samples, frame), *notes]))
    elif session.has_legend:
        session.say(NO_SUCH_HIVES if has_any else tables.no_hives(session.scope))


def hives_page(hives: Iterable[HiveView], frame: Frame) -> str:
    """The table of hives, with ages up to now."""
    return tables.hives_table(tables.now_ms(), frame)(hives)


def devices_page(hives: list[HiveView], frame: Frame) -> str:
    """The table of devices, and what kept the detection from finding all."""
    page = tables.devices_table(hives, frame)
    return "\n".join([page, *(tables.findings(hives) if frame.has_header else ())])
