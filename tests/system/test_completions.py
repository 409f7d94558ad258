"""The completions in the shells that people type in, with the names that rbeectl prints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import PurePath

import pytest
from testbed.debian import install_from_archive
from testbed.machine import Machine
from testbed.tiny_model import says

from tests.system.commands import QUEEN, active, add_hive, rbeectl
from tests.system.serve.served import write_model

NAMES = {
    "rbeectl show ": ["bee", "localhost"],
    "rbeectl show -p State lo": ["localhost"],
    "rbeectl model show ": ["bee"],
    "rbeectl list-workers b": ["bee"],
    "rbeectl label ": ["localhost"],
}
"""What is typed, and the names that are offered at its end while the queen is awake."""

WORDS = {
    "rbeectl list-": ["list-devices", "list-engines", "list-hives", "list-workers"],
    "rbeectl --json wa": ["wake"],
    "rbeectl --timeout 5s sho": ["show"],
    "rbeectl add-hive ": ["localhost"],
    "rbeectl catalog ": ["backup", "check", "restore"],
    "rbeectl model ": ["add", "list", "remove", "show"],
    "rbeectl help list-h": ["list-hives"],
    "rbeectl show -p ": [],
    "rbeectl catalog backup --fo": ["--force"],
    "rbeectl logs --fol": ["--follow"],
    "rbeectl model add bee2 /home/ada/b": ["bee.gguf"],
    "rbeectl catalog restore /home/ada/b": ["bee.gguf"],
    "rbeectl gateway enable --tls-cert /home/ada/b": ["bee.gguf"],
}

TYPE_IN_ZSH = r'''
import json, os, pty, signal, sys, tempfile, threading

told = os.path.join(tempfile.mkdtemp(), "told")
os.mkfifo(told)
shell, terminal = pty.fork()
if shell == 0:
    os.environ["TERM"] = "dumb"
    os.execvp("zsh", ["zsh", "-f", "-i"])

# zsh's own functions also call compadd with -O, -A or -D, to ask which words match, and offer none.
SETUP = """
autoload -Uz compinit; compinit -u -D
offered=()
compadd() {
    if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\\ * ]]; then
        local -a matches; builtin compadd -A matches "$@"; offered+=("${matches[@]}")
    fi
    builtin compadd "$@"
}
tell() { print -rl -- $offered > TOLD }
tab() { offered=(); comppostfuncs=(tell); zle complete-word; zle kill-whole-line }
zle -N tab; bindkey '^I' tab
print -n > TOLD
"""

def read():
    signal.alarm(20)  # for each line; it ends this program
    with open(told) as answer:
        return answer.read().split()

def discard():
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass  # the shell has ended

threading.Thread(target=discard, daemon=True).start()
os.write(terminal, SETUP.replace("TOLD", told).encode())
read()
offered = {}
for line in sys.argv[1:]:
    os.write(terminal, line.encode() + b"\t")
    offered[line] = read()
os.kill(shell, signal.SIGHUP)
print(json.dumps(offered))
'''
"""Types lines into a zsh on a terminal, each with a tab at its end, and prints what was offered by line."""

Offers = dict[str, list[str]]


def bash_offers(machine: Machine, *lines: str) -> Offers:
    script = (
        "source /usr/share/bash-completion/completions/rbeectl;"
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _rbeectl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return {
        line: machine.run("bash", "-c", script, "bash", *line.split(" "), user="ada").stdout.split()
        for line in lines
    }


def zsh_offers(machine: Machine, *lines: str) -> Offers:
    told = machine.run("python3", "-c", TYPE_IN_ZSH, *lines, user="ada", timeout=60)
    offers: Offers = json.loads(told.stdout)
    return offers


def fish_offers(machine: Machine, *lines: str) -> Offers:
    offers = {}
    for line in lines:
        command = f"complete --do-complete {shlex.quote(line)}"
        told = machine.run("fish", "--private", "--command", command, user="ada").stdout
        offers[line] = [match.split("\t")[0] for match in told.splitlines()]
    return offers


def named(offers: Offers) -> Offers:
    """In one order, and of a path its last part: zsh offers only that."""
    return {line: sorted(PurePath(match).name for match in matches) for line, matches in offers.items()}


@pytest.mark.parametrize("offers", [bash_offers, zsh_offers, fish_offers])
def test_a_shell_offers_what_fits_and_wakes_nobody(machine: Machine, offers: Callable[..., Offers]) -> None:
    shell = offers.__name__.removesuffix("_offers")
    if shell != "bash":
        install_from_archive(machine, shell)
    write_model(machine, "/home/ada/bee.gguf", says("I am bee."))

    asleep = named(offers(machine, *NAMES))
    assert active(machine, QUEEN) == ["inactive"]
    add_hive(machine)
    assert rbeectl(machine, "model", "add", "bee", "/home/ada/bee.gguf").code == 0
    awake = named(offers(machine, *NAMES, *WORDS))

    assert asleep == {line: [] for line in NAMES}
    assert awake == NAMES | WORDS
