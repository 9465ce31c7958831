"""Defenses in front of a classifier: purifiers of images, and what an honest attack needs to see through them."""

from rivals.defenses.bit_depth import BitDepth
from rivals.defenses.defense_gan import DefenseGAN
from rivals.defenses.gan_inversion import GANInversion
from rivals.defenses.jpeg import JPEG
from rivals.defenses.purifier import PurifiedModel, Purifier

__all__ = ["JPEG", "BitDepth", "DefenseGAN", "GANInversion", "PurifiedModel", "Purifier"]
