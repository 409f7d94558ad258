"""The hive: reports its devices and sends heartbeats."""
