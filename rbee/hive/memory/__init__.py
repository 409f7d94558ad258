"""The memory book of a hive (book.py): who holds memory of RAM and cards, what is claimed, what is free."""
