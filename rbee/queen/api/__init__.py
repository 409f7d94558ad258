"""The queen's routes: a handler takes a request apart, asks the rooms behind, and answers with a shape."""
