"""What rbeectl prints: the lines of a story, tables, and screens that are redrawn."""
