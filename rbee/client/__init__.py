"""Clients of the queen and of the hive; problem documents are raised as our errors.

queen.py is for the keeper, which sends a few requests and ends: a socket and httptools, as a command line
must start fast. link.py is for the daemons, which keep a connection: httpcore, the transport of httpx
(whose own import takes 240 ms on Debian 12, httpcore's 20).
"""
