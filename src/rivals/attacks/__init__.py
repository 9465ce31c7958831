"""Attacks: pure functions ``(model, x, y, ball, **knobs) -> x_adv`` that leave the model as it was."""

from rivals.attacks.autopgd import apgd
from rivals.attacks.blind import Reach, augment, noise
from rivals.attacks.carlini import carlini_wagner
from rivals.attacks.deepfool import deepfool
from rivals.attacks.ensemble import ATTACKS, Outcome, Part, assault, autoattack, plan
from rivals.attacks.fab import fab
from rivals.attacks.frozen import Frozen, freeze
from rivals.attacks.hunt import Hunting
from rivals.attacks.relay import relay
from rivals.attacks.shrinking import ddn, fmn
from rivals.attacks.siege import Shared
from rivals.attacks.square import square
from rivals.attacks.steps import bim, fgsm, mifgsm, pgd

__all__ = [
    "ATTACKS",
    "Frozen",
    "Hunting",
    "Outcome",
    "Part",
    "Reach",
    "Shared",
    "apgd",
    "assault",
    "augment",
    "autoattack",
    "bim",
    "carlini_wagner",
    "ddn",
    "deepfool",
    "fab",
    "fgsm",
    "fmn",
    "freeze",
    "mifgsm",
    "noise",
    "pgd",
    "plan",
    "relay",
    "square",
]
