"""The demonstration: a person's first minutes with rbee, on a disposable Debian under real systemd.

Exits 0 only if each step held, and leaves no process, mount or network behind.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

from testbed.host import PACKAGING, MachineError
from testbed.leftovers import left_behind, sweep
from testbed.processes import undisturbed
from testbed.trees import SUITES, Trees

from demonstration.fleet import demonstrate_fleet
from demonstration.machine import demonstrate_machine
from demonstration.steps import StepFailed, done, say


def main() -> int:
    """The program packaging/demo."""
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
    """Shows one machine, or a fleet of so many hives."""
    say(f"🚀 rbee on a disposable Debian ({suite}), under its own systemd\n")
    sweep()
    debs = build(directory)
    with Trees(Trees.default_cache(), say=say) as trees:
        if fleet is None:
            demonstrate_machine(trees, debs, suite, wants_shell=wants_shell)
        else:
            demonstrate_fleet(trees, debs, suite, fleet)
            say("\n🧹 cleaning up the machines...")
    if left := left_behind(os.getpid()):
        raise StepFailed("left behind:\n" + "\n".join(left))
    say("✅ cleaned up: no process, mount or network is left")


def build(directory: Path) -> list[Path]:
    """Builds the packages into a folder, and returns them."""
    began = time.monotonic()
    with subprocess.Popen([PACKAGING / "deb", directory], stdout=subprocess.PIPE) as builder:
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


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
