"""The hive's files of models: what is fetched into the store, and what is removed from it."""
