"""Attacks: pure functions ``(model, x, y, ball, **options) -> x_adv`` that leave the model as it was.

One file is one algorithm, in the letters of its paper. What attacks share: ``attack_state`` (input checks,
the best adversarial example so far), ``active_batch`` (finished images leave the batch, queued images take their
place), ``attack_losses``, ``frozen_model``, and for minimum-norm attacks ``min_norm`` and ``linear_boundary``.

A new attack takes three files: its own, ``autoattack.py`` (a line in ``ATTACKS`` gives it its name in Python, on the
command line and in ensembles; one that needs no gradient is also in ``GRADIENT_FREE``), and this one.
"""

from rivals.attacks.advgan import advgan
from rivals.attacks.apgd import apgd
from rivals.attacks.attack_options import checked_options
from rivals.attacks.attack_state import CommonOptions
from rivals.attacks.autoattack import ATTACKS as NAMED
from rivals.attacks.autoattack import autoattack, autoattack_stages
from rivals.attacks.bim import bim
from rivals.attacks.carlini_wagner import carlini_wagner
from rivals.attacks.ddn import ddn
from rivals.attacks.deepfool import deepfool
from rivals.attacks.ensemble import Attack, Ensemble, Outcome, Stage, run_ensemble
from rivals.attacks.fab import fab
from rivals.attacks.fgsm import fgsm
from rivals.attacks.fmn import fmn
from rivals.attacks.frozen_model import FrozenModel, freeze
from rivals.attacks.hopskipjump import hopskipjump
from rivals.attacks.latent_pgd import latent_pgd
from rivals.attacks.mifgsm import mifgsm
from rivals.attacks.min_norm import MinNormOptions
from rivals.attacks.patch import Placement, adversarial_patch, apply_patch
from rivals.attacks.pdpgd import pdpgd
from rivals.attacks.pgd import pgd
from rivals.attacks.random_baselines import AugmentRanges, augment, noise
from rivals.attacks.sigma_zero import sigma_zero
from rivals.attacks.sparse_rs import sparse_rs
from rivals.attacks.spsa import spsa
from rivals.attacks.square import square
from rivals.attacks.square_pgd import square_pgd
from rivals.attacks.surfree import surfree
from rivals.attacks.transfer import LogitsMean, transfer
from rivals.attacks.universal import universal_perturbation
from rivals.base.registry import Registry

__all__ = [
    "ATTACKS",
    "AugmentRanges",
    "CommonOptions",
    "Ensemble",
    "FrozenModel",
    "LogitsMean",
    "MinNormOptions",
    "Outcome",
    "Placement",
    "Stage",
    "adversarial_patch",
    "advgan",
    "apgd",
    "apply_patch",
    "augment",
    "autoattack",
    "autoattack_stages",
    "bim",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "fab",
    "fgsm",
    "fmn",
    "freeze",
    "hopskipjump",
    "latent_pgd",
    "mifgsm",
    "noise",
    "pdpgd",
    "pgd",
    "run_ensemble",
    "sigma_zero",
    "sparse_rs",
    "spsa",
    "square",
    "square_pgd",
    "surfree",
    "transfer",
    "universal_perturbation",
]

# At this border alone: an evaluation takes attacks from their files, and has checked their options before.
ATTACKS: Registry[Attack] = Registry("attack", {name: checked_options(attack) for name, attack in NAMED.items()})
globals().update({attack.__name__: attack for attack in ATTACKS.values()})
for _function in (adversarial_patch, advgan, augment, latent_pgd, run_ensemble, universal_perturbation):
    globals()[_function.__name__] = checked_options(_function)
