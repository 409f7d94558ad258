"""The demonstration: what packaging/demo shows."""
