"""ssh from the operator, ada at the queen's machine, to the others, and a terminal of hers."""

from __future__ import annotations

import re

from testbed.debian import add_person
from testbed.machine import Machine

from tests.system.commands import Answer
from tests.system.fleet.fleet import Fleet

TERMINAL = """
import fcntl, os, pty, struct, sys, termios
pid, terminal = pty.fork()
if pid == 0:
    # 24 lines of 80 columns, before the command looks.
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.execvp(sys.argv[3], sys.argv[3:])
answers, seen, asked = [answer for answer in sys.argv[1].split("\\n") if answer], b"", 0
interrupt_at = sys.argv[2].encode()
while True:
    try:
        chunk = os.read(terminal, 65536)
    except OSError:
        break
    if not chunk:
        break
    seen += chunk
    new = seen[asked:]
    if answers and new.rstrip().endswith((b":", b"?")) and (b"assword" in new or b"(yes/no" in new):
        asked = len(seen)
        os.write(terminal, answers.pop(0).encode() + b"\\n")
    if interrupt_at and interrupt_at in seen:
        interrupt_at = b""
        os.write(terminal, b"\\x03")
sys.stdout.buffer.write(seen)
sys.stdout.flush()
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
sys.exit(code if code >= 0 else 128 - code)  # as a shell has it
"""
"""Runs a command on a terminal of its own; types an answer at each question for a password or a yes, and ^C
when a text is there."""


def give_ssh(fleet: Fleet, machine: Machine, user: str = "root") -> None:
    """ada at the queen's machine may log in there, as this user."""
    let_in(fleet.queen, "ada", machine, user)


def let_in(origin: Machine, person: str | None, machine: Machine, user: str = "root") -> None:
    """This person at `origin`, root for None, may log in at the machine as this user."""
    machine.run("ssh-keygen", "-A")
    machine.run("systemctl", "start", "ssh.service")
    make = "test -e ~/.ssh/id_ed25519 || ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519"
    origin.run("sh", "-c", make, user=person)
    origin.run("sh", "-c", "echo StrictHostKeyChecking accept-new >~/.ssh/config", user=person)
    key = origin.run("sh", "-c", "cat ~/.ssh/id_ed25519.pub", user=person).stdout
    home = "/root" if user == "root" else f"/home/{user}"
    machine.run(
        "install", "-D", "-o", user, "-m", "0600", "/dev/stdin", f"{home}/.ssh/authorized_keys", input=key
    )
    machine.run("chown", "-R", f"{user}:", f"{home}/.ssh")


def add_sudoer(fleet: Fleet, machine: Machine, user: str = "grace", password: str = "secret") -> None:
    """As Debian's installer makes the first user: in group sudo, whose members type their password."""
    add_person(machine, user)
    machine.run("chpasswd", input=f"{user}:{password}\n")
    machine.run("adduser", user, "sudo")
    give_ssh(fleet, machine, user)


def on_terminal(
    machine: Machine,
    *argv: str,
    answers: tuple[str, ...] = (),
    interrupt_at: str = "",
    user: str | None = "ada",
    timeout: float = 120,
    with_escapes: bool = False,
) -> Answer:
    """What a person sees there, all of it in `out`; what draws is left out, unless `with_escapes`."""
    done = machine.run(
        "python3", "-c", TERMINAL, "\n".join(answers), interrupt_at, *argv,
        user=user, env={"TERM": "xterm"}, check=False, timeout=timeout,
    )  # fmt: skip
    out = done.stdout if with_escapes else re.sub(r"\033\[[0-9;]*[A-Za-z]", "", done.stdout)
    return Answer(done.returncode, out, done.stderr)
