"""The verbs a user calls, and the one place that wires the rooms together. Cheap to import: work imports torch."""

from rivals.api.certifying import certify
from rivals.api.classifying import classify
from rivals.api.datasets import data_ls, data_pack
from rivals.api.demonstration import demo
from rivals.api.doctoring import doctor
from rivals.api.equilibrium import equilibrium
from rivals.api.evaluation import attack, evaluate
from rivals.api.exploring import explore
from rivals.api.exporting import export
from rivals.api.hardening import harden
from rivals.api.learning import ClassifierRun
from rivals.api.networks import load, sample
from rivals.api.scoring import score
from rivals.api.sharing import pull, push
from rivals.api.training import TrainedRun, report, train

__all__ = [
    "ClassifierRun",
    "TrainedRun",
    "attack",
    "certify",
    "classify",
    "data_ls",
    "data_pack",
    "demo",
    "doctor",
    "equilibrium",
    "evaluate",
    "explore",
    "export",
    "harden",
    "load",
    "pull",
    "push",
    "report",
    "sample",
    "score",
    "train",
]
