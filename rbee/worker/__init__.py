"""rbee-worker, the launcher of a worker, which becomes its engine."""
