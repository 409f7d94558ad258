"""The queen: keeps the catalog of hives and knows who is alive."""
