"""The models in the queen's catalog: their rows, how they are served, and how they are added and removed."""
