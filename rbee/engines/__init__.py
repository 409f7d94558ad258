"""Engines: the programs that serve a model, as drop-ins describe them."""
