"""rbeectl doctor where models, engines, workers and the store have faults: each is named with a cure."""

from __future__ import annotations

from testbed.machine import Machine
from testbed.tiny_model import says

from tests.system.commands import active, add_hive, override, put, rbeectl
from tests.system.serve.served import chat, serve_model, serve_rude, succeed

STORE = "/var/lib/rbee-models"
ENGINE = "/usr/local/bin/rude-engine"
LOST = "rbee-worker@lost-1.service"


def break_all(machine: Machine) -> None:
    """A worker has failed, an engine, a model's file and room for models are missing, and an orphan runs."""
    override(machine, "rbee-worker@.service", "[Unit]\nStartLimitBurst=1\n")
    serve_rude(machine, "rude", {"exits": 3})
    serve_model(machine, "bee", says("I am bee one."))
    assert chat(machine, "rude").status == 502
    machine.run("mv", ENGINE, "/srv/engine")
    machine.run("mv", "/srv/bee.gguf", "/srv/away")
    machine.run("sh", "-c", f"mkdir -p {STORE}; mount -t tmpfs -o size=8M tmpfs {STORE}")
    machine.run("sh", "-c", f"cat /dev/zero >{STORE}/filler", check=False)
    put(machine, f"/run/systemd/system/{LOST}", "[Service]\nSlice=rbee.slice\nExecStart=sleep 600\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", LOST)


FAULTS = {
    "serving: the file of model bee is gone: /srv/bee.gguf on localhost": [
        "hint: Put it back; or: rbeectl model remove bee",
    ],
    f"serving: localhost has no engine for model rude (rude): rude: {ENGINE} was not found": [
        "hint: rbeectl list-engines",
    ],
    "serving: worker rude-1 of model rude has failed: ": [
        "hint: rbeectl status rude",
        "hint: rbeectl logs rude",
    ],
    f"serving: {LOST} runs, and no hive claims it": [f"try: systemctl stop {LOST}"],
    f"store: the disk of {STORE} is nearly full: 0.0 KiB of 8.0 MiB are free": [
        f"hint: df -h {STORE}; rbeectl model list",
    ],
}
"""What doctor finds, and what it then offers."""


def mend_all(machine: Machine) -> None:
    """What a person does about them."""
    machine.run("systemctl", "stop", LOST)
    machine.run("mv", "/srv/engine", ENGINE)
    machine.run("mv", "/srv/away", "/srv/bee.gguf")
    machine.run("rm", f"{STORE}/filler")
    succeed(machine, "unserve", "rude")


def test_each_fault_of_what_serves_models_is_named_with_a_cure(serving: Machine) -> None:
    add_hive(serving)
    break_all(serving)
    found = rbeectl(serving, "doctor", user=None)
    assert found.code == 1, found
    _, *problems = found.out.split("\nproblem  ")
    assert len(problems) == len(FAULTS)
    for problem, (fault, cures) in zip(problems, FAULTS.items(), strict=True):
        first, *more = problem.splitlines()
        assert first.startswith(fault), found.out
        assert [line.strip() for line in more if line.startswith("  ")] == cures, found.out

    mend_all(serving)
    mended = rbeectl(serving, "doctor", user=None)
    assert (mended.code, mended.lines[-1]) == (0, "All is well."), mended
    assert active(serving, LOST) == ["inactive"]
    assert chat(serving, "bee").text == "I am bee one."
