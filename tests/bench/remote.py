"""Hives on another machine, over TLS: what the queen pays for their connections and their beats."""

from __future__ import annotations

import time

from testbed.bridge import Bridge
from testbed.machine import Machine

from tests.bench.lines import Found, Goal, Line
from tests.bench.playing import Playing
from tests.bench.subject import Release, Subject
from tests.bench.usage import QUEEN, cpu_us, pid_of, pss_mib

HIVES = 300

RATE = 667
"""Beats a second of all of them: those of 10,000 hives at rest."""

INTERVAL = HIVES / RATE / 0.95
"""Seconds between two beats of one: they are early by up to a tenth, at random."""

AT_ANY_RATE = """
cd /usr/lib/python3/dist-packages/rbee
sed -i 's/^BEATS_A_SECOND = .*/BEATS_A_SECOND = 1e9/' $(grep -rl '^BEATS_A_SECOND = ' --include='*.py' .)
"""
"""The queen would have 300 hives beat 50 times a second in all, whatever the interval in rbee.conf."""

SECONDS = 10.0
SETTLE = 4.0
"""Seconds after a start, or after all have connected, until nothing is left of it."""

BEAT = f"{HIVES} hives over TLS, {RATE} beats a second: CPU of the queen for each"
KIB = f"{HIVES} hives over TLS: memory for each"
RECONNECT = f"{HIVES} hives over TLS: CPU of the queen for each that connects again"


class Remote(Subject):
    """Played by the release's own modules in a second machine."""

    name = "remote"
    lines = (
        Line(BEAT, "µs", Goal(of_before=0.3)),
        Line(KIB, "KiB", Goal(at_most=32)),
        Line(RECONNECT, "ms", Goal(at_most=2.5)),
    )

    def measure(self, release: Release, found: Found) -> None:
        """Let all join, connect again to a queen that was killed, and then beat fast."""
        with (
            Bridge() as bridge,
            Machine(release.queen(), bridge=bridge, hostname="queen") as queen,
            Machine(release.hive(), bridge=bridge, hostname="many") as machine,
        ):
            queen.run("rbeectl", "tcp", "enable", user="ada")
            created = queen.run("rbeectl", "token", "create", "--uses", str(HIVES), user="ada")
            with Playing(machine, release.many_hives(), created.stdout.strip(), HIVES) as playing:
                playing.ask("held")
                while "pending" in queen.run("rbeectl", "list-hives", user="ada").stdout:
                    pass  # their devices are asked for, for which they dial again
                self._connect_again(queen, playing, release, found)
                self._beat(queen, playing, release, found)

    def _connect_again(self, queen: Machine, playing: Playing, release: Release, found: Found) -> None:
        playing.stop()
        pid = pid_of(queen, QUEEN)
        queen.run("kill", "-KILL", pid)
        while pid_of(queen, QUEEN) in ("0", pid):
            pass
        time.sleep(SETTLE)
        cpu, memory = cpu_us(queen, QUEEN), pss_mib(queen, QUEEN)
        playing.resume()
        found.add(RECONNECT, release.column, (cpu_us(queen, QUEEN) - cpu) / HIVES / 1000)
        time.sleep(SETTLE)
        found.add(KIB, release.column, 1024 * (pss_mib(queen, QUEEN) - memory) / HIVES)

    def _beat(self, queen: Machine, playing: Playing, release: Release, found: Found) -> None:
        interval = f"[Queen]\nHeartbeatIntervalSec={1000 * INTERVAL:.0f}ms\nHeartbeatGraceSec=30\n"
        queen.run("mkdir", "-p", "/etc/rbee")
        queen.run("tee", "/etc/rbee/rbee.conf", input=interval)
        queen.run("sh", "-c", AT_ANY_RATE)
        queen.run("systemctl", "restart", QUEEN)
        playing.ask("again")
        time.sleep(SETTLE)
        cpu, beats = cpu_us(queen, QUEEN), playing.ask("beats")
        time.sleep(SECONDS)
        used, sent = cpu_us(queen, QUEEN) - cpu, playing.ask("beats") - beats
        found.add(BEAT, release.column, used / sent)
