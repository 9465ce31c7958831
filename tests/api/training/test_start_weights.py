"""``--weights`` and ``--freeze-d``: a GAN or a classifier that starts from the networks of another run."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.kill_and_resume import assert_killed_run_resumes
from rivals.api.training.start_weights import load_gan
from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.game.checkpoint import Checkpoints
from rivals.nets.factory import GAN_NETS, build_discriminator

QUIET = {"quiet": True, "device": "cpu"}
SMALL = {"generator_widths": (8, 4), "discriminator_widths": (4, 8), "latent_dim": 5, "sample_grid": 4, "batch_size": 8}
GAN = {"recipe": "dcgan", **SMALL, **QUIET}
CLASSIFIER = {"widths": (4, 8), "batch_size": 8, **QUIET}


def folder(place, classes=("ant", "bee"), size=8, count=16):
    random = np.random.default_rng(0)
    for level, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.normal(60 + 120 * level, 20, tuple(Size.parse(size))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / name / f"{i}.png")
    return str(place)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return folder(tmp_path / "insects")


def state_of(run, step=None):
    tensors, facts = Checkpoints(run.checkpoints).load()
    assert step is None or facts["step"] == step
    return tensors


def same(one, other, prefix):
    names = [name for name in one if name.startswith(prefix)]
    assert names and names == [name for name in other if name.startswith(prefix)]
    return all(torch.equal(one[name], other[name]) for name in names)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_gan_starts_with_both_players_of_a_run_and_their_average(data, conditional):
    given = {**GAN, "conditional": conditional, "ema": "200"}
    first = rivals.train(data, **given, until="4 steps", out="first")
    # The architecture comes with the weights, whatever the recipe would choose.
    quick = {"recipe": "quick", "batch_size": 8, "sample_grid": 4, **QUIET}
    second = rivals.train(
        data, **quick, weights="first", until="1 steps", out="second", generator_lr="1e-8", discriminator_lr="1e-8"
    )
    before, after = state_of(first), state_of(second)
    for player in ("generator/net", "generator/ema", "discriminator/net"):
        for name, values in before.items():
            if name.startswith(player) and "running" not in name and "num_batches" not in name:
                torch.testing.assert_close(after[name], values, atol=1e-6, rtol=0)
    assert second.info["config"]["generator_widths"] == [8, 4] and second.info["config"]["conditional"] == conditional
    assert second.info["config"]["weights"] == str(first.folder.resolve())
    assert second.info["contents"] == {"weights": load_gan("first").hash}


def test_a_generator_alone_starts_with_a_new_discriminator(data, capsys):
    first = rivals.train(data, **GAN, until="2 steps", out="first")
    shutil.copytree("first", "shared", ignore=shutil.ignore_patterns("checkpoints", "run.json"))
    loud = {**GAN, "quiet": False, "discriminator_widths": (16, 4)}
    run = rivals.train(
        data,
        **loud,
        weights="shared/generator.safetensors",
        until="1 steps",
        out="second",
        generator_lr="1e-8",
        discriminator_lr="1e-8",
    )
    assert "has no discriminator: a new one starts" in capsys.readouterr().err
    start, end = state_of(first), state_of(run)
    for name, values in rivals.load("first").state_dict().items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(end[f"generator/net/{name}"], values, atol=1e-6, rtol=0)
    assert end["discriminator/net/layers.0.weight"].shape != start["discriminator/net/layers.0.weight"].shape


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_freeze_d_trains_only_the_blocks_above(data, frozen):
    """Mo et al. 2020. The weights next to the image stay to the bit, also under gradient penalties; the rest learns."""
    given = {**GAN, "discriminator_norm": "none", "loss": "relativistic", "r1": "0.1", "r2": "0.1"}
    first = rivals.train(data, **given, until="2 steps", out="first")
    tuned = rivals.train(data, **given, weights="first", freeze_d=frozen, until="3 steps", out="tuned")
    before, after = state_of(first), state_of(tuned)
    for index, layer in enumerate(("layers.0.", "layers.2.")):  # convolution, leaky ReLU, convolution, ...
        assert same(before, after, f"discriminator/net/{layer}") == (index < frozen)
    assert not same(before, after, "discriminator/net/head.")
    assert not same(before, after, "generator/net/")


@pytest.mark.parametrize("net", list(GAN_NETS))
def test_the_blocks_of_a_discriminator_are_all_its_weights_but_the_head(net):
    made = build_discriminator(net, size=16, channels=3)
    blocks = made.blocks_from_image()
    weights = [weight for block in blocks for part in block for weight in part.parameters()]
    others = {name for name, weight in made.named_parameters() if not any(weight is each for each in weights)}
    assert len(blocks) > 1 and others
    assert all(name.startswith(("head", "basis")) for name in others)
    image_shaped = [w for part in blocks[0] for w in part.parameters() if w.ndim > 1 and w[0].numel() % 3 == 0]
    assert image_shaped  # the first block sees the image's three channels


def test_a_classifier_starts_from_another_and_takes_its_architecture(data):
    plain = rivals.classify(data, **CLASSIFIER, until="3 steps", out="plain")
    run = rivals.classify(data, **QUIET, batch_size=8, weights="plain", until="1 steps", lr=1e-8, out="again")
    assert run.info["config"]["widths"] == [4, 8]
    for name, values in plain.classifier.state_dict().items():
        if values.is_floating_point() and "running" not in name:
            torch.testing.assert_close(run.classifier.state_dict()[name], values, atol=1e-6, rtol=0)
    assert torch.equal(run.classifier.mean, plain.classifier.mean)  # whose normalization the weights expect
    assert json.loads((run.folder / "run.json").read_text())["contents"]["weights"]


@pytest.mark.parametrize("source", ["first", "first/generator.safetensors"])
@pytest.mark.parametrize(("upsample", "other"), [("nearest", "transposed"), (None, "nearest")])
def test_the_upsampling_comes_with_the_weights(data, source, upsample, other):
    rivals.train(data, **GAN, generator_upsample=upsample, until="1 steps", out="first")
    second = rivals.train(data, **GAN, weights=source, until="1 steps", out="second")
    theirs = upsample or "transposed"
    assert second.info["config"]["generator_upsample"] == theirs
    rivals.train(data, **GAN, weights=source, generator_upsample=theirs, until="1 steps", out="third")
    with pytest.raises(UserError, match="has generator_upsample"):
        rivals.train(data, **GAN, weights=source, generator_upsample=other, until="1 steps", out="no")


def test_what_does_not_fit_is_named_in_one_line(data, tmp_path):
    rivals.train(data, **GAN, conditional=True, until="1 steps", out="gan")
    rivals.classify(data, **CLASSIFIER, until="1 steps", out="plain")
    wide = folder(tmp_path / "wide", size="24x16")
    large, others = folder(tmp_path / "large", size=16), folder(tmp_path / "others", ("cat", "dog"))
    quick = {"until": "1 steps", "out": "no", **QUIET}
    cases = [
        (rivals.train, large, {"weights": "gan"}, "its size is 8, not 16: add --size 8"),
        (rivals.train, wide, {"weights": "gan"}, "its size is 8, not 24x16: add --size 8 --crop"),
        (rivals.classify, wide, {"weights": "plain"}, "its size is 8, not 24x16: add --size 8 --crop"),
        (rivals.train, others, {"weights": "gan"}, "'others' has cat, dog; the GAN 'gan' has ant, bee"),
        (rivals.train, data, {"weights": "gan", "latent_dim": 7}, "has latent_dim 5, not 7: leave --latent-dim out"),
        (rivals.train, data, {"weights": "gan", "generator_widths": (8,)}, "generator_widths 8 4, not 8"),
        (rivals.train, data, {"weights": "gan", "net": "r3"}, "has net dcgan, not r3"),
        (rivals.train, data, {"weights": "plain"}, "is a run of 'rivals classify': name a run of 'rivals train'"),
        (rivals.train, data, {"weights": "nowhere"}, "no network at 'nowhere'"),
        (rivals.train, data, {"freeze_d": 2}, "add --weights RUN"),
        (rivals.train, data, {"weights": "gan", "freeze_d": 3}, "more than the discriminator's 2 blocks"),
        (rivals.train, data, {"weights": "gan/generator.safetensors", "freeze_d": 1}, "needs a discriminator"),
        (rivals.classify, large, {"weights": "plain"}, "its size is 8, not 16: add --size 8"),
        (rivals.classify, others, {"weights": "plain"}, "'cat'"),
        (rivals.classify, data, {"weights": "plain", "widths": (9,)}, "has widths 4 8, not 9: leave --widths out"),
        (rivals.classify, data, {"weights": "gan"}, "holds a generator, give a classifier"),
    ]
    for command, source, settings, says in cases:
        with pytest.raises(UserError) as caught:
            command(source, **{**quick, **settings})
        assert says in str(caught.value) and "\n" not in str(caught.value), settings
    assert not (tmp_path / "no").exists()


def test_a_killed_run_from_weights_resumes_to_the_same_bytes(data, tmp_path):
    rivals.train(data, **GAN, until="2 steps", out="first")
    words = ["train", data, "--recipe", "dcgan", "--batch-size", "8", "--weights", "first", "--freeze-d", "1"]
    words += ["--until", "400 steps", "--checkpoint-every", "10 steps", "--sample-every", "100 steps"]
    words += ["--quiet", "--device", "cpu"]
    assert_killed_run_resumes(words, home=tmp_path, weights="generator.safetensors")
