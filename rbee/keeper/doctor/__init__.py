"""rbeectl doctor: what may keep rbee from working on this machine, a check a file, listed in `checks`."""
