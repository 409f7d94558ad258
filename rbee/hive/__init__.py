"""The hive: tells its devices and that it lives."""
