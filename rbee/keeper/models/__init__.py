"""Models, workers and engines as rbeectl sees them: reading them, and the files that are added."""
