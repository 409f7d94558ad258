"""10,000 hives over TLS at 15 s: what they cost at rest, when they are listed, and when all are lost."""

from __future__ import annotations

import json
import time

from testbed.bridge import Bridge
from testbed.machine import Machine

from tests.bench.lines import Goal, Line, Results
from tests.bench.playing import Playing
from tests.bench.subject import HERE, Release, Subject
from tests.bench.timed import Command
from tests.bench.usage import QUEEN, cpu_us, pss_mib

HIVES = 10_000
FEW = 1000

FOLDER = "/root/hives"
"""Where many_connections.py has its files."""

MAKE = """
import json, secrets, sqlite3, sys
from pathlib import Path
from rbee import tls
from rbee.queen.authority import Authority, Identity

state = Path("/var/lib/queen-rbee")
authority, key = Authority.open(state / "tls"), tls.new_key()
request = tls.request_for(key)  # one key for all: to the queen they differ by their certificates
hives = [(f"hive{n:05}", secrets.token_hex(8)) for n in range(int(sys.argv[1]))]
catalog = sqlite3.connect(state / "catalog.db")
with catalog:
    catalog.executemany(
        "INSERT INTO hives "
        "(id, host, port, status, created_at_ms, updated_at_ms, wanted, credential, machine, devices) "
        "SELECT ?1, ?1, 8600, 'offline', 1, 1, 1, ?2, ?2 || ?2, devices FROM hives WHERE id = 'localhost'",
        hives,
    )
[[devices]] = catalog.execute("SELECT devices FROM hives WHERE id = 'localhost'")
catalog.close()
members = [(name, authority.sign(request, Identity(name, credential))) for name, credential in hives]
print(json.dumps({"ca.pem": authority.ca, "key.pem": key, "devices.json": devices,
    "members.json": json.dumps(members)}))
"""

TAKE = """
import json, sys
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir()
for name, content in json.load(sys.stdin).items():
    (folder / name).write_text(content)
"""

REST = 45.0
"""Seconds after all have connected until the connections for the queen's requests are closed."""

SECONDS = 30.0
"""Two intervals."""

LOST = 10.0
"""Seconds after the loss of all hives until the queen has dealt with it."""

IN_ALL = f"{HIVES} hives over TLS"
JOIN = f"{IN_ALL}: until all have beaten for the first time, and are asked for their devices"
JOIN_CPU = f"{IN_ALL}: CPU of the queen for each of these"
BACK = f"{IN_ALL}: until all have beaten after a restart of the queen"
FEW_BACK = f"{FEW} hives over TLS: until all have beaten after a restart of the queen"
BACK_CPU = f"{IN_ALL}: CPU of the queen for each that is back"
MEMORY = f"{IN_ALL}: memory of the queen"
BEATS = f"{IN_ALL}: CPU of the queen at 15 s"
LATEST = f"{IN_ALL}: longest wait for an acknowledgement"
LOSS = f"{IN_ALL}: CPU of the queen when all are lost"
LINES = f"{IN_ALL}: lines in the journal when all are lost"

COMMANDS = tuple(
    Command(f"{name}, {IN_ALL}", command)
    for name, command in (
        ("list-hives", "exec rbeectl list-hives"),
        ("list-hives -l", "exec rbeectl list-hives -l rack=3"),
        ("list-hives, first line", "rbeectl list-hives | head -n 1"),
        ("show", "exec rbeectl show hive00050"),
        ("metrics", "exec rbeectl metrics"),
        ("monitor, first line", "rbeectl monitor -n 10 | head -n 1"),
    )
)

ROWS = 50_000

WITHOUT_TLS = {
    name: Line(f"{ROWS} hives in a process, without TLS: {words}", unit)
    for name, words, unit in (
        ("load", "CPU to load them", "s"),
        ("memory", "memory", "MiB"),
        ("rest", "CPU at the interval that they get", "% of a core"),
        ("pages", "CPU for all in pages", "s"),
        ("whole", "CPU for all at once", "s"),
        ("stall", "longest time that the event loop is kept by these", "ms"),
        ("metrics", "CPU for the metrics", "s"),
        ("loss", "CPU when all are lost", "s"),
        ("lines", "lines narrated when all are lost", ""),
    )
}
"""The lines, by the names that many_rows.py prints."""


class Rows(Subject):
    """The queen's own work for very many hives; of this checkout only."""

    name = "rows"
    is_heavy = True
    lines = tuple(WITHOUT_TLS.values())

    def measure(self, release: Release, results: Results) -> None:
        """Have them beat for a while, list them, and lose all."""
        if not release.is_now:
            return
        with Machine(release.queen()) as machine:
            program = (HERE / "many_rows.py").read_text()
            shown = machine.run("python3", "-I", "-c", program, str(ROWS), str(SECONDS), timeout=300).stdout
            for name, sample in json.loads(shown).items():
                results.add(WITHOUT_TLS[name].name, "now", sample)


class Scale(Subject):
    """Of this checkout only: the previous release takes at most 8,192 connections, and a list of 4 MiB."""

    name = "scale"
    is_heavy = True
    lines = (
        Line(JOIN, "s"),
        Line(JOIN_CPU, "ms"),
        Line(FEW_BACK, "s", Goal(at_most=5)),
        Line(BACK, "s", Goal(at_most=60)),
        Line(BACK_CPU, "ms"),
        Line(MEMORY, "MiB", Goal(at_most=400)),
        Line(BEATS, "% of a core", Goal(at_most=10)),
        Line(LATEST, "ms"),
        *(line for command in COMMANDS for line in command.lines),
        Line(LOSS, "s", Goal(at_most=1)),
        Line(LINES, "", Goal(at_most=2)),
    )

    def measure(self, release: Release, results: Results) -> None:
        """Add hives to the catalog, let all connect, restart the queen, rest, list them, and kill them."""
        if not release.is_now:
            return
        with (
            Bridge() as bridge,
            Machine(release.queen(), bridge=bridge, hostname="queen") as queen,
            Machine(release.hive(), bridge=bridge, hostname="many") as machine,
        ):
            queen.run("rbeectl", "add-hive", "localhost", user="ada")
            queen.run("rbeectl", "tcp", "enable", user="ada")
            queen.run("systemctl", "stop", QUEEN)
            made = queen.run("python3", "-I", "-c", MAKE, str(HIVES), timeout=120).stdout
            machine.run("python3", "-I", "-c", TAKE, FOLDER, input=made)
            queen.run("systemctl", "start", QUEEN)
            program = (HERE / "many_connections.py").read_text()
            with Playing(machine, program, FOLDER, FEW) as playing:
                results.add(FEW_BACK, "now", self._restart(queen, playing))
            with Playing(machine, program, FOLDER, HIVES) as playing:
                self._join(queen, playing, results)
                results.add(BACK, "now", self._restart(queen, playing))
                results.add(BACK_CPU, "now", cpu_us(queen, QUEEN) / HIVES / 1000)
                time.sleep(REST)
                self._rest(queen, playing, results)
                for command in COMMANDS:
                    command.measure(queen, results, release.column)
                before, lines = cpu_us(queen, QUEEN), self._count_lines(queen)
            time.sleep(LOST)
            results.add(LOSS, "now", (cpu_us(queen, QUEEN) - before) / 1e6)
            results.add(LINES, "now", self._count_lines(queen) - lines)

    def _join(self, queen: Machine, playing: Playing, results: Results) -> None:
        cpu = cpu_us(queen, QUEEN)
        results.add(JOIN, "now", playing.ask("held"))
        time.sleep(REST)
        results.add(JOIN_CPU, "now", (cpu_us(queen, QUEEN) - cpu) / HIVES / 1000)

    def _restart(self, queen: Machine, playing: Playing) -> float:
        """Return the seconds until all have beaten again."""
        playing.ask("held")
        queen.run("systemctl", "restart", "--no-block", QUEEN)
        return playing.ask("back")

    def _rest(self, queen: Machine, playing: Playing, results: Results) -> None:
        playing.ask("held")
        cpu = cpu_us(queen, QUEEN)
        time.sleep(SECONDS)
        results.add(BEATS, "now", (cpu_us(queen, QUEEN) - cpu) / SECONDS / 1e4)
        results.add(LATEST, "now", playing.ask("late"))
        results.add(MEMORY, "now", pss_mib(queen, QUEEN))

    def _count_lines(self, queen: Machine) -> int:
        queen.run("journalctl", "--sync")
        return queen.run("journalctl", "--quiet", "--output=cat", f"--unit={QUEEN}").stdout.count("\n")
