"""The link between a hive and a queen on another machine: the hive dials, the queen sends requests.

When idle, there is one connection, the control connection (frames.py): it carries the hive's beats, and the
queen's requests for another connection. Over those that the hive then dials it serves its own app, and the
queen sends the same requests as to the local hive. offer.py is the hive's end, accept.py the queen's.
"""
