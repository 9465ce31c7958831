"""Images of 48 x 32 pixels through the commands: every network, and what is made of its runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.commands import assert_refused, call_main
from rivals.base.size import Size
from rivals.nets.factory import CLASSIFIERS, GAN_NETS

WIDE = (48, 32)  # as Pillow counts: the width first
NARROW = ("--generator-widths", "8", "4", "--discriminator-widths", "4", "8")
DEEP = ("--generator-widths", *"4444", "--discriminator-widths", *"4444")
GANS = {
    "mlp": (*NARROW, "--augment", "diff"),
    "dcgan": (*NARROW, "--augment", "ada", "--augment-p", "1"),
    "sngan": (*DEEP, "--conditional", "--cr", "1"),
    "r3": (*DEEP, "--augment", "ada", "--augment-p", "0.5"),
}
SHORT = ("--until", "2 steps", "--batch-size", "8", "--quiet")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 30 color images of 48 x 32 in two classes."""
    home = tmp_path_factory.mktemp("wide")
    rng = np.random.default_rng(0)
    for i in range(30):
        path = home / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(100 * (i % 2), 156 + 100 * (i % 2), (*WIDE[::-1], 3), dtype=np.uint8)).save(path)
    return home


@pytest.fixture(scope="module")
def generators(tmp_path_factory, photos):
    """A run of each GAN."""
    home, runs = tmp_path_factory.mktemp("gans"), {}

    def run(net):
        if net not in runs:
            recipe = ("--recipe", net, "--latent-dim", "4", "--sample-grid", "6", *GANS[net])
            assert call_main(("train", photos, "--out", home / net, *SHORT, *recipe)) == 0
            runs[net] = home / net
        return runs[net]

    return run


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory, photos):
    """A run of each classifier."""
    home, runs = tmp_path_factory.mktemp("classifiers"), {}

    def run(net):
        if net not in runs:
            assert call_main(("classify", photos, "--net", net, "--widths", "4", "--out", home / net, *SHORT)) == 0
            runs[net] = home / net
        return runs[net]

    return run


def size_of(path):
    """Width and height of a picture."""
    with Image.open(path) as picture:
        return picture.size


def test_every_network_is_here():
    assert set(GANS) == set(GAN_NETS)


@pytest.mark.parametrize("net", GANS)
def test_every_gan_is_trained_and_sampled(net, generators, tmp_path):
    run = generators(net)
    about = json.loads((run / "run.json").read_text())
    assert (about["config"]["net"], about["data"]["size"]) == (net, "48x32")
    generator = rivals.load(run)
    assert generator.size == Size(height=32, width=48)
    assert generator.spec["size"] == "48x32"
    assert generator.sample(3).shape == (3, 3, 32, 48)
    (*_, grid) = (run / "samples").iterdir()
    assert size_of(grid) == (3 * 3 * 48 + 2 * 2, 2 * 3 * 32 + 2)  # 3 columns of 6 images, enlarged 3 times
    assert "48x32 px" in (run / "report.html").read_text()
    files = ("--folder", tmp_path / "images", "--gif", tmp_path / "walk.gif", "--grid", tmp_path / "grid.png")
    assert call_main(("sample", run, "-n", "2", *files)) == 0
    assert {size_of(path) for path in (tmp_path / "images").iterdir()} == {WIDE}
    width, height = size_of(tmp_path / "walk.gif")
    assert (width * 2, width % 48) == (height * 3, 0)


@pytest.mark.parametrize("net", sorted(CLASSIFIERS))
def test_every_classifier_is_trained_attacked_and_certified(net, photos, classifiers, tmp_path, run_rivals):
    run = classifiers(net)
    assert rivals.load(run).spec["size"] == "48x32"
    attack = ("--attack", "pgd(steps=2),square(queries=5)", "--eps", "0.1", "-n", "8", "--no-alarms", "--json")
    status, out, err = run_rivals("attack", run, photos, "--out", tmp_path / "attack", *attack)
    assert status == 0, err
    assert json.loads(out)["n"] == 8
    assert json.loads((tmp_path / "attack" / "run.json").read_text())["data"]["size"] == "48x32"
    method = ("--method", "ibp", "--eps", "0.001", "-n", "4", "--json")
    status, out, err = run_rivals("certify", run, photos, "--out", tmp_path / "certify", *method)
    assert status == 0, err
    assert json.loads(out)["n"] == 4


def test_a_classifier_is_hardened_and_fooled_by_a_generator(photos, classifiers, tmp_path, run_rivals):
    words = ("harden", photos, "--weights", classifiers("cnn"), "--eps", "0.03", "--steps", "1", *SHORT)
    assert call_main((*words, "--out", tmp_path / "hard")) == 0
    assert rivals.load(tmp_path / "hard").size == Size(32, 48)
    words = ("train", photos, "--against", classifiers("cnn"), "--hold-out", "8", *SHORT)
    assert call_main((*words, "--out", tmp_path / "fooling")) == 0
    attack = ("--attack", f"generator:{tmp_path / 'fooling'}", "-n", "8", "--no-alarms", "--json")
    status, _, err = run_rivals("attack", classifiers("cnn"), photos, "--out", tmp_path / "attack", *attack)
    assert status == 0, err


def test_generated_images_are_scored_at_their_size(photos, generators, classifiers, tmp_path, run_rivals):
    extractor = f"classifier:{classifiers('cnn')}"
    words = ("--metrics", "kid", "--extractor", extractor, "-n", "20", "--out", tmp_path / "scores", "--json")
    status, out, err = run_rivals("score", generators("mlp"), photos, *words)
    assert status == 0, err
    (value,) = json.loads(out)["values"]
    assert (value["real_size"], value["fake_size"]) == ("48x32", "48x32")
    assert value["resize"] == "antialiased bilinear to 48x32 px"


def test_other_images_are_resized_or_cut_to_what_a_model_takes(classifiers, tmp_path, run_rivals):
    for name, size in (("large", (60, 40)), ("square", (40, 40))):
        for i in range(4):
            path = tmp_path / name / ("cats", "dogs")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)
    words = ("--attack", "fgsm", "--no-alarms", "--json")
    status, _, err = run_rivals("attack", classifiers("cnn"), tmp_path / "large", "--out", tmp_path / "one", *words)
    assert status == 0, err
    assert "the images (the first has 60 x 40) are resized to 48x32 px, which the model takes" in err
    refused = run_rivals("attack", classifiers("cnn"), tmp_path / "square", "--out", tmp_path / "two", *words)
    assert_refused(refused, "is 40 x 40, which are not the proportions of 48 x 32", "--crop")
    words = (*words, "--crop", "--out", tmp_path / "three")
    assert run_rivals("attack", classifiers("cnn"), tmp_path / "square", *words).status == 0


def test_packed_images_are_cut_to_the_size_and_taken_as_they_are(photos, tmp_path, run_rivals):
    status, out, err = run_rivals("data", "pack", photos, tmp_path / "cut.zip", "--size", "12x24", "--crop", "--json")
    assert status == 0, err
    assert json.loads(out)["size"] == "12x24"
    images = rivals.load_images(tmp_path / "cut.zip", split="all")
    assert images.images.shape == (30, 3, 24, 12)
    assert images.size == Size(height=24, width=12)


@pytest.mark.parametrize("wrong", ["48x", "big", "48x32x3"])
def test_what_is_no_size_is_refused(wrong, photos, run_rivals):
    assert_refused(run_rivals("train", photos, "--size", wrong), f"'{wrong}' is not a size of images", "96x64")


def test_a_size_of_a_configuration_file(photos, tmp_path, run_rivals):
    Path(tmp_path / "wide.toml").write_text('size = "24x16"\n')
    words = ("train", photos, "--config", tmp_path / "wide.toml", "--recipe", "mlp", "--out", tmp_path / "run", *SHORT)
    assert run_rivals(*words, *GANS["mlp"]).status == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data_options"]["size"] == "24x16"
    assert torch.equal(rivals.load(tmp_path / "run").sample(2), rivals.load(tmp_path / "run").sample(2))
