"""Each setting of a training run changes what is played: none is read, checked and then dropped on the way."""

import numpy as np
import pytest
import torch
from PIL import Image

from rivals import build_classifier, build_generator
from rivals.api.common.network_io import save_network
from rivals.api.training.adversarial import HardenJob
from rivals.api.training.advgan import AdvGanJob
from rivals.api.training.classifier import ClassifierJob
from rivals.api.training.encoder import EncoderJob
from rivals.api.training.gan import GanJob
from rivals.api.training.job import Request
from rivals.api.translation.job import TranslateJob

COMMON = {"until": "64 images", "batch_size": 8, "precision": "fp32"}
GAN = {**COMMON, "generator_widths": (8,), "discriminator_widths": (8,), "latent_dim": 4}
ADA = {**GAN, "augment": "ada", "augment_p": "0.9"}
CLASSIFIER = {**COMMON, "widths": (4,)}
FOOL = {**COMMON, "generator_widths": (4, 4, 8), "discriminator_widths": (4,), "against": "plain.safetensors"}
INVERT = {**COMMON, "encoder_widths": (4,), "invert": "generator.safetensors"}
TRANSLATE = {**COMMON, "scale": 2, "widths": (4,), "blocks": 1, "discriminator_widths": (4, 4)}

CHANGES = [
    *[
        (GanJob, {**GAN, **base}, {name: value})
        for base, name, value in (
            ({}, "net", "mlp"),
            ({}, "latent_dim", 5),
            ({}, "generator_widths", (12,)),
            ({}, "discriminator_widths", (12,)),
            ({"net": "mlp"}, "dropout", 0.5),
            ({"discriminator_widths": (8, 8)}, "discriminator_norm", "batch"),
            ({}, "generator_upsample", "nearest"),
            ({}, "conditional", True),
            ({}, "loss", "hinge"),
            ({"loss": "minimax"}, "label_smoothing", 0.2),
            ({}, "r1", "1"),
            ({}, "r2", "1"),
            ({}, "gp", "1"),
            ({}, "fd_r1", "1"),
            ({}, "fd_r2", "1"),
            ({}, "cr", "1"),
            ({}, "lecam", "1"),
            ({"r1": "1"}, "penalty_every", 2),
            ({}, "instance_noise", "0.5"),
            ({}, "augment", "diff"),
            (ADA, "augment_p", "0.1"),
            (ADA, "augment_color", 0.0),
            ({**GAN, "augment": "ada", "loss": "hinge", "augment_target": 0.6}, "augment_target", -0.6),
            ({}, "flip", True),
            ({}, "discriminator_turns", 2),
            ({}, "batch_size", 4),
            ({}, "generator_lr", "1e-3"),
            ({}, "discriminator_lr", "1e-3"),
            ({}, "beta1", 0.5),
            ({}, "beta2", "0.9"),
            ({}, "ema", "0"),
            ({"ema": "50"}, "ema_rampup", 0.0),
            ({}, "precision", "bf16"),
        )
    ],
    *[
        (ClassifierJob, {**CLASSIFIER, **base}, {name: value})
        for base, name, value in (
            ({}, "net", "resnet"),
            ({}, "widths", (8,)),
            ({"net": "resnet", "widths": (4, 4)}, "blocks", 2),
            ({}, "label_smoothing", 0.2),
            ({}, "flip", True),
            ({}, "shift", 2),
            ({}, "optimizer", "muon"),
            ({}, "lr", 1e-2),
            ({}, "weight_decay", 0.9),
            ({}, "clip", 1e-3),
            ({}, "ema", "50"),
        )
    ],
    *[
        (HardenJob, {**CLASSIFIER, **base}, {name: value})
        for base, name, value in (
            ({"eps": "0.2"}, "norm", "l2"),
            ({}, "eps", "0.05"),
            ({}, "method", "trades"),
            ({"method": "pgd"}, "steps", 3),
            ({"method": "trades"}, "beta", 1.0),
            ({}, "awp", 0.01),
            ({}, "eps_warmup", 0.9),
            ({"method": "ibp"}, "ibp_regularizer", 0.0),
        )
    ],
    *[
        (AdvGanJob, {**FOOL, **base}, {name: value})
        for base, name, value in (
            ({"eps": "0.2"}, "norm", "l2"),
            ({}, "eps", "0.2"),
            ({}, "target", "dark"),
            ({}, "condition", "none"),
            ({}, "universal", True),
            ({}, "black_box", True),
            ({}, "confidence", 0.0),
            ({}, "gan_weight", 1.0),
            ({"norm_bound": 0.0}, "norm_weight", 5.0),
            ({}, "norm_bound", 0.0),
        )
    ],
    *[(EncoderJob, INVERT, change) for change in ({"encoder_lr": "1e-2"}, {"latent_weight": 2.0}, {"ema": "50"})],
    *[
        (TranslateJob, {**TRANSLATE, **base}, {name: value})
        for base, name, value in (
            ({}, "net", "unet"),
            ({}, "blocks", 2),
            ({}, "loss", "hinge"),
            ({}, "gan_weight", 0.1),
            ({}, "l1_weight", 0.1),
            ({}, "r1", "3"),
            ({}, "penalty_every", 2),
            ({}, "flip", False),
            ({}, "generator_lr", "1e-2"),
            ({}, "discriminator_lr", "1e-2"),
            ({}, "beta1", 0.9),
            ({}, "beta2", "0.9"),
            ({}, "ema", "0"),
        )
    ],
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Bright and dark images, and networks of untrained weights."""
    home = tmp_path_factory.mktemp("settings")
    random = np.random.default_rng(0)
    for i in range(40):
        path = home / "photos" / ("bright" if i % 2 else "dark") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(i % 2 * 80, 255, (16, 16)).astype(np.uint8)).save(path)
    shape = {"size": 16, "channels": 1}
    torch.manual_seed(0)
    save_network(build_classifier("cnn", classes=2, widths=(4,), **shape), home / "plain.safetensors", {})
    save_network(build_generator("mlp", latent_dim=4, widths=(8,), **shape), home / "generator.safetensors", {})
    return home


def state_after_three_rounds(kind, settings):
    """The weights of all players, those of the EMA too."""
    job = kind(Request("photos", None, None, False, 0, "cpu", True, settings))
    job.load_data()
    job.resolve_config()
    game, batches = job.build_game(), job.make_batches()
    for step in range(3):
        game.round(step, batches, seed=0)
    return game.state()


@pytest.mark.parametrize(
    ("kind", "base", "change"), CHANGES, ids=[f"{kind.__name__}-{next(iter(change))}" for kind, _, change in CHANGES]
)
def test_a_setting_changes_what_is_played(home, monkeypatch, kind, base, change):
    monkeypatch.chdir(home)
    one, other = (state_after_three_rounds(kind, settings) for settings in (base, {**base, **change}))
    weights = [name for name in one if "optimizer" not in name]
    assert one.keys() != other.keys() or any(
        one[name].shape != other[name].shape or not torch.equal(one[name], other[name]) for name in weights
    )
