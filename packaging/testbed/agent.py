"""Runs in an emulated machine: it runs the commands that come over its console, a line of JSON each."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import tty
from typing import IO, Any


def answer(request: dict[str, Any], out: IO[bytes], lock: threading.Lock) -> None:
    """Run a command and write its result, in a thread of its own: one that does not end delays no other."""
    done = subprocess.run(
        request["argv"], input=request["input"], capture_output=True, encoding="utf-8", errors="replace"
    )
    answer = {"id": request["id"], "code": done.returncode, "out": done.stdout, "err": done.stderr}
    with lock:
        out.write(json.dumps(answer).encode() + b"\n")
        out.flush()


def main(console: str) -> None:
    """Serve a console. The first line that is written says that the agent runs."""
    with open(console, "rb") as requests, open(console, "wb") as out:
        tty.setraw(requests.fileno())
        lock = threading.Lock()
        out.write(b"{}\n")
        out.flush()
        for line in requests:
            threading.Thread(target=answer, args=(json.loads(line), out, lock), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
