"""The queen's routes: a handler reads the request, calls the queen's parts, and returns a shape."""
