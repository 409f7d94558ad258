"""The demonstration: a person's first minutes with rbee, on a disposable Debian under real systemd.

Exits 0 only if each step held, and leaves no process, mount or network behind.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from machines import HERE, Machine, MachineError, left_behind, sweep, undisturbed
from trees import SUITES, Trees, add_person, install

SERVICES = ("queen-rbee.service", "rbee-hive.service")
UNITS = (*SERVICES, "queen-rbee.socket", "rbee-hive.socket", "rbee.target")
USERS = ("queen-rbee", "rbee-hive")
NARRATED = "Sending first heartbeat to queen"


class StepFailed(Exception):
    """A step of the demonstration did not hold; the message says which and how."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="packaging/demo", description=__doc__)
    parser.add_argument("--suite", choices=SUITES, default="bookworm", help="which Debian: 12 or 13")
    parser.add_argument("--shell", action="store_true", help="leave me inside the machine to play")
    parser.add_argument("--fleet", type=int, metavar="N", help="a queen and N hives, each its own machine")
    arguments = parser.parse_args()
    if arguments.fleet is not None and not 1 <= arguments.fleet <= 9:
        parser.error("--fleet takes a number from 1 to 9")
    if arguments.fleet is not None and arguments.shell:
        parser.error("--shell is for a single machine")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    try:
        with tempfile.TemporaryDirectory(prefix="rbee-debs-") as directory:
            demonstrate(arguments.suite, Path(directory), wants_shell=arguments.shell, fleet=arguments.fleet)
    except (StepFailed, MachineError) as error:
        say(f"❌ {error}")
        return 1
    except KeyboardInterrupt:
        say("\n🧹 interrupted, and cleaned up")
        return 130
    return 0


def demonstrate(suite: str, directory: Path, *, wants_shell: bool, fleet: int | None) -> None:
    say(f"🚀 rbee on a disposable Debian ({suite}), under its own systemd\n")
    sweep()
    debs = build(directory)
    with Trees(Trees.default_cache(), say=say) as trees:
        if fleet is None:
            demonstrate_machine(trees, debs, suite, wants_shell=wants_shell)
        else:
            from demo_fleet import demonstrate_fleet  # which takes its steps from here

            demonstrate_fleet(trees, debs, suite, fleet)
            say("\n🧹 cleaning up the machines...")
    if left := left_behind(os.getpid()):
        raise StepFailed("left behind:\n" + "\n".join(left))
    say("✅ cleaned up: no process, mount or network is left")


def demonstrate_machine(trees: Trees, debs: list[Path], suite: str, *, wants_shell: bool) -> None:
    tree = trees.base(suite)
    bind, bind_ro = nvidia_paths()
    began = time.monotonic()
    say(f"⏳ booting {suite}...")
    with Machine(tree, bind=bind, bind_ro=bind_ro) as machine:
        version = machine.run("systemctl", "--version").stdout.splitlines()[0]
        done(f"booted: {version}", began)
        install_as_a_person(machine, debs)
        if wants_shell:
            play(machine)
        else:
            add_hive(machine)
            look_around(machine, gpus=sum(Path(path).name[6:].isdigit() for path in bind))
            shut_down(machine)
        say("\n🧹 cleaning up the machine...")


# -- the steps --------------------------------------------------------------------------------------------


def build(directory: Path) -> list[Path]:
    began = time.monotonic()
    with subprocess.Popen([HERE / "deb", directory], stdout=subprocess.PIPE) as builder:
        try:
            builder.communicate()
        except BaseException:
            with undisturbed():
                builder.terminate()
                builder.wait()
            raise
    debs = sorted(directory.glob("*.deb"))
    if builder.returncode or not debs:
        raise StepFailed("The packages could not be built; the lines above say why.")
    done(f"built {', '.join(deb.name for deb in debs)}", began)
    return debs


def install_as_a_person(machine: Machine, debs: list[Path]) -> None:
    began = time.monotonic()
    say("📦 installing...")
    prompt(machine, "root", "apt install ./*.deb")
    for line in install(machine, debs).splitlines():
        if line.startswith(("Setting up rbee", "Setting up python3-rbee")):
            say(f"   {line}")
    add_person(machine, "ada")
    show(machine, "adduser", "ada", "rbee")
    done("installed; ada is a member of group rbee", began)


def add_hive(machine: Machine) -> None:
    began = time.monotonic()
    say("\n🐝 adding localhost to the hive catalog...")
    told = show(machine, "rbeectl", "add-hive", "localhost", user="ada")
    if NARRATED not in told:
        raise StepFailed(f"The story lacks '{NARRATED}'.")
    listed = machine.run("rbeectl", "list-hives", "--json", user="ada").stdout
    states = {hive["id"]: hive["state"] for hive in json.loads(listed)["hives"]}
    if states != {"localhost": "online"}:
        raise StepFailed(f"The catalog should have localhost online, and has {states}.")
    expect_states(machine, "active", SERVICES)
    done("added", began)
    say("   Hive ID: localhost")
    say("   Hive Status: Online")


def look_around(machine: Machine, *, gpus: int) -> None:
    say("\n🔎 what systemd and the journal say...")
    show(
        machine,
        "systemctl",
        "--no-pager",
        "--lines=0",
        "status",
        *(unit[:-8] for unit in SERVICES),
        user="ada",
    )
    told = show(machine, "journalctl", "--no-pager", "--output=short", "-u", "queen-rbee", "-u", "rbee-hive")
    if NARRATED not in told:
        raise StepFailed(f"The journal lacks '{NARRATED}'.")
    done("active, and the journal tells the story")

    say("\n🔎 what the queen knows...")
    if "localhost" not in show(machine, "rbeectl", "list-hives", user="ada"):
        raise StepFailed("list-hives does not list localhost.")
    if "cpu" not in show(machine, "rbeectl", "list-devices", user="ada"):
        raise StepFailed("list-devices lists no cpu.")
    listed = machine.run("rbeectl", "list-devices", "--json", user="ada").stdout
    found = [gpu for hive in json.loads(listed)["hives"] for gpu in hive["devices"]["gpus"]]
    nvidia = [gpu for gpu in found if "nvidia" in json.dumps(gpu).lower()]
    if len(nvidia) < gpus:
        raise StepFailed(f"This computer has {gpus} NVIDIA devices, and list-devices has {len(nvidia)}.")
    done(f"one hive, its cpu and {len(found)} GPUs")


def shut_down(machine: Machine) -> None:
    began = time.monotonic()
    say("\n🌙 shutting down: the queen, and with her the hive...")
    show(machine, "rbeectl", "shutdown", user="ada")
    expect_states(machine, "inactive", UNITS)
    for user in USERS:
        if left := machine.run("pgrep", "--list-full", "--uid", user, check=False).stdout:
            raise StepFailed(f"After the shutdown {user} still runs:\n{left}")
    done("the queen, the hive and their sockets are stopped, nothing of theirs runs", began)


def play(machine: Machine) -> None:
    say("\n🐝 You are ada, in group rbee; leave with exit. The machine is gone then. Try:")
    say(
        "     rbeectl add-hive localhost\n     systemctl status queen-rbee rbee-hive\n     rbeectl shutdown\n"
    )
    machine.interactive("su", "--login", "ada")


# -- how they are done ------------------------------------------------------------------------------------


def say(line: str) -> None:
    print(line, flush=True)


def done(what: str, began: float | None = None) -> None:
    say(f"✅ {what}" + (f" ({time.monotonic() - began:.1f} s)" if began is not None else ""))


def prompt(machine: Machine, user: str, command: str) -> None:
    host = machine.run("hostname").stdout.strip()
    say(f"   {user}@{host}:~{'#' if user == 'root' else '$'} {command}")


def show(machine: Machine, *argv: str, user: str | None = None, timeout: float = 60) -> str:
    """What a person types, and what comes back, as it comes; it has to succeed."""
    prompt(machine, user or "root", " ".join(argv))
    process = machine.popen("sh", "-c", 'exec "$@" 2>&1', "sh", *argv, user=user)
    assert process.stdout
    told = ""
    with overdue(timeout, lambda: machine.signal(process, signal.SIGKILL)):
        for line in process.stdout:
            say(f"   {line.rstrip()}")
            told += line
        code = process.wait()
    if code:
        raise StepFailed(f"{' '.join(argv)}: exit code {code}")
    return told


@contextmanager
def overdue(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def expect_states(machine: Machine, state: str, units: tuple[str, ...]) -> None:
    for unit in units:
        is_now = machine.run("systemctl", "is-active", unit, check=False).stdout.strip()
        if is_now != state:
            raise StepFailed(f"{unit} should be {state}, and is {is_now}.")


def nvidia_paths() -> tuple[list[str], list[str]]:
    """What a hive in a machine needs to see this computer's NVIDIA cards, to bind and to bind read-only."""
    devices = [str(path) for path in sorted(Path("/dev").glob("nvidia*"))]
    if not devices:
        return [], []
    known = subprocess.run(["ldconfig", "-p"], stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in known.splitlines():
        name, _, path = line.strip().partition(" => ")
        # Of several, the one for this Python's own word size: "libc6,x86-64", not plain "libc6".
        if name.startswith("libnvidia-ml.so.1 ") and "64" in name:
            inside = f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}/libnvidia-ml.so.1"
            return devices, [f"{os.path.realpath(path)}:{inside}"]
    return devices, []


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
