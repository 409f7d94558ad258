"""The models of the queen's catalog: what there is, how it is served, and how it is added and removed."""
