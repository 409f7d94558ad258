"""OpenAI's own client for Python against the gateway, over the Unix socket and over TCP with a key."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from testbed.machine import Machine
from testbed.tiny_model import babbles, says

from tests.system.commands import add_hive, put
from tests.system.serve.served import OPENAI, serve_model, succeed

CLIENT = """
import json, sys
import httpx2, openai
base, key, socket, what = sys.argv[1:]
transport = httpx2.HTTPTransport(uds=socket) if socket else None
client = openai.OpenAI(
    base_url=base, api_key=key, max_retries=0, http_client=openai.DefaultHttpxClient(transport=transport)
)
messages = [{"role": "user", "content": "who are you?"}]
try:
    if what == "models":
        print(json.dumps([model.id for model in client.models.list()]))
    elif what == "whole":
        answer = client.chat.completions.create(model="bee", messages=messages, max_tokens=32)
        print(json.dumps([answer.choices[0].message.content, answer.usage.completion_tokens]))
    elif what == "streamed":
        stream = client.chat.completions.create(model="bee", messages=messages, max_tokens=32, stream=True)
        print(json.dumps("".join(part.choices[0].delta.content or "" for part in stream if part.choices)))
    elif what == "completion":
        answer = client.completions.create(model="bee", prompt="hello", max_tokens=32)
        print(json.dumps(answer.choices[0].text))
    elif what == "embeddings":
        answer = client.embeddings.create(model="vectors", input="hello", encoding_format="float")
        print(json.dumps(len(answer.data[0].embedding)))
except openai.APIStatusError as error:
    print(json.dumps({"status": error.status_code, "class": type(error).__name__, "message": error.message}))
"""

EMBEDDINGS = """
[Engine]
Exec=/usr/bin/llama-server -m %m --host %s --alias %a -c %c -np 1 --embeddings --pooling mean
Formats=gguf
"""


@pytest.fixture
def machine(serving: Machine) -> Machine:
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."))
    return serving


def ask(machine: Machine, base: str, what: str, *, key: str = "none", uds: str = "") -> Any:
    """What the client prints, which runs on this computer, in the machine's network."""
    inside = ["nsenter", f"--net=/proc/{machine.leader}/ns/net", "--"]
    done = subprocess.run(
        [*inside, sys.executable, "-c", CLIENT, base, key, uds, what],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_over_the_unix_socket(machine: Machine) -> None:
    put(machine, "/etc/rbee/engines.d/embeddings.conf", EMBEDDINGS)
    serve_model(machine, "vectors", babbles(1), "--engine", "embeddings")
    uds = f"/proc/{machine.leader}/root{OPENAI}"

    assert ask(machine, "http://rbee/v1", "models", uds=uds) == ["bee", "vectors"]
    text, tokens = ask(machine, "http://rbee/v1", "whole", uds=uds)
    assert text == "I am bee one."
    assert tokens > 0
    assert ask(machine, "http://rbee/v1", "streamed", uds=uds) == "I am bee one."
    assert ask(machine, "http://rbee/v1", "completion", uds=uds) == "I am bee one."
    assert ask(machine, "http://rbee/v1", "embeddings", uds=uds) == 64


def test_over_tcp_with_a_key(machine: Machine) -> None:
    serve_model(machine, "other", says("I am the other."))
    succeed(machine, "gateway", "enable")
    base = "http://127.0.0.1:8510/v1"
    made = succeed(machine, "key", "create", "alice", "--models", "bee", "--json").json
    key = made["text"]

    assert ask(machine, base, "models", key=key) == ["bee"]
    assert ask(machine, base, "whole", key=key)[0] == "I am bee one."
    assert ask(machine, base, "streamed", key=key) == "I am bee one."
    refused = ask(machine, base, "whole", key="rbee-sk-wrong")
    assert (refused["status"], refused["class"]) == (401, "AuthenticationError")
    for_other = succeed(machine, "key", "create", "bob", "--models", "other", "--json").json["text"]
    assert ask(machine, base, "whole", key=for_other)["status"] in (403, 404)

    assert re.search(r'rbee_key_uses_total{[^}]*"alice"[^}]*} [1-9]', succeed(machine, "metrics").out)
    succeed(machine, "key", "revoke", "alice")
    assert ask(machine, base, "whole", key=key)["status"] == 401
    succeed(machine, "sleep")  # the queen writes what is left to write
    succeed(machine, "wake")
    told = [entry["text"] for entry in succeed(machine, "audit", "--json").json["entries"]]
    assert any(text.startswith("key alice was used ") for text in told), told


def test_a_key_is_nowhere_in_plain_text(machine: Machine) -> None:
    succeed(machine, "gateway", "enable")
    key = succeed(machine, "key", "create", "alice", "--json").json["text"]
    assert ask(machine, "http://127.0.0.1:8510/v1", "whole", key=key)[0] == "I am bee one."
    succeed(machine, "catalog", "backup", "/home/ada/backup.db")
    secret = key.removeprefix("rbee-sk-")  # it may have dashes, and begin with one
    search = 'journalctl --no-pager -o json | grep -cF -e "$0"'
    assert machine.run("sh", "-c", search, secret, check=False).stdout.strip() == "0"
    seen = "cat > /root/secret; cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' '\\n' | "
    found = machine.run("sh", "-c", f"{seen} grep -cF -f /root/secret", input=secret, check=False)
    assert found.stdout.strip() == "0"
    places = ("/var/lib", "/run", "/home/ada", "/etc")
    left = machine.run("grep", "-rlF", "-e", secret, *places, check=False)
    assert left.stdout == ""
