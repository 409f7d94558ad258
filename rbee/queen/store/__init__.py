"""The hive catalog: what survives a reboot. A store a subject, over an engine."""
