"""rbeectl model: add, list, show and remove models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rbee.keeper.models.catalog import Models
from rbee.keeper.options import Suggesting, bytes_of, doing, in_session, looking
from rbee.keeper.output import models as drawn
from rbee.keeper.output import tables
from rbee.keeper.session import Session
from rbee.keeper.typed import checked
from rbee.keeper.verbs.hives import print_begun
from rbee.scope import Scope
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.models import CONTEXT_MAX
from rbee.wire.types import LOCALHOST, ModelName, Sha256

if TYPE_CHECKING:
    from rbee.wire.models import AddModel, ModelView


@click.group(cls=Suggesting, short_help="Add, list, show or remove models.")
def model() -> None:
    """Add, list, show or remove models, which workers serve."""


@model.command("add", short_help="Add a model: a file here, or one that is fetched.")
@click.argument("name")
@click.argument("source", metavar="PATH|URL")
@click.option("--sha256", metavar="SUM", help="Refuse a file that does not have this SHA-256.")
@click.option(
    "--memory",
    callback=bytes_of,
    metavar="SIZE",
    help="Memory that a worker needs, such as 5G; learned if not given.",
)
@click.option(
    "--context", type=click.IntRange(1, CONTEXT_MAX), metavar="N", help="Context length, in tokens."
)
@doing
@in_session
def add_model(
    session: Session, name: str, source: str, sha256: str | None, memory: int | None, context: int | None
) -> None:
    """Add a model as NAME. A file at PATH is used in place, and never written to; a URL is fetched by this
    machine's hive, which resumes after any interruption.

    A model is a GGUF file, or a folder of safetensors. Next: rbeectl serve NAME.
    """
    from rbee.keeper.models.changes import ModelChanges  # only to change something

    request = request_of(name, source, sha256, memory, context, session.scope)
    with session.queen() as queen:
        changes = ModelChanges(queen)
        if not session.waits:
            print_begun(session, changes.begin_adding(request))
            return
        added = changes.add(request)
    if session.as_json:
        session.tell_json({"event": "done", "model": encode(added)})
        return
    what = "" if added is None else f" ({drawn.kind(added.head)}, {drawn.size(added.bytes)})"
    session.say(f"Model {printable(name)} is in the model catalog{printable(what)}")
    if added is None or not added.is_served:
        session.say(f"To have it answer: {session.scope.rbeectl(f'serve {name}')}")


def request_of(
    name: str, source: str, sha256: str | None, memory: int | None, context: int | None, scope: Scope
) -> AddModel:
    """The request to add a model; reads the file of a path, as this person."""
    from rbee.keeper.models.file import check_sum, is_url, read_model
    from rbee.wire.models import AddModel

    checked(ModelName, "NAME", name)
    if sha256 is not None:
        sha256 = checked(Sha256, "--sha256", sha256.lower())
    if is_url(source):
        return AddModel(name, url=source, sha256=sha256, memory_bytes=memory, context=context, hive=LOCALHOST)
    file = read_model(source, scope)
    if sha256 is not None:
        check_sum(file.path, sha256)
    return AddModel(
        name, path=str(file.path), sha256=sha256, memory_bytes=memory, context=context,
        head=file.head, bytes=file.bytes, hive=LOCALHOST,
    )  # fmt: skip


@model.command("list", short_help="List the models.")
@looking
@in_session
def list_models(session: Session) -> None:
    """List the models of the catalog, with their states."""
    with session.queen() as queen:
        models = Models(queen).all()
    if session.as_json:
        session.tell_json({"models": [encode(one) for one in models]})
    elif models:
        session.show(lambda frame: drawn.models_table(models, tables.now_ms(), frame))
    elif session.has_legend:
        session.say(no_models(session.scope))


def no_models(scope: Scope) -> str:
    """What is shown in place of a table if there are no models."""
    return f"No models. Add one: {scope.rbeectl('model add NAME PATH|URL')}"


@model.command("show", short_help="Show what is known about a model.")
@click.argument("model")
@looking
@in_session
def show_model(session: Session, model: str) -> None:
    """Show what is known about MODEL: its file, its header, what it needs, and how it is served."""
    with session.queen() as queen:
        found = Models(queen).one(model)
    if session.as_json:
        session.tell_json(encode(found))
    else:
        session.show(lambda frame: model_page(found, frame))


def model_page(model: ModelView, frame: tables.Frame) -> str:
    """A model as model show prints it."""
    rows = [
        ("Model", model.name),
        ("State", f"{drawn.model_state(model)} since {tables.moment(model.since_ms * 1000)}"),
        ("Reason", model.reason),
        ("Problem", model.problem or ""),
        ("Source", model.source),
        ("Path", model.path if model.path not in (None, model.source) else ""),
        ("Hive", model.hive_id),
        ("Size", drawn.size(model.bytes) if model.bytes is not None else ""),
        ("SHA-256", model.sha256 or ""),
        *_head_rows(model),
        ("Memory", drawn.needs(model)),
        ("Served", _served(model)),
        ("Engine", model.engine or ""),
        ("Added", tables.moment(model.created_at_ms * 1000)),
    ]
    return "\n".join(frame.fit(f"{name:>12}: {printable(text)}") for name, text in rows if text)


def _head_rows(model: ModelView) -> list[tuple[str, str]]:
    head = model.head
    most = None if head is None else head.context
    context = f"{model.context or most} tokens" if model.context or most else ""
    if model.context and most:
        context += f", of at most {most}"
    if head is None:
        return [("Context", context)]
    weights = "" if head.weights_bytes is None else drawn.size(head.weights_bytes)
    return [
        ("Kind", drawn.kind(head)), ("Layers", str(head.layers or "")), ("Context", context),
        ("Weights", weights),
    ]  # fmt: skip


def _served(model: ModelView) -> str:
    if not model.is_served:
        return "no"
    return f"yes; {drawn.idle(model)}"


@model.command("remove", short_help="Stop a model's workers, and remove it.")
@click.argument("model")
@doing
@in_session
def remove_model(session: Session, model: str) -> None:
    """Stop the workers of MODEL, and remove it from the catalog.

    What was fetched for it is deleted; a file that was added by its path stays as it is.
    """
    from rbee.keeper.models.changes import ModelChanges  # only to change something

    with session.queen() as queen:
        changes = ModelChanges(queen)
        if not session.waits:
            print_begun(session, changes.begin_removing(model))
            return
        was_there = changes.remove(model).was_there
        near = "" if was_there else Models(queen).near(model)
    if session.as_json:
        session.tell_json({"event": "done", "model": None, "was_there": was_there})
    elif was_there:
        session.say(f"Model {printable(model)} is removed")
    else:
        session.say(f"Model {printable(model)} was not in the model catalog{near}")
