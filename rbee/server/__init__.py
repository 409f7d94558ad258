"""Serves an app on sockets from systemd, over TCP, or on dialled connections; errors become problems."""
