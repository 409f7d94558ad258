"""Requests drawn from the OpenAPI documents of a running queen and hive, against them, over their sockets."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from requests.adapters import HTTPAdapter
from schemathesis import GenerationMode, Response
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from testbed.machine import Machine
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from rbee.wire.routes import HiveRoutes, LeaseRoutes, QueenRoutes
from tests.system.commands import HIVE, QUEEN, add_hive, job_of, main_pid, rbeectl, rows

REQUESTS = 25
"""How many of each operation, as its document allows them, and as many as it does not."""

LEFT_OUT = {"shutdown", "feed"}
"""The first really has systemd stop the queen, or the hive, that the rest is asked of; test_cascade.py has
it. The other has no end; tests/integration/test_openapi.py has what it answers and refuses."""

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


class _Connection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


class _Pool(HTTPConnectionPool):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def _new_conn(self) -> _Connection:
        return _Connection(self._path)


class UnixAdapter(HTTPAdapter):
    """requests over a Unix socket, whatever the URL's host."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._pool = _Pool(path)

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        return self._pool


def session_of(machine: Machine, name: str) -> requests.Session:
    """root's, who may call everything, on the machine's own socket."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", UnixAdapter(Path(f"/proc/{machine.leader}/root/run/rbee/{name}.sock")))
    return session


def check_problem(operation: Any, answer: Response) -> None:
    """A refusal is one that the document has, and a problem document that names what is wrong."""
    assert str(answer.status_code) in operation.definition.raw["responses"], answer.text
    assert answer.headers["content-type"] == ["application/problem+json"]
    problem = answer.json()
    assert problem["type"].startswith("urn:rbee:problem:")
    assert problem["title"]
    assert problem["status"] == answer.status_code
    assert answer.text.isprintable()  # on the wire, where whoever has curl reads it
    if problem["type"] == "urn:rbee:problem:bad-input":
        # Where nothing in the body can be told apart, the body itself is named.
        assert (problem.get("field") or "the body") in problem["detail"], problem


class Asking:
    """Asks the operations of a document, and counts what came back."""

    def __init__(self, session: requests.Session) -> None:
        self.document = session.get("http://localhost/v1/openapi.json", timeout=10).json()
        self._session = session
        schema = schemathesis.openapi.from_dict(self.document)
        found = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
        self.operations = {str(one.definition.raw["operationId"]): one for one in found}
        self.statuses: dict[str, set[int]] = {name: set() for name in self.operations}

    def takes_something(self, name: str) -> bool:
        """Is there something that could be wrong with a request?"""
        return bool(self.operations[name].definition.raw.keys() & {"parameters", "requestBody"})

    def ask(self, name: str, mode: GenerationMode, *, accept: str = "*/*", **places: Any) -> None:
        """REQUESTS requests of an operation, each answer checked; `places` are given instead of drawn."""
        operation = self.operations[name]

        @settings(
            max_examples=REQUESTS,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(operation.as_strategy(mode, **places))
        def holds(case: Any) -> None:
            answer = case.call("http://localhost", self._session, {"Accept": accept}, timeout=10)
            case.validate_response(answer, checks=CHECKS)
            if answer.status_code >= 400:
                check_problem(operation, answer)
            self.statuses[name].add(answer.status_code)

        holds()


def test_the_queen_keeps_to_her_document_whatever_is_asked_of_her(machine: Machine) -> None:
    add_hive(machine)
    before, pids = rows(machine), (main_pid(machine, QUEEN), main_pid(machine, HIVE))
    asking = Asking(session_of(machine, "queen"))
    assert asking.operations.keys() == {route.name for route in (*QueenRoutes.ALL, *LeaseRoutes.ALL)}

    for name in asking.operations.keys() - LEFT_OUT:
        asking.ask(name, GenerationMode.POSITIVE)
        if asking.takes_something(name):
            asking.ask(name, GenerationMode.NEGATIVE)
    # What there is, too: the story of a job, told at once and later.
    job, stream = job_of(machine), "text/event-stream"
    for name in ("job", "events"):
        asking.ask(name, GenerationMode.POSITIVE, path_parameters={"job_id": job})
    asking.ask("events", GenerationMode.NEGATIVE, path_parameters={"job_id": job})
    for name in ("hive", "sample"):
        asking.ask(name, GenerationMode.POSITIVE, path_parameters={"hive_id": "localhost"})
    asking.ask("remove_hive", GenerationMode.POSITIVE, accept=stream)
    asking.ask("add_hive", GenerationMode.POSITIVE, accept=stream, body={"host": "localhost"})

    print(asking.statuses)
    assert asking.statuses["add_hive"] >= {200, 400, 422}
    assert asking.statuses["heartbeat"] >= {400, 404}
    assert asking.statuses["hive"] >= {200, 400, 404}
    assert asking.statuses["sample"] >= {200, 400, 404}
    assert asking.statuses["job"] >= {200, 404}
    assert asking.statuses["last_events"] == {200, 400}
    assert asking.statuses["events"] >= {200, 400, 404}
    assert asking.statuses["remove_hive"] >= {200, 202, 400}
    assert (main_pid(machine, QUEEN), main_pid(machine, HIVE)) == pids
    (hive,), (row,) = rows(machine), before
    assert (hive["id"], hive["port"], hive["created_at_ms"]) == (row["id"], row["port"], row["created_at_ms"])
    assert rbeectl(machine, "list-hives", "--json").json["hives"][0]["state"] == "online"


def test_the_hive_keeps_to_its_document_whatever_is_asked_of_it(machine: Machine) -> None:
    add_hive(machine)
    pid = main_pid(machine, HIVE)
    asking = Asking(session_of(machine, "hive"))
    assert asking.operations.keys() == {route.name for route in HiveRoutes.ALL}

    for name in asking.operations.keys() - LEFT_OUT:
        asking.ask(name, GenerationMode.POSITIVE)
        if asking.takes_something(name):
            asking.ask(name, GenerationMode.NEGATIVE)

    print(asking.statuses)
    assert asking.statuses["devices"] >= {200, 400}
    assert main_pid(machine, HIVE) == pid
    assert rbeectl(machine, "list-hives", "--json").json["hives"][0]["state"] == "online"
