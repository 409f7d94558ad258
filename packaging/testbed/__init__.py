"""Disposable machines, networks and faults: what system tests, benchmarks and the demonstration boot."""
