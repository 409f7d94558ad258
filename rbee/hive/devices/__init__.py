"""What this machine has to compute with, and what of that is in use."""

from rbee.hive.devices.detector import Detector
from rbee.hive.devices.sampler import Sampler

__all__ = ["Detector", "Sampler"]
