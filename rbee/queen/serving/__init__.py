"""Serving models: what they need, where they run, and the leases of their workers."""
