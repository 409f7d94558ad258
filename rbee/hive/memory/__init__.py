"""The memory book of a hive: who holds RAM and cards, what is claimed, and what is free (book.py)."""
