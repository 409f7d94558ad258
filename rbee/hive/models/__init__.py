"""The hive's side of the store of models: what is fetched into it, and what is removed from it."""
