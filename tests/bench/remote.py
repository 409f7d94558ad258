"""Hives on another machine, over TLS: what their connections and heartbeats cost the queen."""

from __future__ import annotations

import time

from testbed.bridge import Bridge
from testbed.machine import Machine

from tests.bench.lines import Goal, Line, Results
from tests.bench.playing import Playing
from tests.bench.subject import Release, Subject
from tests.bench.usage import QUEEN, cpu_us, pid_of, pss_mib

HIVES = 300

RATE = 667
"""Heartbeats a second of all hives together: those of 10,000 at 15 s."""

INTERVAL = HIVES / RATE / 0.95
"""Seconds between two heartbeats of a hive: each is early by up to a tenth, at random."""

AT_ANY_RATE = """
cd /usr/lib/python3/dist-packages/rbee
sed -i 's/^BEATS_A_SECOND = .*/BEATS_A_SECOND = 1e9/' $(grep -rl '^BEATS_A_SECOND = ' --include='*.py' .)
"""
"""Lifts the limit of heartbeats a second, by which the queen would lengthen the interval of rbee.conf."""

SECONDS = 10.0
SETTLE = 4.0
"""Seconds until the work of a start, or of many new connections, is over."""

BEAT = f"{HIVES} hives over TLS, {RATE} beats a second: CPU of the queen for each"
KIB = f"{HIVES} hives over TLS: memory for each"
RECONNECT = f"{HIVES} hives over TLS: CPU of the queen for each that connects again"


class Remote(Subject):
    """300 hives, played by the release's own modules in a second machine."""

    name = "remote"
    lines = (
        Line(BEAT, "µs", Goal(of_before=0.3)),
        Line(KIB, "KiB", Goal(at_most=32)),
        Line(RECONNECT, "ms", Goal(at_most=2.5)),
    )

    def measure(self, release: Release, results: Results) -> None:
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
                    pass  # the queen asks for their devices, over connections that the hives dial
                self._connect_again(queen, playing, release, results)
                self._beat(queen, playing, release, results)

    def _connect_again(self, queen: Machine, playing: Playing, release: Release, results: Results) -> None:
        playing.stop()
        pid = pid_of(queen, QUEEN)
        queen.run("kill", "-KILL", pid)
        while pid_of(queen, QUEEN) in ("0", pid):
            pass
        time.sleep(SETTLE)
        cpu, memory = cpu_us(queen, QUEEN), pss_mib(queen, QUEEN)
        playing.resume()
        results.add(RECONNECT, release.column, (cpu_us(queen, QUEEN) - cpu) / HIVES / 1000)
        time.sleep(SETTLE)
        results.add(KIB, release.column, 1024 * (pss_mib(queen, QUEEN) - memory) / HIVES)

    def _beat(self, queen: Machine, playing: Playing, release: Release, results: Results) -> None:
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
        results.add(BEAT, release.column, used / sent)
