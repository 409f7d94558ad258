"""Engines: the programs that serve a model, as configuration files describe them."""
