"""What this machine has to compute with."""

from rbee.hive.devices.detector import Detector

__all__ = ["Detector"]
