"""Many clients of the gateway at once: those that only hold a connection, and those that all stream."""

from __future__ import annotations

import json

from testbed.machine import Machine

from tests.system.commands import add_hive, unit
from tests.system.serve.served import OPENAI, chat, question, serve_rude

IDLE, STREAMS = 1000, 300

CLIENTS = f"""
import asyncio, json, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
BODY = {question("rude", stream=True)!r}.encode()
HEAD = f"POST /v1/chat/completions HTTP/1.1\\r\\nHost: rbee\\r\\nConnection: close\\r\\n"
HEAD += f"Content-Type: application/json\\r\\nContent-Length: {{len(BODY)}}\\r\\n\\r\\n"

async def stream():
    reader, writer = await asyncio.open_unix_connection({OPENAI!r})
    writer.write(HEAD.encode() + BODY)
    answer = (await reader.read(-1)).decode()
    writer.close()
    return answer

async def main():
    idle = [await asyncio.open_unix_connection({OPENAI!r}) for _ in range({IDLE})]
    answers = await asyncio.gather(*(stream() for _ in range({STREAMS})))
    ended = [reader for reader, _ in idle if reader.at_eof()]
    bad = [answer for answer in answers if " 200 OK" not in answer[:20] or "[DONE]" not in answer]
    print(json.dumps([len(ended), len(bad), bad[:1]]))

asyncio.run(asyncio.wait_for(main(), 100))
"""
"""Prints how many idle connections were closed, how many streams were not whole, and one of those."""


def test_a_thousand_idle_clients_keep_nobody_out_and_300_streams_are_whole(
    serving: Machine,
) -> None:
    add_hive(serving)
    serve_rude(serving, "rude", {"deltas": 3, "pause_s": 1})
    assert chat(serving, "rude").status == 200

    done = serving.run("python3", "-c", CLIENTS, user="ada", timeout=120)

    assert json.loads(done.stdout) == [0, 0, []]
    gateway = unit(serving, "rbee-gateway.service", "NRestarts")
    assert (gateway["ActiveState"], gateway["NRestarts"]) == ("active", "0")
    assert chat(serving, "rude").status == 200
