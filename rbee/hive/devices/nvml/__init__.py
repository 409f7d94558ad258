"""NVIDIA's cards: Nvml (nvml.py) queries the library in one thread; results.py has what comes back."""
