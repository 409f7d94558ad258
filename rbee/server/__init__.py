"""Serving an app on sockets that systemd handed over; errors become problem documents."""
