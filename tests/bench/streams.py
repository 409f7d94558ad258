"""Run in a machine: asks a model through the gateway, and its engine directly, and prints what each costs.

streams.py first-token RUNS | deltas COUNT | cold RUNS | together STREAMS COUNT INTERVAL: prints JSON. The
model `bee` answers a sentence; `rude` as many deltas as its file says.
"""

import glob
import json
import os
import socket
import subprocess
import sys
import threading
import time

GATEWAY = "/run/rbee/openai.sock"
CGROUP = "/sys/fs/cgroup/rbee.slice/rbee-gateway.service"


def ask(path: str, model: str) -> socket.socket:
    """Send a request for a stream, and return the connection."""
    body = json.dumps({
        "model": model, "stream": True, "max_tokens": 32, "messages": [{"role": "user", "content": "hi"}],
    }).encode()  # fmt: skip
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(60)
    channel.connect(path)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: rbee\r\nContent-Length: {len(body)}\r\n"
    channel.sendall(head.encode() + b"Content-Type: application/json\r\nConnection: close\r\n\r\n" + body)
    return channel


def first_token(path: str, model: str) -> float:
    """Return the seconds until the first delta has come."""
    began = time.perf_counter()
    with ask(path, model) as channel:
        content = b""
        while b'"content":"' not in content.replace(b'": "', b'":"'):
            part = channel.recv(65536)
            assert part, content
            content += part
        took = time.perf_counter() - began
        while channel.recv(65536):
            pass
    return took


def read_all(path: str, model: str) -> bytes:
    """Return the bytes of an answer."""
    content = b""
    with ask(path, model) as channel:
        while part := channel.recv(65536):
            content += part
    assert b"[DONE]" in content, content[-500:]
    return content


def cpu_us(cgroup: str = CGROUP) -> int:
    with open(f"{cgroup}/cpu.stat") as file:
        return int(dict(line.split() for line in file)["usage_usec"])


def engine_socket(model: str) -> str:
    """The socket of the model's worker, which root may use."""
    [path] = glob.glob(f"/run/rbee-worker/{model}-*/engine.sock")
    return path


def first_tokens(runs: int) -> list[list[float]]:
    """Pairs of ms until the first token: of the engine, and through the gateway."""
    read_all(GATEWAY, "bee")
    engine = engine_socket("bee")
    pairs = [(first_token(engine, "bee"), first_token(GATEWAY, "bee")) for _ in range(runs)]
    return [[1000 * value for value in pair] for pair in pairs]


def deltas(count: int) -> float:
    """The ms of the gateway's CPU for a delta of a stream of so many."""
    read_all(GATEWAY, "bee")  # the gateway has imported all that it needs
    read_all(GATEWAY, "rude")
    used = cpu_us()
    read_all(GATEWAY, "rude")
    return (cpu_us() - used) / 1000 / count


def stop_workers() -> None:
    subprocess.run(["systemctl", "stop", "rbee-worker@*"], check=True)


def cold(runs: int) -> list[list[float]]:
    """Pairs of ms until a cold model's first token: of the engine as it is started by hand, and by rbee."""
    pairs = []
    for _ in range(runs):
        stop_workers()
        time.sleep(1)
        ours = first_token(GATEWAY, "bee")
        with open(f"/proc/{main_pid()}/cmdline", "rb") as file:
            command = file.read().rstrip(b"\0").decode().split("\0")
        own = "/run/by-hand.sock"
        stop_workers()
        time.sleep(1)
        words = [own if word.endswith("engine.sock") else word for word in command]
        words = ["/srv/bee.gguf" if word.endswith("/model") else word for word in words]
        began = time.perf_counter()
        engine = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not is_ready(own):
            assert engine.poll() is None, words
            time.sleep(0.001)
        first_token(own, "bee")
        pairs.append([1000 * (time.perf_counter() - began), 1000 * ours])
        engine.kill()
        engine.wait()
        os.unlink(own)
    return pairs


def main_pid() -> int:
    units = subprocess.run(
        ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", "rbee-worker@bee*"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    show = ["systemctl", "show", "-P", "MainPID", units[0]]
    return int(subprocess.run(show, capture_output=True, text=True, check=True).stdout)


def is_ready(path: str) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(5)
            channel.connect(path)
            channel.sendall(b"GET /health HTTP/1.1\r\nHost: rbee\r\nConnection: close\r\n\r\n")
            return b" 200 " in channel.recv(65536)[:16]
    except OSError:
        return False


def together(streams: int, count: int, interval: float) -> list[list[float]]:
    """The ms by which the last of several streams ends later than the engine's pace: direct, and by rbee."""
    read_all(GATEWAY, "rude")
    return [[lateness(path, streams, count * interval) for path in (engine_socket("rude"), GATEWAY)]]


def lateness(path: str, streams: int, span: float) -> float:
    ends: list[float] = []

    def read() -> None:
        read_all(path, "rude")
        ends.append(time.perf_counter())

    threads = [threading.Thread(target=read) for _ in range(streams)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == streams
    return 1000 * (max(ends) - began - span)


def main() -> None:
    what, *numbers = sys.argv[1:]
    if what == "first-token":
        print(json.dumps(first_tokens(int(numbers[0]))))
    elif what == "deltas":
        print(json.dumps(deltas(int(numbers[0]))))
    elif what == "cold":
        print(json.dumps(cold(int(numbers[0]))))
    else:
        print(json.dumps(together(int(numbers[0]), int(numbers[1]), float(numbers[2]))))


main()
