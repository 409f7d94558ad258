"""The demonstration of one machine: a person installs rbee, adds a hive, looks around, and shuts down."""

import json
import os
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path

from testbed.debian import add_person, install
from testbed.machine import Machine
from testbed.tiny_model import says, write
from testbed.trees import ENGINE_INSIDE, Trees, use_engine

from demonstration.steps import StepFailed, done, expect_states, prompt, say, show

SERVICES = ("queen-rbee.service", "rbee-hive.service")
GATEWAY = "rbee-gateway.service"
UNITS = (*SERVICES, GATEWAY, "queen-rbee.socket", "rbee-hive.socket", "rbee-gateway.socket", "rbee.target")
USERS = ("queen-rbee", "rbee-hive", "rbee-gateway")
SENTENCE = "I am bee, and I run on this machine."
NARRATED = "Sending first heartbeat to queen"


def demonstrate_machine(trees: Trees, debs: list[Path], suite: str, *, wants_shell: bool) -> None:
    """Shows rbee on one machine, from the installation to the shutdown."""
    tree = trees.base(suite)
    bind, bind_ro = nvidia_paths()
    bind_ro.append(f"{trees.engine()}:{ENGINE_INSIDE}")
    began = time.monotonic()
    say(f"⏳ booting {suite}...")
    with Machine(tree, bind=bind, bind_ro=bind_ro) as machine:
        version = machine.run("systemctl", "--version").stdout.splitlines()[0]
        done(f"booted: {version}", began)
        install_as_a_person(machine, debs)
        use_engine(machine)
        bring_model(machine)
        if wants_shell:
            play(machine)
        else:
            add_hive(machine)
            look_around(machine, gpus=sum(Path(path).name[6:].isdigit() for path in bind))
            serve_a_model(machine)
            shut_down(machine)
        say("\n🧹 cleaning up the machine...")


def install_as_a_person(machine: Machine, debs: list[Path]) -> None:
    """Installs the packages with apt, as in the README."""
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
    """Adds localhost, and checks the story."""
    began = time.monotonic()
    say("\n🐝 adding localhost to the hive catalog...")
    output = show(machine, "rbeectl", "add-hive", "localhost", user="ada")
    if NARRATED not in output:
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
    """Shows units, journal, hives and devices."""
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
    output = show(
        machine, "journalctl", "--no-pager", "--output=short", "-u", "queen-rbee", "-u", "rbee-hive"
    )
    if NARRATED not in output:
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


def bring_model(machine: Machine) -> None:
    """Puts a tiny model into ada's home, which answers SENTENCE whatever it is asked."""
    with tempfile.TemporaryDirectory(prefix="rbee-model-") as scratch:
        file = Path(scratch, "bee.gguf")
        write(file, says(SENTENCE))
        machine.copy_in(file, "/home/ada/bee.gguf")
    machine.run("chown", "ada:", "/home/ada/bee.gguf")


def serve_a_model(machine: Machine) -> None:
    """Adds a model, serves it, and asks it: with rbeectl, and as any OpenAI client does."""
    began = time.monotonic()
    say("\n🧠 serving a model...")
    show(machine, "rbeectl", "model", "add", "bee", "/home/ada/bee.gguf", user="ada")
    show(machine, "rbeectl", "serve", "bee", user="ada")
    if SENTENCE not in show(machine, "rbeectl", "ask", "bee", "who are you?", user="ada"):
        raise StepFailed(f"The model should answer '{SENTENCE}'.")
    question = json.dumps({"model": "bee", "messages": [{"role": "user", "content": "who are you?"}]})
    asked = show(
        machine, "curl", "--silent", "--show-error", "--unix-socket", "/run/rbee/openai.sock",
        "http://rbee/v1/chat/completions", "--data", question, user="ada",
    )  # fmt: skip
    if SENTENCE not in asked:
        raise StepFailed(f"The model should answer '{SENTENCE}' to curl.")
    if "ready" not in show(machine, "rbeectl", "list-workers", user="ada"):
        raise StepFailed("list-workers lists no worker that is ready.")
    done("one model, one worker, two clients", began)


def shut_down(machine: Machine) -> None:
    """Shuts down, and checks that everything is off."""
    began = time.monotonic()
    say("\n🌙 shutting down: the queen, and with it the hive and the worker...")
    show(machine, "rbeectl", "shutdown", user="ada")
    expect_states(machine, "inactive", UNITS)
    for user in USERS:
        if left := machine.run("pgrep", "--list-full", "--uid", user, check=False).stdout:
            raise StepFailed(f"After the shutdown {user} still runs:\n{left}")
    if left := machine.run("pgrep", "--list-full", "--full", ENGINE_INSIDE, check=False).stdout:
        raise StepFailed(f"After the shutdown an engine still runs:\n{left}")
    done("the queen, the hive, the gateway and their sockets are stopped, nothing of theirs runs", began)


def play(machine: Machine) -> None:
    """Opens a shell for a user in group rbee."""
    say("\n🐝 You are ada, in group rbee; leave with exit. The machine is gone then. Try:")
    say(
        "     rbeectl add-hive localhost\n     rbeectl model add bee ./bee.gguf\n     rbeectl serve bee\n"
        "     rbeectl ask bee 'who are you?'\n"
        "     systemctl status queen-rbee rbee-hive\n     rbeectl shutdown\n"
    )
    machine.interactive("su", "--login", "ada")


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
