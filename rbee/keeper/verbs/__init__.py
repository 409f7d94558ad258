"""rbeectl's verbs: each parses its arguments, has the keeper do the work, and prints the result."""
