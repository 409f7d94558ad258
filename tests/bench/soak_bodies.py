"""Random requests to a queen and a hive: both must go on as before, and each refusal must say why."""

from __future__ import annotations

import json
import random
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from testbed.machine import Machine

from rbee.errors import PROBLEM_PREFIX, BadInput
from rbee.wire.codec import decode
from rbee.wire.daemon import Problem
from rbee.wire.hives import AddHive
from rbee.wire.routes import HiveRoutes, QueenRoutes, Route
from tests.bench.booted import booted
from tests.system.commands import CATALOG, HIVE, QUEEN, add_hive, await_state, job_of, main_pid, rows

ANSWER_SECONDS = 20.0
"""In which a request must be answered to its end: twice as long as the wait for a missing body."""

STREAM = b"content-type: text/event-stream"

BUSY = {f"{PROBLEM_PREFIX}too-many"}
"""The 503 that is documented for a queen with too much to do; no other answer may be 5xx."""

NAMES = (
    "localhost", "", "x", "-", "..", "a b", "a/b", "LOCALHOST", "x" * 254, "x" * 65536, "ü", "日本語",
    "\x1b[2J", "\x1b]0;title\x07", "\u202egnp.exe", "\u200f", "\x9b31m", "a\nb", "\r\n\r\n", "\ud800",
    "%00", "%", "\0",
)  # fmt: skip
BEAT: dict[str, Any] = {
    "hive_id": "localhost", "timestamp": "2026-01-31T12:00:00Z", "workers": ["w"], "instance": "0" * 32,
    "state": "ready", "version": "1", "job_id": "f" * 32,
    "lines": [{"speaker": "bee hive", "text": "hello", "event": "detected", "at": "2026-01-31T12:00:00Z"}],
}  # fmt: skip
ADD: dict[str, Any] = {"host": "localhost", "port": 8600}


NOT_HTTP = (b"\r\nX-\xc3\xbc:", b"\x1b\r\n")
"""Header lines that HTTP does not allow."""


@dataclass(frozen=True)
class Request:
    """What is written to a socket. What is not HTTP may be refused below the routes, or not answered."""

    socket: str
    content: bytes
    is_http: bool = True


@dataclass
class Outcome:
    """The number of answers by socket and status, and all that was wrong."""

    answers: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{name} {count}" for name, count in sorted(self.answers.items()))
        return f"{self.answers.total()} requests in {self.seconds:.0f} s: {told}"


# What is asked


class Asker:
    """Draws requests; the same ones for the same seed and job."""

    def __init__(self, seed: int, job_id: str) -> None:
        self._rng = random.Random(seed)
        self._job_id = job_id

    def draw(self) -> Request:
        rng = self._rng
        name, table = rng.choice((("queen", QueenRoutes), ("queen", QueenRoutes), ("hive", HiveRoutes)))
        readers = [route for route in table.ALL if route.body] or table.ALL
        route = rng.choice(rng.choice((table.ALL, readers)))
        method: str = route.method
        if rng.random() < 0.1:
            method = rng.choice(("GET", "PUT", "PATCH", "OPTIONS", "HEAD", "QUERY"))
        path = self._path(route)
        if self._would_end_it(method, path):
            method = "GET"
        if rng.random() < 0.03:
            return Request(name, self._not_http(), is_http=False)
        content = self._head(method, path, self._body(route))
        head = content.partition(b"\r\n\r\n")[0]
        is_http = method != "QUERY" and len(path) < 65_000 and not any(odd in head for odd in NOT_HTTP)
        return Request(name, content, is_http)

    def _would_end_it(self, method: str, path: str) -> bool:
        """Would it shut the queen down, or remove the only hive? The other requests need both."""
        # A hive's name is the same in any case.
        clean = unquote(path.partition("?")[0]).lower()
        return (method, clean) == ("POST", "/shutdown") or (
            method == "DELETE" and clean == QueenRoutes.REMOVE_HIVE.url(hive_id="localhost")
        )

    def _path(self, route: Route[Any]) -> str:
        rng = self._rng
        name = quote(rng.choice(NAMES), safe="", errors="surrogatepass")
        known = {"job_id": self._job_id, "token_id": "0" * 8, "sha256": "0" * 64, "worker_id": "bee-1"}
        named = re.findall(r"{(\w+)}", route.path)
        path = route.url(**{one: rng.choice((name, known.get(one, name))) for one in named})
        ends = ("/", "//", "/..", "%2f", "%00", "%ff%fe", ";x", "/%1b%5b2J", "%E2%80%AE", "x" * 30_000)
        queries = ("", "=", "&&&", "host=%00", "a=%ff", "x" * 20_000, "[]=1&[]=2", "%1b[2J", "?")
        if rng.random() < 0.1:
            path += rng.choice(ends)
        if rng.random() < 0.2:
            path += f"?{rng.choice(queries)}"
        return path

    def _head(self, method: str, path: str, body: bytes) -> bytes:
        rng = self._rng
        lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", b"Connection: close"]
        odd = (
            b"Accept: text/event-stream", b"Accept: " + rng.randbytes(8).hex().encode() * 50, b"Accept:",
            b"Last-Event-ID: 3", b"Last-Event-ID: -1", b"Last-Event-ID: " + b"9" * 5000,
            b"Last-Event-ID: \xd9\xa3", b"RBEE-Job-ID: " + b"f" * 32, b"RBEE-Job-ID: " + b"F" * 32,
            b"RBEE-Job-ID:", b"RBEE-Job-ID: \xff", b"RBEE-Job-ID: \xff\x1b",
            b"Content-Encoding: gzip", b"Expect: 100-continue", b"Authorization: Basic " + b"x" * 4000,
            b"X-Forwarded-For: 127.0.0.1", b"Cookie: " + b"a=b; " * 500, b"X-\xc3\xbc: 1", b"Range: bytes=0-",
        )  # fmt: skip
        lines += rng.sample(odd, rng.choice((0, 0, 1, 2)))
        kinds = (
            b"application/json", b"application/json", b"application/json; charset=utf-16", b"text/plain", b"",
            b"multipart/form-data", b"application/x-www-form-urlencoded", b"\xff", b"application/json" * 100,
        )  # fmt: skip
        lines.append(b"Content-Type: " + rng.choice(kinds))
        if rng.random() < 0.1:
            lines.append(b"Transfer-Encoding: chunked")
            parts = [*filter(None, (body[:7], body[7:])), b""]
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
        elif body or rng.random() < 0.5:
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join((*lines, b"", b"")) + body

    def _not_http(self) -> bytes:
        rng = self._rng
        whole = self._head("GET", "/health", b"")
        return rng.choice(
            (
                rng.randbytes(rng.randrange(1, 200)),
                whole[: rng.randrange(1, len(whole) - 4)],
                whole.replace(b"HTTP/1.1", rng.choice((b"HTTP/9.9", b"HTTP/", b"", b"SMTP/1.1"))),
                whole.replace(b"GET ", rng.choice((b"GET", b" ", b"\0 ", b"G\xffT "))),
                whole.replace(
                    b"/health", rng.choice((b"", b"\xff", b"http://", b"health", b"/\0", b"/\xe2\x80\xae"))
                ),
                whole.replace(b"\r\n\r\n", b"\r\nContent-Length: x\r\n\r\n"),
                whole.replace(b"\r\n\r\n", b"\r\nContent-Length: -1\r\n\r\n"),
                whole.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
                whole.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
                whole.replace(b"\r\n\r\n", b"\r\nno colon\r\n\r\n"),
                self._head("POST", "/add-hive", b'{"host": "localhost"}')[:-5],
            )
        )

    def _body(self, route: Route[Any]) -> bytes:
        """JSON that is wrong in one way or another, and sometimes in none."""
        ways: tuple[Callable[[Any], bytes], ...] = (
            self._mutated, self._mutated, self._mutated, self._bitten, self._bitten, self._encoded,
            lambda _: self._rng.randbytes(self._rng.choice((1, 10, 1000, 100_000))),
            lambda _: json.dumps(self._json(4)).encode(),
            lambda _: self._nested(),
            lambda document: self._numbers(document),
        )  # fmt: skip
        document = ADD if route is not QueenRoutes.HEARTBEAT else {**BEAT, "job_id": self._job_id}
        body = self._rng.choice(ways)(document)
        with suppress(BadInput, ValueError, RecursionError):
            # A valid body changes the row; it may have only the port that the row has already.
            if decode(AddHive, json.loads(body)).port not in (None, 8600):
                return b"{}"
        return body

    def _mutated(self, document: Any) -> bytes:
        copy = json.loads(json.dumps(document))
        for _ in range(self._rng.choice((0, 1, 1, 1, 2, 5))):
            self._mutate(copy)
        return json.dumps(copy, ensure_ascii=self._rng.random() < 0.5).encode(errors="surrogatepass")

    def _mutate(self, document: Any) -> None:
        rng = self._rng
        holder = document
        while True:
            places = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
            if not places:
                return
            key = rng.choice(places)
            if isinstance(holder[key], (dict, list)) and holder[key] and rng.random() < 0.6:
                holder = holder[key]
                continue
            break
        match rng.randrange(4):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list) and len(holder) < 100:
                holder *= rng.choice((2, 65, 10_001))
            case 2 if isinstance(holder, dict):
                holder[rng.choice(NAMES)] = self._json(2)
            case _:
                holder[key] = rng.choice(
                    (self._json(2), rng.choice(NAMES), None, -1, 65536, 2**63, 10**30, 0.5, True)
                )

    def _bitten(self, document: Any) -> bytes:
        text = bytearray(self._mutated(document))
        for _ in range(self._rng.randrange(1, 6)):
            place = self._rng.randrange(len(text) + 1)
            text[place : place + self._rng.randrange(3)] = self._rng.randbytes(self._rng.randrange(3))
        return bytes(text)

    def _encoded(self, document: Any) -> bytes:
        text = json.dumps({**document, "host": self._rng.choice(NAMES)}, ensure_ascii=False)
        coding = self._rng.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "latin-1", "cp037"))
        return text.encode(coding, errors="replace") + self._rng.choice(
            (b"", b"\0", b"\xed\xa0\x80", b"\xc0\xaf")
        )

    def _nested(self) -> bytes:
        depth = self._rng.choice((10, 990, 1010, 50_000, 300_000))
        opening, closing = self._rng.choice(((b"[", b"]"), (b'{"host":', b"}"), (b'{"a":[', b"]}")))
        depth //= len(opening)
        return opening * depth + self._rng.choice((b"", b"1" + closing * depth))

    def _numbers(self, document: Any) -> bytes:
        number = self._rng.choice(
            ("9" * 5000, "9" * 200_000, "1e400", "-0", "1" + "0" * 400, "NaN", "-Infinity", "1E-9999", "0x1")
        )
        key = self._rng.choice([*document, "unknown"])
        return json.dumps({**document, key: "@"}).replace('"@"', number).encode()

    def _json(self, depth: int) -> Any:
        rng = self._rng
        plain = (None, True, 0, -1, 8600, 1.5, 10**30, "", "localhost", "0" * 32, rng.choice(NAMES))
        if depth == 0 or rng.random() < 0.5:
            return rng.choice(plain)
        if rng.random() < 0.5:
            return [self._json(depth - 1) for _ in range(rng.randrange(4))]
        keys = ("host", "port", "hive_id", "lines", "state", rng.choice(NAMES))
        return {rng.choice(keys): self._json(depth - 1) for _ in range(rng.randrange(4))}


# What is answered


def exchange(path: Path, content: bytes, *, is_whole: bool) -> bytes:
    """What comes back, up to the end of the connection, or to the head of a stream: the feed has no end."""
    deadline = time.monotonic() + ANSWER_SECONDS
    answer = b""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(ANSWER_SECONDS)
        client.connect(str(path))
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was read
            client.sendall(content)
            if not is_whole:  # or both would wait for the rest
                client.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while part := client.recv(65536):
                answer += part
                if STREAM in answer.partition(b"\r\n\r\n")[0].lower():
                    break
                # For the whole answer: each part of one that never ends may come in time.
                client.settimeout(max(deadline - time.monotonic(), 0.001))
    return answer


def judge(request: Request, answer: bytes) -> tuple[str, str | None]:
    """The status, and what is wrong with the answer, if something is."""
    while answer.startswith(b"HTTP/1.1 1"):
        answer = answer.partition(b"\r\n\r\n")[2]
    head, _, content = answer.partition(b"\r\n\r\n")
    if not head:
        return "none", "no answer" if request.is_http else None
    status = head.split(b" ", 2)[1].decode()
    is_problem = b"content-type: application/problem+json" in head.lower()
    if status < "400":
        return status, None
    if not is_problem:
        return status, "no problem document"
    if request.content.startswith(b"HEAD "):
        return status, None if status < "500" else "5xx"
    if not content.decode().isprintable():
        return status, "not printable"
    problem = decode(Problem, json.loads(content))
    if status >= "500" and problem.type not in BUSY:
        return status, "5xx"
    if not (problem.type.startswith(PROBLEM_PREFIX) and problem.title and problem.detail):
        return status, "a problem that says nothing"
    # Where no field is at fault it is all of the body, or of what was sent as a request.
    named = (problem.field,) if problem.field else ("the body", "the request", "no protocol to upgrade")
    if problem.type == f"{PROBLEM_PREFIX}bad-input" and not any(name in problem.detail for name in named):
        return status, "a detail that does not name the field"
    return status, None


def soak(machine: Machine, *, seed: int, count: int, seconds: float) -> Outcome:
    """Add this machine, send `count` requests, and look at what is left; `seconds` is when to give up."""
    add_hive(machine)
    before, pids = lasting(rows(machine)), (main_pid(machine, QUEEN), main_pid(machine, HIVE))
    asker, outcome = Asker(seed, job_of(machine)), Outcome()
    began = time.monotonic()
    for number in range(count):
        request = asker.draw()
        path = Path(f"/proc/{machine.leader}/root/run/rbee/{request.socket}.sock")
        try:
            status, wrong = judge(request, exchange(path, request.content, is_whole=request.is_http))
        except (OSError, ValueError, BadInput) as error:
            status, wrong = "broken", repr(error)
        outcome.answers[f"{request.socket} {status}"] += 1
        if wrong is not None:
            outcome.wrong.append(f"request {number}: {status}, {wrong}: {request.content[:300]!r}")
        if time.monotonic() - began > seconds:
            outcome.wrong.append(f"{number + 1} of {count} requests took longer than {seconds:g} s")
            break
    outcome.seconds = time.monotonic() - began
    await_state(machine, "online")
    if (main_pid(machine, QUEEN), main_pid(machine, HIVE)) != pids:
        outcome.wrong.append("not the processes that there were before")
    for unit in (QUEEN, HIVE):
        outcome.wrong += [f"in {unit}'s journal: {line}" for line in mishaps(machine, unit)]
    if (after := lasting(rows(machine))) != before:
        outcome.wrong.append(f"the catalog was {before}, and is {after}")
    check = (
        f"import sqlite3; print(*sqlite3.connect('{CATALOG}').execute('PRAGMA integrity_check').fetchone())"
    )
    if (said := machine.run("python3", "-c", check).stdout) != "ok\n":
        outcome.wrong.append(f"PRAGMA integrity_check says {said}")
    return outcome


def mishaps(machine: Machine, unit: str) -> list[str]:
    """Entries that are not text, and where tracebacks begin."""
    found, last = [], ""
    for entry in machine.journal(f"--unit={unit}", "_TRANSPORT=stdout"):
        text = entry["MESSAGE"]
        if not isinstance(text, str) or "Traceback" in text:
            found.append(f"{text}, after {last!r}")
        last = text
    told = machine.journal(f"--unit={unit}", "_TRANSPORT=journal")
    return found + [f"{entry}" for entry in told if not all(isinstance(one, str) for one in entry.values())]


def lasting(hives: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the time of their last change, which adding again moves."""
    return [{key: value for key, value in row.items() if key != "updated_at_ms"} for row in hives]


def main(suite: str, count: int, seed: int, seconds: float) -> int:
    print(f"{suite}, seed {seed}, {count} requests", flush=True)
    with booted(suite) as machine:
        outcome = soak(machine, seed=seed, count=count, seconds=seconds)
    print(outcome)
    for line in outcome.wrong[:50]:
        print(f"WRONG {line}")
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
