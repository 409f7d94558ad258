"""What rbeectl prints, and on what: a story's lines, tables, a screen that is drawn anew."""
