"""The workers of a hive."""
