"""Gray images of more than 8 bits: a model reads all images with the white level of those it was trained on."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rivals
from helpers.refusals import named
from rivals import Linf
from rivals.api.common.network_io import load

TINY = {"batch_size": 8, "quiet": True, "device": "cpu"}
CLASSIFIER = {**TINY, "widths": (4,), "recipe": "cnn"}
HARDEN = {**TINY, "widths": (4,), "net": "cnn", "until": "2 steps"}
GAN = {**TINY, "recipe": "dcgan", "generator_widths": (8, 4), "discriminator_widths": (4, 8), "latent_dim": 5}
WHITE = 2**14 - 1


def scan(place, levels, count=12):
    """Images in 16-bit files, of one class for each name, with values near its level; a folder or a zip."""
    noise = np.random.default_rng(0)
    files = {}
    for name, level in levels.items():
        for number in range(count):
            pixels = noise.integers(level * 8 // 10, level, (8, 8), endpoint=True).astype(np.uint16)
            pixels[0, 0] = level
            Image.fromarray(pixels).save(content := io.BytesIO(), "png")
            files[f"{name}/{number}.png"] = content.getvalue()
    if place.suffix == ".zip":
        with zipfile.ZipFile(place, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Scans of 14 bits, a classifier of their brightness, and scans that are dark, or bright beyond 14 bits."""
    home = tmp_path_factory.mktemp("white")
    scan(home / "scans", {"ant": 3000, "yak": WHITE})
    scan(home / "night", {"ant": 3000})
    scan(home / "night.zip", {"ant": 3000})
    scan(home / "glare.zip", {"ant": 3000, "yak": 40000})
    run = rivals.classify(str(home / "scans"), until="30 epochs", lr=0.02, out=home / "run", **CLASSIFIER)
    assert run.result()["accuracy/test"] == 1
    return home


@pytest.fixture
def place(home, monkeypatch, tmp_path):
    """A place to write to, from which ``home`` is seen."""
    for each in home.iterdir():
        (tmp_path / each.name).symlink_to(each)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("place")
def test_a_run_and_its_classifier_tell_the_white_level():
    info = json.loads(Path("run/run.json").read_text())
    assert info["data"]["white"] == info["data_options"]["white"] == load("run").about["white"] == WHITE


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("data", ["night", "night.zip"])
def test_darker_images_keep_their_brightness_where_they_are_evaluated(data, capsys):
    report = rivals.evaluate("run", data, Linf(0.01), attack="fgsm", out="attacked", alarms=False)
    assert report.clean.value == 1
    assert f"values up to 3,000: they are read as those with a white of {WHITE:,}" in capsys.readouterr().err
    assert json.loads(Path("attacked/run.json").read_text())["data"]["white"] == WHITE
    certified = rivals.certify("run", data, sigma=0.02, samples=50, radii=(0.0,), quiet=True)
    assert certified.curve[0].lower.value == 1


@pytest.mark.usefixtures("place")
def test_values_above_the_white_level_are_refused_where_a_model_meets_them():
    parts = ("'yak/0.png'", "values up to 40,000, above 16,383", "--white 65535")
    with named(*parts):
        rivals.evaluate("run", "glare.zip", Linf(0.01), attack="fgsm", skip_bad=True, quiet=True, out="no")
    with named(*parts):
        rivals.certify("run", "glare.zip", quiet=True, out="no")
    with named(*parts):
        rivals.harden("scans", Linf(0.1), extra="glare.zip", out="no", **HARDEN)
    with named(*parts):
        rivals.harden("glare.zip", Linf(0.1), weights="run", out="no", **HARDEN)
    assert not Path("no").exists()
    report = rivals.evaluate("run", "glare.zip", Linf(0.01), attack="fgsm", quiet=True, alarms=False, white=65535)
    assert report.n == 24  # what is asked for goes


@pytest.mark.usefixtures("place")
def test_a_run_from_start_weights_reads_its_images_as_they_did_and_so_does_its_resumption():
    scan(Path("dim"), {"train/ant": 700, "train/yak": 3500, "test/ant": 900})
    run = rivals.harden("dim", Linf(0.1), weights="run", out="hard", **HARDEN)
    assert run.info["data"]["white"] == run.classifier.about["white"] == WHITE
    read = rivals.load_images("dim", white=WHITE)
    assert run.info["data"]["hash"] == read.hash != rivals.load_images("dim").hash
    assert read.images.max() == round(3500 / WHITE * 255)
    rivals.harden(None, None, out="hard", resume=True, quiet=True, device="cpu")


@pytest.mark.usefixtures("place")
def test_a_classifier_to_compare_with_has_the_same_white_level():
    scan(Path("dim"), {"ant": 700, "yak": 3500})
    with named("--against", "a white of 16,383", "'dim' is read with 4,095", "--white 16383"):
        rivals.harden("dim", Linf(0.1), against="run", out="no", **HARDEN)
    rivals.harden("dim", Linf(0.1), against="run", white=WHITE, out="yes", **HARDEN)


@pytest.mark.usefixtures("place")
def test_real_images_of_a_score_are_read_as_those_of_the_generator():
    run = rivals.train("scans", until="2 steps", out="gan", **GAN)
    assert run.generator.about["white"] == WHITE
    expected = rivals.load_images("night", white=WHITE).hash
    for subject in ("gan", "gan/generator.safetensors", run.generator):
        scores = rivals.score(subject, "night", extractor="classifier:run", metrics="kid", n=12, out="s", quiet=True)
        assert scores.values[0].protocol["real_hash"] == expected
    own = rivals.score("gan", extractor="classifier:run", metrics="kid", n=12, quiet=True)
    assert own.values[0].protocol["real_hash"] == rivals.load_images("scans").hash


@pytest.mark.usefixtures("place")
def test_images_that_were_read_with_another_white_level_are_told(capsys):
    images = rivals.load_images("night")
    capsys.readouterr()
    rivals.evaluate("run", images, Linf(0.01), attack="fgsm", alarms=False)
    assert "a white of 4,095, and the model was trained with 16,383: read the images with white=16383" in (
        " ".join(capsys.readouterr().err.split())
    )


@pytest.mark.usefixtures("place")
def test_images_of_8_bits_have_no_white_level():
    for name, level in (("ant", 50), ("yak", 200)):
        Path("plain", name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(np.full((8, 8), level + number, np.uint8)).save(Path("plain", name, f"{number}.png"))
    assert rivals.load_images("plain").hash == rivals.load_images("plain", white=4095).hash
    run = rivals.classify("plain", until="1 steps", out="8bit", **CLASSIFIER)
    assert run.info["data"]["white"] is run.classifier.about["white"] is None
    assert rivals.evaluate("run", "plain", Linf(0.01), attack="fgsm", alarms=False, quiet=True).n == 24
