"""rbee-fetch: carries out the request in its credential `request`; its status text has the progress."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from rbee.errors import BadInput
from rbee.fetch.errors import BadRequest, Verdict
from rbee.fetch.transfer import World, room_beside
from rbee.fetch.work import Works
from rbee.files import read_regular
from rbee.modelfile.progress import Progress
from rbee.modelfile.store import META_MOST, Store, StoreRequest
from rbee.modelfile.url import shown
from rbee.narration import FETCH_FAILED, FETCHED, Journal, Narrator
from rbee.scope import FETCH_PROGRAM, Scope, scope_of
from rbee.systemd.daemon import Notifier, failure_in_a_line, state_directory
from rbee.text import shown_span
from rbee.wire.codec import decode

log = logging.getLogger("rbee")

STATUS_INTERVAL = 1.0
"""Seconds between two status texts: systemd sends a D-Bus signal for each."""


def request_of(environ: Mapping[str, str] = os.environ) -> StoreRequest:
    """Return the request in the unit's credential. Raises BadRequest, without any text of the request."""
    path = Path(environ.get("CREDENTIALS_DIRECTORY", "/nowhere"), "request")
    try:
        request = decode(StoreRequest, json.loads(read_regular(path, META_MOST)))
    except OSError as error:
        raise BadRequest(
            f"{path} cannot be read: {error.strerror}", hint="Only the hive starts rbee-fetch."
        ) from error
    except (ValueError, RecursionError):
        raise BadRequest("the request is not JSON") from None
    except BadInput as error:
        raise BadRequest(f"the request is not valid: {error.message}") from None
    if [request.fetch, request.forget, request.remove].count(None) != 2:
        raise BadRequest("the request must have exactly one of fetch, forget and remove")
    return request


class Status:
    """Sends progress as a status text, at most every STATUS_INTERVAL seconds; that of a wait at once."""

    def __init__(self, notifier: Notifier, now: Callable[[], float] = time.monotonic) -> None:
        self._notifier = notifier
        self._now = now
        self._next = 0.0

    def report(self, progress: Progress) -> None:
        """Send it, unless one was sent less than STATUS_INTERVAL ago. The note of a wait has a ';'."""
        if self._now() >= self._next or ";" in progress.note:
            self._next = self._now() + STATUS_INTERVAL
            self._notifier.status(progress.text())


def work(request: StoreRequest, works: Works, journal: Narrator, notifier: Notifier) -> None:
    """Carry out the request. Raises Verdict."""
    if request.forget is not None:
        works.forget(request.forget)
    if request.remove is not None:
        works.remove(request.remove)
    if (fetch := request.fetch) is None:
        return
    began = time.monotonic()
    result = works.fetch(fetch)
    took = shown_span(time.monotonic() - began)
    text = f"fetched {fetch.model} from {shown(fetch.url)}: {result.bytes} bytes in {took}"
    journal.narrate(FETCHED, text, sha256=result.sha256 or "")
    notifier.status(Progress(result.bytes, result.bytes).text())


def about(request: StoreRequest) -> dict[str, str]:
    """Return the journal fields for a request."""
    fields = {"model": request.fetch.model, "fetch": request.fetch.id} if request.fetch else {}
    return fields | ({"job_id": request.job_id} if request.job_id else {})


def run(notifier: Notifier, journal: Narrator, scope: Scope) -> int:
    """Read and carry out the request; return the exit status."""
    store = Store(state_directory(scope.models))
    world = World(room=lambda: room_beside(store.folder), report=Status(notifier).report)
    try:
        request = request_of()
        journal = journal.about(**about(request))
        works = Works(store, world, os.environ.get("RBEE_BOOT_ID", ""))
        work(request, works, journal, notifier)
    except Verdict as verdict:
        cause = failure_in_a_line(verdict)
        notifier.status(cause)
        journal.narrate(FETCH_FAILED, cause)
        return verdict.exit_code
    except Exception as error:
        # Without the error's text, which may have the URL in it, and so a password.
        notifier.status(f"internal error: {type(error).__name__}")
        trace = "".join(traceback.format_tb(error.__traceback__))
        log.error("internal error: %s\n%s", type(error).__name__, trace)
        return 1
    return 0


def main() -> int:
    """The program rbee-fetch."""
    scope = scope_of(sys.argv[1:])
    return run(Notifier(), Journal(FETCH_PROGRAM), scope)


if __name__ == "__main__":
    sys.exit(main())
