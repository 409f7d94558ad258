"""The hive catalog, which survives a reboot: one store for each subject, on top of an engine."""
