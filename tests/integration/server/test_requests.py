"""What is read of a request, and how much of it."""

from __future__ import annotations

import json
from pathlib import Path

from rbee.server.connection import BODY_LIMIT
from rbee.systemd.daemon import Notifier
from tests.integration.server.example import PROBLEM, ask
from tests.integration.unix_http import post, request


async def test_a_wrong_field_is_named(tmp_path: Path, silent_notifier: Notifier) -> None:
    (answer,) = await ask(tmp_path, silent_notifier, post("/add-hive", {"host": "a", "port": True}))

    assert answer.json["field"] == "port"


async def test_a_body_up_to_the_limit_is_taken(tmp_path: Path, silent_notifier: Notifier) -> None:
    body = json.dumps({"host": "a"}).encode().ljust(BODY_LIMIT)

    (answer,) = await ask(tmp_path, silent_notifier, request("POST", "/add-hive", body))

    assert answer.status == 202


async def test_a_body_that_is_announced_too_large_is_refused_before_it_is_sent(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    asked = request("POST", "/add-hive", Content_Length=str(10 * 2**20))

    (answer,) = await ask(tmp_path, silent_notifier, asked)

    assert (answer.status, answer.headers["content-type"]) == (413, PROBLEM)
    assert answer.json["type"] == "urn:rbee:problem:too-large"
    assert answer.json["hint"] == f"Send at most {BODY_LIMIT} bytes."


async def test_a_body_that_grows_too_large_is_refused(tmp_path: Path, silent_notifier: Notifier) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    asked = request("POST", "/add-hive", Transfer_Encoding="chunked") + chunk * 5

    (answer,) = await ask(tmp_path, silent_notifier, asked)

    assert (answer.status, answer.headers["content-type"]) == (413, PROBLEM)
