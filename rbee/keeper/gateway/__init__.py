"""The gateway as rbeectl sees it: a client of it, its sockets, and opening it to TCP."""
