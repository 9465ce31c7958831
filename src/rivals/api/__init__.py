"""The verbs a user calls, and the one place that wires the rooms together. Cheap to import: work imports torch."""

from rivals.api.datasets import data_ls, data_pack
from rivals.api.networks import load, sample
from rivals.api.training import TrainedRun, demo, report, train

__all__ = ["TrainedRun", "data_ls", "data_pack", "demo", "load", "report", "sample", "train"]
