"""Between a hive and a queen on another machine: who dials is the hive, who asks is the queen.

At rest there is one connection, the control connection (frames.py): the hive's beats, and the queen's word
that she would like another. Over those that the hive then dials it serves its own app, and the queen asks
as she asks the local hive. offer.py is the hive's end, accept.py the queen's.
"""
