"""The gateway as a service: waking, sleeping, who may use it, and TCP."""

from __future__ import annotations

import json
import re
import time
from typing import Any

from testbed.machine import Machine

from tests.self_signed import self_signed
from tests.system.commands import active, rbeectl

SERVICE, SOCKET, TCP = "rbee-gateway.service", "rbee-gateway.socket", "rbee-gateway-tcp.socket"
UNIX = "/run/rbee/openai.sock"
OPEN = "/var/lib/queen-rbee/gateway-tcp"


def curl(machine: Machine, *arguments: str, user: str | None = "ada") -> tuple[int, Any]:
    """The status and the JSON of an answer; the status is 0 if nobody answers."""
    line = ["curl", "--silent", "--max-time", "20", "--write-out", "\n%{http_code}", *arguments]
    content, _, status = machine.run(*line, user=user, check=False).stdout.rpartition("\n")
    return int(status), json.loads(content) if content.startswith("{") else content


def over_unix(machine: Machine, path: str, *arguments: str, user: str | None = "ada") -> tuple[int, Any]:
    return curl(machine, "--unix-socket", UNIX, f"http://rbee{path}", *arguments, user=user)


def drop_in(machine: Machine, unit: str, *lines: str) -> None:
    content = "\n".join([*lines, ""])
    folder = f"/etc/systemd/system/{unit}.d"
    machine.run("sh", "-c", f"mkdir -p {folder} && cat >{folder}/50-test.conf", input=content)
    machine.run("systemctl", "daemon-reload")


def open_tcp(machine: Machine) -> None:
    machine.run("sh", "-c", f"install -d -o queen-rbee -m 700 {OPEN.rpartition('/')[0]} && touch {OPEN}")
    machine.run("systemctl", "stop", SERVICE)
    machine.run("systemctl", "start", TCP)


def test_the_first_client_wakes_it_and_only_the_group_may(machine: Machine) -> None:
    assert active(machine, SERVICE, SOCKET, TCP) == ["inactive", "active", "inactive"]
    assert machine.run("stat", "-c", "%a %U %G", UNIX).stdout.strip() == "660 root rbee"
    assert over_unix(machine, "/health", user="nobody")[0] == 0
    assert active(machine, SERVICE) == ["inactive"]

    assert over_unix(machine, "/health")[1]["status"] == "ok"

    assert active(machine, SERVICE) == ["active"]
    status = machine.run("systemctl", "show", "-P", "StatusText", SERVICE).stdout.strip()
    assert status == "requests: 0 in flight"
    found = over_unix(machine, "/nothing")
    assert found[0] == 404
    assert found[1]["error"]["type"] == "invalid_request_error"
    assert "rbee_gateway_requests_in_flight 0.0" in over_unix(machine, "/metrics")[1]


def test_a_group_member_may_stop_it_and_a_shutdown_closes_its_sockets(machine: Machine) -> None:
    over_unix(machine, "/health")
    machine.run("systemctl", "stop", SERVICE, user="ada")
    assert active(machine, SERVICE, SOCKET) == ["inactive", "active"]

    over_unix(machine, "/health")
    assert rbeectl(machine, "shutdown").code == 0

    assert active(machine, SERVICE, SOCKET) == ["inactive", "inactive"]
    assert machine.run("test", "-e", UNIX, check=False).returncode == 1
    machine.run("systemctl", "start", "rbee.target")
    assert over_unix(machine, "/health")[0] == 200


def test_it_ends_when_it_is_idle_and_the_next_client_wakes_it(machine: Machine) -> None:
    machine.run("mkdir", "-p", "/etc/rbee/rbee.conf.d")
    machine.run("sh", "-c", "printf '[Gateway]\\nIdleExitSec=5s\\n' >/etc/rbee/rbee.conf.d/50-idle.conf")
    assert over_unix(machine, "/health")[0] == 200

    deadline = time.monotonic() + 15
    while active(machine, SERVICE) != ["inactive"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert machine.run("systemctl", "show", "-P", "Result", SERVICE).stdout.strip() == "success"
    assert over_unix(machine, "/health")[0] == 200


def test_it_is_killed_and_the_next_client_is_answered(machine: Machine) -> None:
    over_unix(machine, "/health")
    machine.run("systemctl", "kill", "--signal=KILL", SERVICE)

    assert over_unix(machine, "/health")[0] == 200


def test_tcp_needs_a_key(machine: Machine) -> None:
    open_tcp(machine)

    status, answer = curl(machine, "http://127.0.0.1:8510/v1/models")
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert curl(machine, "http://127.0.0.1:8510/health")[0] == 401
    status, answer = curl(machine, "http://127.0.0.1:8510/v1/models", "-H", "Authorization: Bearer wrong")
    assert status in (401, 404), answer
    assert over_unix(machine, "/health")[0] == 200


def test_plain_http_beyond_this_machine_is_refused_and_tls_is_not(machine: Machine) -> None:
    drop_in(machine, TCP, "[Socket]", "ListenStream=", "ListenStream=0.0.0.0:8510")
    open_tcp(machine)

    assert machine.run("systemctl", "start", SERVICE, check=False).returncode != 0

    assert machine.run("systemctl", "show", "-P", "ExecMainStatus", SERVICE).stdout.strip() == "78"
    told = machine.run("systemctl", "show", "-P", "StatusText", SERVICE).stdout
    assert "listens on 0.0.0.0 without TLS" in told
    assert "gateway enable" in told

    certificate, key = self_signed()
    machine.run("sh", "-c", "cat >/root/cert.pem", input=certificate)
    machine.run("sh", "-c", "umask 077 && cat >/root/key.pem", input=key)
    drop_in(
        machine,
        SERVICE,
        "[Service]",
        "LoadCredential=rbee.gateway.crt:/root/cert.pem",
        "LoadCredential=rbee.gateway.key:/root/key.pem",
    )
    machine.run("systemctl", "reset-failed", SERVICE, SOCKET, TCP)
    machine.run("systemctl", "start", SOCKET, TCP)

    secure = ("https://127.0.0.1:8510/v1/models", "--cacert", "/root/cert.pem")
    status, answer = curl(machine, *secure, user=None)
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert over_unix(machine, "/health")[0] == 200


def test_a_person_opens_it_over_tls_and_closes_it_again_and_a_key_is_of_use_only_meanwhile(
    machine: Machine,
) -> None:
    for path, content in zip(("/root/cert.pem", "/root/key.pem"), self_signed(), strict=True):
        machine.run("sh", "-c", f"umask 077; cat >{path}", input=content)
    tls = ("--tls-cert", "/root/cert.pem", "--tls-key", "/root/key.pem")
    opened = rbeectl(machine, "gateway", "enable", "--listen", "0.0.0.0:8511", *tls, user=None)
    assert opened.code == 0, opened
    assert "The gateway listens on 0.0.0.0:8511, with HTTPS" in opened.out
    key = rbeectl(machine, "key", "create", "alice", "--json").json["text"]
    models = ("https://127.0.0.1:8511/v1/models", "--cacert", "/root/cert.pem")
    with_key = (*models, "-H", f"Authorization: Bearer {key}")

    assert curl(machine, *with_key, user=None) == (200, {"object": "list", "data": []})
    status, answer = curl(machine, *models, user=None)
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert curl(machine, "http://127.0.0.1:8511/health")[0] == 0

    assert rbeectl(machine, "gateway", "disable").code == 0
    assert curl(machine, *with_key, user=None) == (0, "")
    assert machine.run("ss", "-Hltn", "sport = :8511").stdout == ""
    assert over_unix(machine, "/health")[0] == 200
    # It is the socket that is closed: the key is kept for the next time.
    assert rbeectl(machine, "gateway", "enable").code == 0
    assert curl(machine, *with_key, user=None)[0] == 200


def test_it_is_exposed_by_at_most_1_0_and_cannot_do_what_operators_may(machine: Machine) -> None:
    told = machine.run("systemd-analyze", "security", "--no-pager", SERVICE).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert found
    assert float(found[1]) <= 1.0
    verified = machine.run("systemd-analyze", "verify", "--man=no", SERVICE, SOCKET, TCP, check=False)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    for verb in ("start", "stop"):
        tried = machine.run(
            "systemctl", "--no-ask-password", verb, "queen-rbee.service", user="rbee-gateway", check=False
        )
        assert tried.returncode != 0
