"""The keeper: rbeectl, what a person types."""
