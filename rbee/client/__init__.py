"""Asking the queen and the hive over their Unix sockets; problems come back as our errors.

Two speeds. queen.py is what the keeper uses once and throws away: a socket and httptools,
because a command line is judged by its start. link.py is what the daemons keep for as long
as they live: httpcore, the transport under httpx (whose own import costs 240 ms on Debian
12, httpcore's 20).
"""
