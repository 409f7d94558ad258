"""The journal, as journalctl(1) shows it to this user."""

from __future__ import annotations

from rbee.scope import SYSTEM, Scope


def journal_tail(*matches: str, lines: int = 5, scope: Scope = SYSTEM) -> list[str]:
    """The last lines of the journal that match; [] if the caller may not read them, or after 3 s."""
    import subprocess  # only for failures, and to show a hive

    command = scope.command("journalctl", "--quiet", "--no-pager", f"--lines={lines}", *matches)
    try:
        shown = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=3)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return shown.stdout.splitlines() if shown.returncode == 0 else []
