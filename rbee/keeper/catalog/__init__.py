"""rbeectl catalog: a copy of the queen's catalog, a look at one, and putting one in its place."""
