"""rbeectl's verbs: each takes its arguments apart, has the keeper do it, and prints what came of it."""
