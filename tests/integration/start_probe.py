"""Runs a daemon until it is ready, or rbeectl to its end, and prints the modules that it has imported.

start_probe.py FOLDER PROGRAM [ARGUMENT...]: a daemon gets a socket as from systemd, and rbeectl has its queen
in FOLDER. Only the bus is a double: its class is imported, and PlayedBus is used instead.
"""

import os
import socket
import sys
from importlib import import_module

PROGRAMS = {
    "queen-rbee": ("rbee.queen.__main__", "main"),
    "rbee-hive": ("rbee.hive.__main__", "main"),
    "rbee-gateway": ("rbee.gateway.__main__", "main"),
    "rbeectl": ("rbee.keeper.__main__", "program"),
    "queen-rbee-tcp-retry": ("rbee.queen.reopen", ""),
    "rbee-fetch": ("rbee.fetch.__main__", ""),
    "rbee-hive-join": ("rbee.hive.join", ""),
    "rbee-hive-redial": ("rbee.hive.redial", ""),
}
"""Module and function; without a function the module is only imported, as its work needs systemd."""

DAEMONS = ("queen-rbee", "rbee-hive", "rbee-gateway")


class Anything:
    """Has every method; each returns the object itself."""

    def __init__(self, *_arguments, **_named):
        pass

    def __getattr__(self, _name):
        return self

    def __call__(self, *_arguments, **_named):
        return self


class Message(Anything):
    def __init__(self, is_empty):
        self.is_empty = lambda: is_empty


class PlayedBus(Anything):
    """Sends the greeting of a bus; each unit is active, and nothing else happens."""

    def __init__(self, *_arguments, **_named):
        self._ends = socket.socketpair()
        self._has_greeted = False

    def process(self):
        had_greeted, self._has_greeted = self._has_greeted, True
        return Message(had_greeted)

    def get_fd(self):
        return self._ends[0].fileno()

    def get_property(self, _service, _path, _interface, name, kind):
        if kind == b"(uo)":
            return 0, b"/"
        texts = {b"LoadState": b"loaded", b"ActiveState": b"active", b"SubState": b"running"}
        return texts.get(name, b"") if kind == b"s" else 0


def report(*_arguments, **_named):
    """Print the modules, and exit at once: what is imported later does not count."""
    imported = [name for name, module in sys.modules.items() if not is_put_off(module)]
    os.write(9, "\n".join(sorted(imported)).encode())
    os._exit(0)


def is_put_off(module):
    """Is it a module of rbee.later's that nobody has used yet?"""
    return getattr(getattr(module, "__dict__", {}).get("__getattr__"), "__module__", "") == "rbee.later"


def hand_over(folder):
    """Set up the environment of a service with one socket, as systemd does."""
    os.environ |= {"STATE_DIRECTORY": folder, "RUNTIME_DIRECTORY": folder}
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "listener"}
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{folder}/listener")
    listener.listen()
    os.dup2(listener.detach(), 3)


def main():
    folder, name = sys.argv[1:3]
    module, function = PROGRAMS[name]
    os.dup2(1, 9)  # what the program itself prints goes to stderr
    os.dup2(2, 1)
    if name in DAEMONS:  # as their launchers do
        later = import_module("rbee.later")
        later.put_off(later.UNUSED_BY_DAEMONS)
    program = import_module(module)
    if function:
        if "rbee.systemd.daemon" in sys.modules:
            sys.modules["rbee.systemd.daemon"].Notifier.ready = report
        hand_over(folder)
        connection = import_module("rbee.systemd.connection")
        import_bus = connection._dbus_class
        connection._dbus_class = lambda: import_bus() and PlayedBus
        sys.modules["rbee.scope"].Scope.queen_socket = f"{folder}/queen.sock"
        sys.argv = sys.argv[2:]
        getattr(program, function)()
    report()


main()
