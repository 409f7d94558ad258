"""rbeectl catalog: back up, check and restore the queen's catalog."""
