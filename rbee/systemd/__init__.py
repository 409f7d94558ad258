"""All that talks to systemd: units and their jobs over D-Bus or the control socket,
handed-over sockets, sd_notify.

Nobody above this room sees a bus error: each becomes one of ours, with its cure.
"""
