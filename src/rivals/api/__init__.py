"""The verbs a user calls, and the one place that wires the rooms together. Cheap to import: work imports torch."""

from rivals.api.certifying import certify
from rivals.api.classifying import classify
from rivals.api.datasets import data_ls, data_pack
from rivals.api.equilibrium import equilibrium
from rivals.api.evaluation import attack, evaluate
from rivals.api.hardening import harden
from rivals.api.learning import ClassifierRun
from rivals.api.networks import load, sample
from rivals.api.training import TrainedRun, demo, report, train

__all__ = [
    "ClassifierRun",
    "TrainedRun",
    "attack",
    "certify",
    "classify",
    "data_ls",
    "data_pack",
    "demo",
    "equilibrium",
    "evaluate",
    "harden",
    "load",
    "report",
    "sample",
    "train",
]
