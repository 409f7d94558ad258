"""Requests to the gateway: how large they may be, what a client that leaves stops, and how they count."""

from __future__ import annotations

import json
import re
import signal

from testbed.machine import Machine
from testbed.tiny_model import babbles, says

from tests.system.commands import add_hive, unit
from tests.system.serve.served import (
    OPENAI,
    Response,
    chat,
    post,
    question,
    serve_model,
    serve_rude,
)

LARGEST = 32 * 1024 * 1024
"""Bytes of a body, as rbee-gateway.service(8) has it."""

SLOTS = "/run/rbee-worker/babbler-1/engine.sock"

SEND = """
{ printf %s "$1"; head -c "$2" /dev/zero | tr '\\0' x; printf %s "$3"; } |
curl --silent --unix-socket "$4" --max-time 60 --write-out '\\n%{http_code}' --data-binary @- --header "$5" \
    http://rbee/v1/chat/completions
"""


def ask_with(machine: Machine, size: int, header: str = "X-Nothing: 1") -> Response:
    """The answer to a question of so many bytes."""
    before, after = question("rude", text="TEXT").split("TEXT")
    more = str(size - len(before) - len(after))
    done = machine.run("sh", "-c", SEND, "sh", before, more, after, OPENAI, header, user="ada", timeout=70)
    body, _, status = done.stdout.rpartition("\n")
    return Response(int(status), "", body)


def measured(machine: Machine) -> dict[str, float]:
    """The gateway's metrics, by name and labels in the order of the alphabet."""
    text = machine.run("curl", "--silent", "--unix-socket", OPENAI, "http://rbee/metrics", user="ada").stdout
    lines = re.findall(r"(?m)^rbee_gateway_(\w+)(?:\{(.*)\})? ([0-9.e+-]+)$", text)
    return {
        " ".join([name, *sorted(re.findall(r'\w+="[^"]*"', labels))]): float(value)
        for name, labels, value in lines
    }


def test_a_body_of_the_largest_size_is_answered_and_one_byte_more_is_refused(serving: Machine) -> None:
    add_hive(serving)
    serve_rude(serving, "rude", {})
    assert ask_with(serving, LARGEST).text == "word0 word1 word2"
    for header in ("X-Nothing: 1", "Transfer-Encoding: chunked"):
        refused = ask_with(serving, LARGEST + 1, header)
        error = refused.json["error"]
        assert (refused.status, error["type"], error["code"]) == (413, "invalid_request_error", "too_large")
        assert f"larger than {LARGEST} bytes" in error["message"]
        assert set(error) >= {"message", "type", "code", "param"}
    assert chat(serving, "rude").status == 200
    assert unit(serving, "rbee-gateway.service", "NRestarts")["NRestarts"] == "0"


def test_known_requests_are_counted_and_a_client_that_leaves_stops_llama_server(serving: Machine) -> None:
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."))
    usages = [chat(serving, "bee").json["usage"] for _ in range(2)]
    assert chat(serving, "bee", stream=True).text == "I am bee one."
    assert post(serving, "/v1/chat/completions", question("nobody")).status == 404
    counted = measured(serving)
    assert counted['requests_total model="bee" status="200"'] == 3
    assert counted['requests_total model="" status="404"'] == 1
    for kind in ("prompt", "completion"):
        of_all = sum(usage[f"{kind}_tokens"] for usage in usages)
        assert counted[f'tokens_total kind="{kind}" model="bee"'] == of_all
    assert counted['first_token_seconds_count model="bee"'] == 3
    assert counted['cold_start_seconds_count model="bee"'] == 1
    cold = counted['cold_start_seconds_sum model="bee"']
    assert 0 < cold < counted['first_token_seconds_sum model="bee"'] < 20
    assert counted["requests_in_flight"] == 0

    serve_model(serving, "babbler", babbles(1, layers=8, width=512))
    asked = json.loads(question("babbler", stream=True)) | {"max_tokens": 2000}
    stream = serving.popen(
        "curl", "--silent", "--no-buffer", "--unix-socket", OPENAI, "--data-binary", json.dumps(asked),
        "http://rbee/v1/chat/completions", user="ada",
    )  # fmt: skip
    assert stream.stdout is not None
    while '"content"' not in stream.stdout.readline():
        pass
    assert measured(serving)["requests_in_flight"] == 1
    serving.signal(stream, signal.SIGTERM)
    stream.communicate(timeout=10)
    slots = f"curl --silent --unix-socket {SLOTS} http://worker/slots"
    idle = f"until {slots} | grep -q '\"is_processing\": *false'; do sleep 0.02; done"
    serving.run("sh", "-c", idle, timeout=5)
    printed = serving.run("journalctl", "--output=cat", "--unit=rbee-worker@babbler-1").stdout
    stopped = re.findall(r"stop processing: n_tokens = (\d+)", printed)
    assert [int(count) < 2000 for count in stopped] == [True], stopped
    counted = measured(serving)
    assert counted["requests_in_flight"] == 0
    assert counted['requests_total model="babbler" status="gone"'] == 1
