"""The launcher of a worker, which becomes its engine."""
