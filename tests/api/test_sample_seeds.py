"""``rivals sample --seeds``: one image for each seed, whatever the others are."""

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from rivals.api.common.network_io import FRAMES, save_network
from rivals.base.errors import UserError
from rivals.nets.factory import build_generator


@pytest.fixture(params=[0, 3], ids=["unconditional", "conditional"])
def file(request, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build_generator("mlp", size=8, channels=3, classes=request.param, latent_dim=4, widths=(8,))
    save_network(net, tmp_path / "generator.safetensors", {})
    return str(tmp_path / "generator.safetensors")


def test_the_image_of_a_seed_is_the_first_of_that_seed(file, tmp_path):
    generator = rivals.load(file)
    seeds = [40, 3, *range(100, 130)]
    images = generator.sample(seeds=seeds)
    for image, seed in zip(images, seeds, strict=True):
        assert (image.int() - generator.sample(1, seed=seed)[0].int()).abs().max() <= 1  # passes of other sizes round
    written = rivals.sample(file, seeds="40,3,100-129", folder=tmp_path / "out", grid=tmp_path / "grid.png")
    assert sorted(path.name for path in (tmp_path / "out").iterdir())[:2] == ["seed-000003.png", "seed-000040.png"]
    with Image.open(tmp_path / "out" / "seed-000117.png") as picture:
        chosen = np.asarray(picture).transpose(2, 0, 1)
    assert np.array_equal(chosen, images[seeds.index(117)].numpy())
    assert set(written) == {"folder", "grid"}


def test_an_animation_passes_through_the_seeds(file, tmp_path):
    rivals.sample(file, seeds="7,2-3", gif=tmp_path / "walk.gif")
    with Image.open(tmp_path / "walk.gif") as film:
        assert film.n_frames == 3 * FRAMES


def test_truncation_and_label_apply_and_the_file_is_named_by_the_seeds(file, tmp_path):
    generator = rivals.load(file)
    label = {"label": "2"} if generator.classes else {}
    written = rivals.sample(file, seeds="5, 9", truncation=0.0, **label)
    assert written["grid"] == str(tmp_path / "sample-5,9.png")
    labels = 2 if generator.classes else None
    still = generator.sample(seeds=[5, 9], truncation=0.0, labels=labels)
    assert torch.equal(still[0], still[1])
    if generator.classes:
        assert not torch.equal(still, generator.sample(seeds=[5, 9], truncation=0.0))


def test_seeds_and_numbers_of_images_exclude_each_other(file):
    generator = rivals.load(file)
    for given in ({"n": 4, "seeds": [1]}, {}, {"seeds": []}):
        with pytest.raises(UserError, match="seed"):
            generator.sample(**given)
    for given, name in (({"n": 4}, "-n"), ({"seed": 1}, "--seed")):
        with pytest.raises(UserError, match=f"already says which images: leave {name} out"):
            rivals.sample(file, seeds="1-3", **given)
