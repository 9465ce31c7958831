"""The grid of nearest training images that every training writes, and its section in the report."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.fake_runs import fake_run
from rivals import train
from rivals.api.training import nearest_train_images
from rivals.base.run_folder import Run
from rivals.data.imageset import ImageSet
from rivals.data.selection import Selection
from rivals.metrics.prdc import nearest_images
from rivals.reports.report import write_report

HEADING = "Nearest training images"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    home = tmp_path_factory.mktemp("photos")
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / f"{i}.png")
    return home


def trained(photos, out, **settings):
    return train(str(photos), recipe="mlp", until="30 steps", out=out, batch_size=4, quiet=True, **settings)


def test_training_writes_the_grid_without_changing_the_generator(photos, tmp_path, monkeypatch):
    run = trained(photos, tmp_path / "with")
    assert run.info["nearest_images"] == {"grid": "nearest.png", "space": "pixels", "n_generated": 10, "n_train": 12}
    with Image.open(run.folder / "nearest.png") as picture:
        assert picture.mode == "RGB" and picture.height == 10 * 64 + 9 * 2
    page = run.report.read_text()
    assert HEADING in page and "of all 12" in page
    monkeypatch.setattr(nearest_train_images, "SPEED", 1.0)  # a search that would take minutes, after a run of seconds
    other = trained(photos, tmp_path / "without")
    assert not (other.folder / "nearest.png").exists() and HEADING not in other.report.read_text()
    assert (run.folder / "generator.safetensors").read_bytes() == (other.folder / "generator.safetensors").read_bytes()


class MemorizingGenerator:
    """A generator that has memorized two images."""

    classes = 2

    def __init__(self, images):
        self.images = images

    def latents(self, n, seed):
        return np.arange(n) + seed

    def generate(self, latents, labels):
        assert labels.tolist() == [i % 2 for i in range(len(latents))]
        return torch.from_numpy(self.images[[latent % 2 * 40 for latent in latents]])


@pytest.mark.parametrize("rows", [1, 7, 50])
def test_images_are_searched_block_by_block(monkeypatch, rows):
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (25, 1, 4, 4), dtype=np.uint8).repeat(2, 0)  # each twice, the lower index first
    samples = torch.from_numpy(noise.integers(0, 256, (3, 1, 4, 4), dtype=np.uint8))
    expected = nearest_images(torch.from_numpy(images), samples, 5).indices
    view = Selection(images, np.arange(50))
    copied = []
    monkeypatch.setattr(
        Selection, "__getitem__", lambda self, index: copied.append(len(images[index])) or self.images[index]
    )
    monkeypatch.setattr(nearest_train_images, "BLOCK", 16 * rows)
    found = nearest_train_images._nearest(ImageSet("noise", "train", view), samples, 5)
    assert torch.equal(found, expected)
    assert max(copied) <= rows


def test_memorized_image_is_its_own_nearest_neighbor(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (50, 1, 8, 8), dtype=np.uint8)
    run = Run.create(tmp_path, {"command": "train"})
    data = ImageSet("noise", "train", images)
    nearest_train_images.save_nearest(run, MemorizingGenerator(images), data, 4, seed=1, seconds=60.0)
    with Image.open(tmp_path / "nearest.png") as opened:
        picture = np.asarray(opened)
    for row, which in enumerate((40, 0, 40, 0)):
        tile = images[which, 0].repeat(8, 0).repeat(8, 1)
        top = row * 66
        assert np.array_equal(picture[top : top + 64, :64], tile)
        assert np.array_equal(picture[top : top + 64, 76:140], tile)
        assert not np.array_equal(picture[top : top + 64, 142:206], tile)


@pytest.mark.parametrize("entry", [None, {"grid": "gone.png"}, {"grid": "../run.json"}, {"grid": 5}, "text"])
def test_page_without_the_grid(tmp_path, entry):
    run = fake_run(tmp_path / "run", steps=20, **({} if entry is None else {"nearest_images": entry}))
    assert HEADING not in write_report([run], tmp_path / "page.html").read_text()
