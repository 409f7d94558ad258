"""Other machines: opening the queen to them, joining a queen elsewhere, and bringing a machine by ssh."""
