"""rbee-fetch@.service on a real systemd: through bad servers, kills, reboots and full disks."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from testbed.machine import Machine

from tests.model_files import gguf
from tests.system.commands import HIVE, add_hive, main_pid, rbeectl, unit
from tests.system.serve.workers import JOB, hive

SERVER = Path(__file__).parents[2] / "file_server.py"
MODEL = gguf(tensors=(("token_embd.weight", (1024, 10_000), 1),))
SUM = hashlib.sha256(MODEL).hexdigest()
ONE = "rbee-fetch@one.service"
STORE = "/var/lib/rbee-models"
SYNCED = 64 * 2**20  # bytes after which what has arrived is synced
SECRET = "ada:hunter2"  # of a URL


def serve(machine: Machine, tmp_path: Path, content: bytes = MODEL, port: int = 8080, **faults: Any) -> str:
    """Serve a file in the machine, and return its URL, with a password."""
    (tmp_path / "served").write_bytes(content)
    machine.copy_in(tmp_path / "served", f"/srv/served-{port}")
    machine.copy_in(SERVER, "/root/file_server.py")
    start_server(machine, port, **faults)
    return f"http://{SECRET}@127.0.0.1:{port}/bee.gguf?token=hidden"


def start_server(machine: Machine, port: int = 8080, **faults: Any) -> None:
    machine.run("systemctl", "stop", f"web-{port}.service", check=False)
    machine.run(
        "systemd-run", f"--unit=web-{port}", "--collect", "--quiet",
        "python3", "/root/file_server.py", str(port), f"/srv/served-{port}", json.dumps(faults),
    )  # fmt: skip
    machine.run("sh", "-c", f"until ss -Hltn sport = :{port} | grep -q .; do sleep 0.05; done", timeout=20)


def fetch(machine: Machine, url: str, sha256: str | None = SUM, name: str = "one") -> dict[str, Any]:
    body = {"id": name, "model": "bee", "url": url, "sha256": sha256}
    status, view = hive(machine, "POST", "/v1/fetches", body, "--header", f"RBEE-Job-ID: {JOB}")
    assert status == 202, view
    return dict(view)


def awaited(machine: Machine, *states: str, name: str = "one", seconds: float = 60) -> dict[str, Any]:
    """The view of a fetch once it is in one of the states."""
    deadline, serial = time.monotonic() + seconds, 0
    while True:
        status, view = hive(machine, "GET", f"/v1/fetches/{name}?after={serial}&wait=5")
        assert status == 200, view
        if view["state"] in states:
            return dict(view)
        assert time.monotonic() < deadline, view
        serial = view["serial"]


def arrived(machine: Machine, least: int) -> int:
    """Bytes of the part, once there are so many."""
    deadline = time.monotonic() + 30
    while True:
        size = machine.run("stat", "-c", "%s", f"{STORE}/fetches/one.part", check=False).stdout.strip()
        if size and int(size) >= least:
            return int(size)
        assert time.monotonic() < deadline, size
        time.sleep(0.05)


def asked_from(machine: Machine, requests: int) -> list[int]:
    """The first byte that each request to the server asked for since the boot, once there are so many."""
    printed = "journalctl --boot --output=cat _SYSTEMD_UNIT=web-8080.service | sed -n 's/^Range: //p'"
    awaited = f"until [ $({printed} | wc -l) -ge {requests} ]; do sleep 0.05; done; {printed}"
    ranges = machine.run("sh", "-c", awaited, timeout=20).stdout.split()
    return [0 if one == "None" else int(one.removeprefix("bytes=").removesuffix("-")) for one in ranges]


def files(machine: Machine) -> list[str]:
    told = machine.run("find", STORE, "/var/lib/rbee-hive/fetches", "-type", "f", "-printf", "%P %u %m\n")
    return sorted(told.stdout.splitlines())


DONE = sorted(
    [
        f"{SUM}/meta.json rbee-fetch 644",
        f"{SUM}/model.gguf rbee-fetch 444",
        "fetches/one.result rbee-fetch 644",
    ]
)


def check_whole(machine: Machine, view: dict[str, Any], model: bytes = MODEL) -> None:
    sha256 = hashlib.sha256(model).hexdigest()
    assert (view["state"], view["sha256"], view["bytes"]) == ("done", sha256, len(model)), view
    assert view["path"] == f"{STORE}/{sha256}/model.gguf"
    assert view["head"]["architecture"] == "llama"
    assert machine.run("sha256sum", view["path"]).stdout.split()[0] == sha256
    assert files(machine) == [line.replace(SUM, sha256) for line in DONE]


def test_a_file_is_fetched_through_a_server_that_cuts_and_nobody_sees_the_password(
    machine: Machine, tmp_path: Path
) -> None:
    add_hive(machine)
    url = serve(machine, tmp_path, cut=3_000_000, slow=0.005)
    view = fetch(machine, url)
    assert view["state"] == "fetching"
    arrived(machine, 1)
    processes = machine.run("ps", "-eo", "user:20,args").stdout
    assert re.search(r"(?m)^rbee-fetch +\S*python3? .*rbee-fetch", processes), processes
    environment = machine.run("cat", f"/proc/{main_pid(machine, ONE)}/environ").stdout
    check_whole(machine, awaited(machine, "done", "failed"))
    whole = list(range(0, len(MODEL), 3_000_000))
    assert asked_from(machine, len(whole)) == whole

    told = machine.run("journalctl", "--output=json", "--no-pager").stdout
    status = machine.run("systemctl", "show", ONE).stdout
    for text in (processes, environment, told, status, json.dumps(view)):
        assert SECRET not in text
        assert "hidden" not in text
    lines = [str(one["MESSAGE"]) for one in machine.journal(f"RBEE_JOB_ID={JOB}")]
    assert lines[0] == "fetching bee from http://127.0.0.1:8080/bee.gguf?…"
    assert re.fullmatch(
        rf"fetched bee from http://127.0.0.1:8080/bee.gguf\?…: {len(MODEL)} bytes in [\d.]+ s", lines[1]
    )

    # Everybody may read what is there.
    assert machine.run("head", "-c4", view_path(machine), user="mallory").stdout == "GGUF"
    assert hive(machine, "DELETE", f"/v1/files/{SUM}") == (202, {"status": "removed"})
    assert files(machine) == []
    assert hive(machine, "DELETE", f"/v1/files/{SUM}") == (202, {"status": "removed"})


def view_path(machine: Machine) -> str:
    return str(awaited(machine, "done")["path"])


def test_a_fetch_goes_on_after_kills_of_itself_and_of_the_hive_a_shutdown_and_a_reboot(
    machine: Machine, tmp_path: Path
) -> None:
    add_hive(machine)
    model = gguf(tensors=(("token_embd.weight", (1024, 2 * SYNCED // 2048), 1),))
    fetch(machine, serve(machine, tmp_path, model, slow=0.05), hashlib.sha256(model).hexdigest())

    first = arrived(machine, 1_000_000)
    machine.run("systemctl", "kill", "--signal=KILL", ONE)
    assert first <= asked_from(machine, 2)[1]
    second = arrived(machine, first + 500_000)

    pid = main_pid(machine, ONE)
    machine.run("systemctl", "kill", "--signal=KILL", HIVE)
    third = arrived(machine, second + 500_000)
    assert main_pid(machine, ONE) == pid
    assert len(asked_from(machine, 2)) == 2

    assert rbeectl(machine, "shutdown").code == 0
    assert unit(machine, ONE)["ActiveState"] == "inactive"
    add_hive(machine)
    assert awaited(machine, "fetching")["state"] == "fetching"
    assert third <= asked_from(machine, 3)[2]

    # After a boot it goes on behind what was synced to the disk.
    start_server(machine, slow=0.001)
    fourth = arrived(machine, SYNCED + 4_000_000)
    machine.run("systemctl", "stop", "web-8080.service")
    machine.run("sync")
    machine.reboot()
    assert fourth < len(model)
    assert unit(machine, ONE)["ActiveState"] in ("inactive", "active")
    machine.copy_in(SERVER, "/root/file_server.py")
    start_server(machine)
    add_hive(machine)
    check_whole(machine, awaited(machine, "done", "failed"), model)
    [resumed] = asked_from(machine, 1)
    assert SYNCED <= resumed < len(model)


@pytest.mark.parametrize(
    ("faults", "sha256", "why"),
    [
        ({"html": True}, SUM, "it is a web page"),
        ({}, "0" * 64, f"is {SUM}, and not {'0' * 64}"),
        ({"promise": -1000}, SUM, "is truncated"),
        ({"statuses": [404]}, SUM, "the server answers 404 Not Found"),
        ({"user": "somebody else"}, SUM, "the server answers 401 Unauthorized"),
    ],
)
def test_what_is_refused_is_explained_and_leaves_nothing(
    machine: Machine, tmp_path: Path, faults: dict[str, Any], sha256: str, why: str
) -> None:
    add_hive(machine)
    url = serve(machine, tmp_path, **faults)
    fetch(machine, url, sha256)

    view = awaited(machine, "failed", "done")
    assert view["state"] == "failed"
    assert why in view["reason"]
    assert SECRET not in view["reason"]
    starts = [one for one in machine.journal(f"UNIT={ONE}") if str(one["MESSAGE"]).startswith("Started ")]
    assert len(starts) == 1
    assert any(why in str(one["MESSAGE"]) for one in machine.journal(f"_SYSTEMD_UNIT={ONE}"))
    # What the hive has taken note of does not leave the machine degraded.
    machine.run("sh", "-c", f"while systemctl is-failed --quiet {ONE}; do sleep 0.05; done", timeout=20)
    left = {line.split()[0] for line in files(machine)}
    assert left <= {"fetches/one.result", "fetches/one.part", "fetches/one.version"}
    assert left == {"fetches/one.result"} or "401" in why

    assert hive(machine, "DELETE", "/v1/fetches/one")[1]["state"] == "cancelled"
    assert files(machine) == []


def test_a_file_that_changes_while_it_is_fetched_is_fetched_anew(machine: Machine, tmp_path: Path) -> None:
    add_hive(machine)
    before = gguf(tensors=(("token_embd.weight", (1024, 10_001), 1),))
    (tmp_path / "other").write_bytes(MODEL)
    machine.copy_in(tmp_path / "other", "/srv/served-8080.other")
    fetch(machine, serve(machine, tmp_path, before, cut=3_000_000, change_after=1))

    check_whole(machine, awaited(machine, "done", "failed"))


def test_a_person_adds_a_model_by_its_url_and_removes_it(machine: Machine, tmp_path: Path) -> None:
    url = serve(machine, tmp_path, cut=3_000_000)
    added = rbeectl(machine, "model", "add", "bee", url, "--sha256", SUM)
    assert added.code == 0, added
    assert "fetching bee" in added.out
    assert "model bee is ready: " in added.out
    assert SECRET not in added.out + added.err
    [bee] = rbeectl(machine, "model", "list", "--json").json["models"]
    assert (bee["state"], bee["sha256"]) == ("ready", SUM)
    assert rbeectl(machine, "model", "remove", "bee").code == 0
    assert files(machine) == []

    start_server(machine, slow=0.02)
    assert rbeectl(machine, "model", "add", "bee", url, "--sha256", SUM, "--no-wait").code == 0
    watched = "timeout 10 rbeectl monitor -n 5 | grep -m 1 'fetching bee, .*%'"
    watching = machine.run("sh", "-c", watched, user="ada", timeout=20)
    assert (watching.returncode, watching.stderr) == (0, "")
    told = "until rbeectl model list | grep -o 'fetching.*%'; do sleep 0.05; done"
    assert re.search(r"\d+ ?%", machine.run("sh", "-c", told, user="ada", timeout=20).stdout)
    assert rbeectl(machine, "model", "remove", "bee").code == 0
    assert files(machine) == []
    assert rbeectl(machine, "model", "list", "--json").json["models"] == []


@pytest.mark.parametrize("says_how_much", [True, False])
def test_a_disk_that_is_too_small_is_named_and_not_left_full(
    machine: Machine, tmp_path: Path, *, says_how_much: bool
) -> None:
    add_hive(machine)
    machine.run("install", "-d", "-o", "rbee-fetch", "-g", "rbee-fetch", STORE)
    machine.run("sh", "-c", f"mount -t tmpfs -o size=72M,mode=0755,uid=$(id -u rbee-fetch) tmpfs {STORE}")
    url = serve(machine, tmp_path, length=says_how_much)
    fetch(machine, url)

    view = awaited(machine, "failed", "done")
    assert view["state"] == "failed"
    assert "no space" in view["reason"]
    if says_how_much:
        assert f"it needs {len(MODEL)} more bytes" in view["reason"]
    assert [line.split()[0] for line in files(machine)] == ["fetches/one.result"]


def test_a_fetch_that_is_cancelled_leaves_nothing(machine: Machine, tmp_path: Path) -> None:
    add_hive(machine)
    url = serve(machine, tmp_path, slow=0.05)
    fetch(machine, url)
    arrived(machine, 100_000)

    status, view = hive(machine, "DELETE", "/v1/fetches/one")
    assert (status, view["state"]) == (200, "cancelled"), view
    assert files(machine) == []
    assert unit(machine, ONE)["ActiveState"] == "inactive"


def test_a_file_of_the_machine_is_copied(machine: Machine, tmp_path: Path) -> None:
    add_hive(machine)
    (tmp_path / "bee").write_bytes(MODEL)
    machine.copy_in(tmp_path / "bee", "/srv/bee.gguf")
    fetch(machine, "file:///srv/bee.gguf", None)

    check_whole(machine, awaited(machine, "done", "failed"))


def test_the_unit_is_exposed_by_little(machine: Machine) -> None:
    told = machine.run("systemd-analyze", "security", "--no-pager", ONE, check=False).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)

    assert found, told
    assert float(found[1]) <= 1.1, told
    assert machine.run("systemd-analyze", "verify", "--man=no", ONE, check=False).stderr == ""
