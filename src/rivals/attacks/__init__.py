"""Attacks: pure functions ``(model, x, y, ball, **knobs) -> x_adv`` that leave the model as it was."""

from rivals.attacks.autopgd import apgd
from rivals.attacks.blind import Reach, augment, noise
from rivals.attacks.frozen import Frozen, freeze
from rivals.attacks.siege import Shared
from rivals.attacks.steps import bim, fgsm, mifgsm, pgd

__all__ = ["Frozen", "Reach", "Shared", "apgd", "augment", "bim", "fgsm", "freeze", "mifgsm", "noise", "pgd"]
