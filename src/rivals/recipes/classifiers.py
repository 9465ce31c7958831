"""Classifiers on their own: what is attacked, and what hardening starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from rivals.base.registry import Registry, unknown
from rivals.base.schedules import Schedule
from rivals.base.spans import Span
from rivals.recipes.settings import NONE, PRECISIONS, Settings, check_range

OPTIMIZERS = ("adam", "muon")


@dataclass(frozen=True)
class ClassifierConfig(Settings):
    """Everything that decides how a classifier is trained."""

    net: str = "cnn"
    """Network: cnn or resnet."""
    widths: tuple[int, ...] = ()
    """Channels of the stages from the highest resolution down; empty takes the net's own."""
    blocks: int | None = None
    """Residual blocks a stage (resnet only)."""
    smoothing: float = 0.0
    """Label smoothing: the share of each label that is spread over all classes."""
    flip: bool = False
    """Mirror images left to right at random."""
    shift: int = 0
    """Move each image by up to this many pixels, across and down, at random."""
    mirror: bool = False
    """Answer by the mean of the logits for an image and its mirror image: harder to fool, and twice the work."""
    batch: int = 128
    """Images a step."""
    optimizer: str = "adam"
    """adam (AdamW), or muon, which learns more from each image where layers are wide."""
    lr: float = 1e-3
    """The optimiser's rate at the start; it falls to almost 0 along half a cosine over the whole run."""
    weight_decay: float = 0.01
    """Decay of the weights, decoupled from the gradients."""
    ema: Schedule = NONE
    """Half-life, in images, of the average of the weights; 0 keeps none."""
    precision: str = "auto"
    """Of products while training: fp32, or bf16, which halves their time; auto takes bf16 where it is built in."""
    until: str = "5 epochs"
    """Length of the run: N images, N epochs, N steps or N minutes, N with k or M if wanted."""

    def __post_init__(self) -> None:
        Span.parse(self.until)
        for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        check_range(self, "smoothing", 0, 0.99)
        check_range(self, "shift", 0, 64)
        check_range(self, "batch", 2, 65536)
        check_range(self, "lr", 1e-8, 1)
        check_range(self, "weight_decay", 0, 1)

    def changed(self, **settings: Any) -> Self:
        """As :meth:`Settings.changed`; another net forgets what the one before was told."""
        if settings.get("net", self.net) != self.net:
            settings = {"widths": (), "blocks": None} | settings
        return super().changed(**settings)


def cnn() -> ClassifierConfig:
    """For small grey images, as MNIST's."""
    return ClassifierConfig()


def resnet() -> ClassifierConfig:
    """For small colour images, as CIFAR-10's: residual blocks with batch norm, images mirrored and shifted."""
    return ClassifierConfig(net="resnet", flip=True, shift=4, lr=3e-3, until="12 epochs")


CLASSIFIERS: Registry[Callable[[], ClassifierConfig]] = Registry("recipe", {"cnn": cnn, "resnet": resnet})
