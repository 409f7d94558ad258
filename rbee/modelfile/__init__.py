"""Model files: readers of their headers, which trust nothing in them, and the store of fetched files."""
