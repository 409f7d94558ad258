"""rbee-gateway: what systemd hands over, made into a gateway that serves until it stops, or is idle."""

from __future__ import annotations

import gc
import os
import sys
from functools import partial
from pathlib import Path

from rbee import config
from rbee.gateway.gateway import Gateway
from rbee.gateway.listeners import sort_sockets
from rbee.narration import CONFIG_WARNING, GATEWAY_FAILED, Journal
from rbee.scope import GATEWAY_PROGRAM, Scope, scope_of
from rbee.server.daemon import run_daemon, stop_signal
from rbee.systemd.daemon import Notifier, take_sockets


async def run(notifier: Notifier, journal: Journal, scope: Scope) -> None:
    """Run the gateway of a scope until SIGTERM, or until it is idle; raises RbeeError if it cannot run."""
    stop_requested = stop_signal()
    settings = config.load(scope=scope)
    for warning in settings.warnings:
        journal.narrate(CONFIG_WARNING, warning)
    listeners = sort_sockets(take_sockets(scope=scope), _credentials(), scope)
    async with Gateway.open(settings.gateway, scope, listeners, notifier, journal) as gateway:
        # Objects that exist by then live until the end; scanning them again would stall the loop.
        await gateway.serve(stop_requested, started=gc.freeze)


def _credentials() -> Path | None:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return Path(folder) if folder else None


def main() -> int:
    """Run rbee-gateway and return its exit status."""
    return run_daemon(GATEWAY_PROGRAM, GATEWAY_FAILED, partial(run, scope=scope_of(sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
