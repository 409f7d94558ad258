"""rbee: a few Linux machines with CPUs and GPUs, run as one."""

__version__ = "0.5.0"
