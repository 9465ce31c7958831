"""Recipes of classifiers by standard training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from rivals.base.duration import Duration
from rivals.base.registry import Registry, unknown
from rivals.base.schedules import Schedule
from rivals.recipes.base import NONE, PRECISIONS, MicroBatches, Settings, check_micro_batches, check_range

OPTIMIZERS = ("adam", "muon")


@dataclass(frozen=True)
class ClassifierConfig(Settings):
    """How a classifier is trained."""

    net: str = "cnn"
    """Network: cnn, resnet or strided."""
    widths: tuple[int, ...] = ()
    """Channels of the stages from the highest resolution down; the net's own by default."""
    blocks: int | None = None
    """Residual blocks per stage (resnet only)."""
    label_smoothing: float = 0.0
    """Label smoothing: the fraction of each label that is spread over all classes."""
    flip: bool = False
    """Flip images horizontally at random."""
    shift: int = 0
    """Shift each image by up to this many pixels, horizontally and vertically, at random."""
    flip_tta: bool = False
    """Flip test-time augmentation: average the logits over an image and its horizontal flip, for twice the compute."""
    batch_size: int = 128
    """Images per step."""
    micro_batches: MicroBatches = 1
    """Equal parts of a batch, a power of two, played one after the other or by several processes; auto takes as many as
    memory needs. Gradients and batch statistics are averaged over them."""
    optimizer: str = "adam"
    """adam (AdamW), or muon, which needs fewer steps where layers are wide."""
    lr: float = 1e-3
    """Initial learning rate; it decays to almost 0 along half a cosine over the whole run."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    clip: float = 0.0
    """Scale gradients down to this norm where theirs is above it, such as 10; 0 for never."""
    ema: Schedule = NONE
    """Half-life of the EMA of the weights, in images; 0 for no EMA."""
    precision: str = "auto"
    """Of matrix products in training: fp32, bf16, or auto: bf16 where the hardware is faster in it."""
    weights: str = ""
    """Start from this classifier: a .safetensors file or a run. Its architecture is taken."""
    until: str = "5 epochs"
    """Length of the run: N images, epochs, steps, minutes or hours, where N may end in k or M."""

    def __post_init__(self) -> None:
        Duration.parse(self.until, "a value of --until")
        for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        check_range(self, "label_smoothing", 0, 0.99)
        check_range(self, "shift", 0, 64)
        check_range(self, "batch_size", 2, 65536)
        check_micro_batches(self.batch_size, self.micro_batches)
        check_range(self, "lr", 1e-8, 1)
        check_range(self, "weight_decay", 0, 1)
        check_range(self, "clip", 0, 1e6)

    def changed(self, **settings: Any) -> Self:
        """As :meth:`Settings.changed`; another net resets the settings that belong to the one before."""
        if settings.get("net", self.net) != self.net:
            settings = {"widths": (), "blocks": None} | settings
        return super().changed(**settings)


def cnn() -> ClassifierConfig:
    """For small gray images, such as MNIST's."""
    return ClassifierConfig()


def resnet() -> ClassifierConfig:
    """For small color images, such as CIFAR-10's: residual blocks with batch norm, random flips and shifts."""
    return ClassifierConfig(net="resnet", flip=True, shift=4, lr=3e-3, until="12 epochs")


CLASSIFIERS: Registry[Callable[[], ClassifierConfig]] = Registry("recipe", {"cnn": cnn, "resnet": resnet})
