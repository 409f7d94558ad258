"""Another machine, from the operator's desk: ssh to it, sudo on it, its units, and making it a hive."""
