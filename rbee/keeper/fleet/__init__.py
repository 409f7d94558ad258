"""Other machines: opening the queen to them, joining a remote queen, and adding a machine by ssh."""
