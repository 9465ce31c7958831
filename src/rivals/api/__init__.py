"""The functions a user calls: the one place that wires packages together. Cheap to import: torch is imported on use."""

from rivals.api.certification.certification import certify
from rivals.api.common.network_io import load, sample
from rivals.api.dataset_tools import data_ls, data_pack, data_prune
from rivals.api.demo_run import demo
from rivals.api.diagnostics import doctor
from rivals.api.equilibrium.evaluation import equilibrium
from rivals.api.hub import pull, push
from rivals.api.latent_space import explore
from rivals.api.onnx_export import export
from rivals.api.reporting import report
from rivals.api.robustness.evaluation import attack, evaluate
from rivals.api.scoring.scoring import score
from rivals.api.training.adversarial import harden
from rivals.api.training.classifier import ClassifierRun, classify
from rivals.api.training.gan import GanRun
from rivals.api.training.train import train
from rivals.api.translation.translate import TranslateRun, translate

__all__ = [
    "ClassifierRun",
    "GanRun",
    "TranslateRun",
    "attack",
    "certify",
    "classify",
    "data_ls",
    "data_pack",
    "data_prune",
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
    "translate",
]
