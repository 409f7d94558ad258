"""rbee-worker ID: become the engine of this worker.

A watcher reports to systemd how far the engine has loaded and when it is ready, and ends. An engine that
listens on a TCP port has systemd-socket-proxyd(8) beside it, for the hive, which connects to a Unix socket.
Both are forked twice, so that systemd reaps them and not the engine. The unit's main process is thus the
engine itself: systemd sees how it ends, and nothing of rbee stays in memory.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from rbee.engines.order import PREFIX, Order, read_order, read_wait
from rbee.errors import BadConfig
from rbee.narration import ENGINE_STARTING, Journal
from rbee.scope import SYSTEM, WORKER_PROGRAM, Scope, scope_of
from rbee.systemd.daemon import TRY, failure_in_a_line
from rbee.text import printable
from rbee.worker.notify import notify
from rbee.worker.watch import LOCALHOST, watch

PROXY = "/usr/lib/systemd/systemd-socket-proxyd"

FIRST_FD = 3
"""SD_LISTEN_FDS_START of sd_listen_fds(3)."""

BACKLOG = 128
"""Connections that wait to be accepted by PROXY."""


def check(order: Order, scope: Scope = SYSTEM) -> None:
    """Raise BadConfig with the cure if this process cannot execute the engine, or cannot read the model."""
    program = order.argv[0]
    if not os.access(program, os.X_OK):
        what = "may not be executed by a worker" if os.path.lexists(program) else "was not found"
        cure = scope.rbeectl("list-engines")
        raise BadConfig(f"the program of the engine {order.engine}, {program}, {what}", hint=cure)
    if order.port is not None and not os.access(PROXY, os.X_OK):
        hint = scope.as_root("apt install --reinstall systemd")
        raise BadConfig(f"{PROXY}, which an engine with Socket=tcp needs, was not found", hint=hint)
    try:
        is_folder = stat.S_ISDIR(os.stat(order.model).st_mode)
    except OSError as error:
        raise BadConfig(
            f"the worker cannot find the model's file {order.path}: {error.strerror}",
            hint=scope.rbeectl(f"model show {order.name}"),
        ) from error
    if not os.access(order.model, os.R_OK | (os.X_OK if is_folder else 0)):
        mode = "-R o+rX" if is_folder else "o+r"
        raise BadConfig(
            f"the model's file {order.path} may not be read by others, and so not by its worker",
            hint=scope.as_root(f"chmod {mode} {order.path}"),
        )


def engine_environment(order: Order, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the engine's environment: `environ` without the launcher's variables, with the engine's own."""
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(PREFIX) and name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
    }
    # A dynamic user has no home. Drivers cache there what they compile for a card: it is kept until the stop.
    home = str(order.socket.parent)
    return {**kept, "HOME": home, "XDG_CACHE_HOME": f"{home}/cache", **dict(order.environment)}


def fork_apart(work: Callable[[], None]) -> None:
    """Do `work` in a process that is not a child of this one, and that ends with it."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            os.setsid()
            work()
    finally:
        os._exit(0)


def fork_watcher(order: Order) -> None:
    """Start the watcher of this process."""
    engine = os.pidfd_open(os.getpid())
    fork_apart(lambda: watch(order, engine))
    os.close(engine)


def fork_proxy(path: Path, port: int) -> None:
    """Pass connections to a Unix socket on to the engine's port while the worker runs. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)

        def proxy() -> None:
            os.dup2(listener.fileno(), FIRST_FD)
            os.set_inheritable(FIRST_FD, True)  # it may have had that number before
            os.execve(  # noqa: S606  # a program of systemd's own, without a shell
                PROXY,
                [PROXY, "--connections-max=1024", f"{LOCALHOST}:{port}"],
                {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())},
            )

        fork_apart(proxy)


def become(order: Order, environ: Mapping[str, str]) -> None:
    """Execute the engine in place of this program; does not return. Raises OSError."""
    with suppress(FileNotFoundError):
        order.socket.unlink()  # llama-server exits if the file exists
    if order.port is not None:
        fork_proxy(order.socket, order.port)
    fork_watcher(order)
    argv, variables = list(order.argv), engine_environment(order, environ)
    os.execve(argv[0], argv, variables)  # noqa: S606  # the point of this program


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Become the engine, or return the exit status."""
    scope = scope_of(arguments)
    try:
        order, seconds = read_order(environ), read_wait(environ)
    except (KeyError, ValueError) as error:
        print(f"the worker's environment, which the hive writes, is not valid: {error!r}", file=sys.stderr)  # noqa: T201
        return BadConfig.exit_code
    if seconds:
        # systemd has RestartSteps= from 254 on, and waits equally long each time before.
        notify(f"STATUS=waiting {seconds} s before the next start")
        time.sleep(seconds)
    try:
        check(order, scope)
        text = f"starting {order.engine} for {order.name}: {printable(' '.join(order.argv))}"
        about = {"model": order.name} | ({"job_id": order.job_id} if order.job_id else {})
        Journal(WORKER_PROGRAM).narrate(ENGINE_STARTING, text, worker=arguments[0], **about)
        become(order, environ)
    except BadConfig as error:
        notify(f"STATUS={printable(failure_in_a_line(error))}")
        print("; try: ".join([error.message, error.hint or ""]).removesuffix(TRY), file=sys.stderr)  # noqa: T201
        return error.exit_code
    except OSError as error:
        notify(f"STATUS={order.argv[0]} cannot be executed: {error.strerror}")
        print(f"{order.argv[0]} cannot be executed: {error.strerror}", file=sys.stderr)  # noqa: T201
        return BadConfig.exit_code
    return 0  # not reached: become() does not return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
