#!/usr/bin/python3 -I
"""An engine of the tests' own, which does what the model's file says: lines of KEY=VALUE.

load=SECONDS to load, hang=1 to never end it, exit=STATUS or kill=SIGNAL instead, stubborn=1 to ignore
SIGTERM, child=1 to leave a child behind that ignores it, too.
"""

import http.server
import json
import os
import signal
import socketserver
import sys
import threading
import time

given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
with open(given["--model"]) as file:
    wishes = dict(line.split("=", 1) for line in file.read().split() if "=" in line)
is_loaded = threading.Event()
print(f"engine of {given['--alias']}: {' '.join(wishes)}", flush=True)


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        ready = is_loaded.is_set()
        about = {"alias": given["--alias"], "pid": os.getpid(), "uid": os.getuid(), "arguments": sys.argv[1:]}
        content = json.dumps(about if ready else {"error": "loading"}).encode()
        self.send_response(200 if ready else 503)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def address_string(self) -> str:
        return "hive"

    def log_message(self, *arguments: object) -> None:
        pass


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


if "stubborn" in wishes:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "child" in wishes and os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(3600)
server = Server(given["--socket"], Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
if "hang" in wishes:
    threading.Event().wait()
end = time.monotonic() + float(wishes.get("load", 0))
while time.monotonic() < end:
    time.sleep(min(0.05, max(0, end - time.monotonic())))
    sum(range(200_000))
if "exit" in wishes:
    print("this model is not for me", flush=True)
    os._exit(int(wishes["exit"]))
if "kill" in wishes:
    os.kill(os.getpid(), int(wishes["kill"]))
is_loaded.set()
signal.pause() if "stubborn" not in wishes else threading.Event().wait()
