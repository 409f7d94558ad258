"""rbeectl doctor: what may keep rbee from working on this machine. One file a check, listed in `checks`."""
