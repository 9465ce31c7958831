"""Batches as functions of (seed, rank, stream, index)."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet


def numbered(n, labeled=True):
    """Image i is filled with i, and its label is i; left half and right half differ by 128."""
    pixels = np.empty((n, 3, 8, 8), np.uint8)
    pixels[:] = np.arange(n, dtype=np.uint8)[:, None, None, None]
    pixels[..., 4:] += 128
    if not labeled:
        return ImageSet("numbers", "train", pixels)
    return ImageSet("numbers", "train", pixels, np.arange(n), tuple(map(str, range(n))))


def drawn(batches, index, stream=0, part=0):
    return batches.draw(index, stream, part)[1].tolist()


@given(
    n=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    micro_batches=st.integers(1, 4),
    seed=st.integers(0, 9),
    stream=st.integers(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_every_epoch_has_every_image_once_over_all_micro_batches(n, batch_size, micro_batches, seed, stream):
    batches = Batches(numbered(n), micro_batches * batch_size, seed=seed, micro_batches=micro_batches)
    steps, parts = -(-3 * n // batches.batch_size), range(micro_batches)
    stream = [image for index in range(steps) for part in parts for image in drawn(batches, index, stream, part)]
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(
    n=st.integers(1, 20), batch_size=st.integers(1, 30), order=st.lists(st.integers(0, 200), min_size=1, max_size=6),
    flip=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_batch_does_not_depend_on_earlier_batches(n, batch_size, order, flip):
    images = numbered(n)
    used = Batches(images, batch_size, seed=3, flip=flip)
    for index in order:
        for stream in (0, 1):
            fresh = Batches(images, batch_size, seed=3, flip=flip)
            for one, other in zip(used.draw(index, stream), fresh.draw(index, stream), strict=True):
                assert torch.equal(one, other)


def test_images_match_their_labels_and_are_copies():
    images = numbered(10)
    pixels, labels = Batches(images, 25, seed=0).draw(1)
    assert (pixels.dtype, labels.dtype, pixels.shape) == (torch.uint8, torch.int64, (25, 3, 8, 8))
    np.testing.assert_array_equal(pixels.numpy(), images.images[labels.numpy()])
    pixels.zero_()
    assert images.images[9, 0, 0, 0] == 9


def test_without_labels():
    batches = Batches(numbered(10, labeled=False), 4, seed=0)
    assert batches.n == 10
    assert batches.draw(0)[1] is None


def test_seeds_epochs_and_streams_have_different_orders():
    images = numbered(100)
    orders = [
        drawn(Batches(images, 100, seed=seed), index, stream)
        for seed in (0, 1)
        for index in (0, 1)
        for stream in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_the_stream_is_the_same_in_every_version():
    """Resuming a run relies on this: the numbers below may change only together with the checkpoints' format."""
    assert drawn(Batches(numbered(12), 8, seed=0), 1) == [11, 4, 2, 6, 10, 8, 9, 2]


def test_flips_depend_on_seed_micro_batch_and_index_with_probability_one_half():
    images = numbered(100)
    sides = {}
    for seed in (0, 1):
        for part in (0, 1):
            for index in (0, 1):
                batches = Batches(images, 2000, seed=seed, micro_batches=2, flip=True)
                pixels, labels = batches.draw(index, part=part)
                left, right = pixels[:, 0, 0, 0], pixels[:, 0, 0, 7]
                flipped = left > right
                assert torch.equal(torch.where(flipped, right, left), labels.byte())
                assert torch.equal(left.int() - right.int(), torch.where(flipped, 128, -128))
                assert torch.equal(pixels[:, 2, 5], pixels[:, 0, 0])
                sides[seed, part, index] = tuple(flipped.tolist())
    assert len(set(sides.values())) == len(sides)
    # Of 8,000 fair coins: within five standard deviations of a half.
    assert abs(np.mean(list(sides.values())) - 0.5) < 5 * 0.5 / 8000**0.5


def test_batches_of_a_memory_map(tmp_path):
    images = numbered(10)
    images.images.tofile(tmp_path / "images")
    mapped = np.memmap(tmp_path / "images", np.uint8, mode="c", shape=images.images.shape)
    expected = Batches(images, 7, seed=0).draw(2)
    got = Batches(ImageSet("mapped", "train", mapped, images.labels, images.classes), 7, seed=0).draw(2)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def test_each_image_has_its_own_shift():
    pixels = np.random.default_rng(0).integers(1, 256, (40, 3, 8, 8), dtype=np.uint8)
    images = ImageSet("noise", "train", pixels, np.arange(40), tuple(map(str, range(40))))
    moved, labels = Batches(images, 40, seed=1, shift=2).draw(3)
    again, _ = Batches(images, 40, seed=1, shift=2).draw(3)
    assert torch.equal(moved, again)
    found = set()
    for image, label in zip(moved.numpy(), labels.tolist(), strict=True):
        padded = np.pad(pixels[label], ((0, 0), (2, 2), (2, 2)))
        places = [
            (down, across)
            for down in range(5)
            for across in range(5)
            if np.array_equal(padded[:, down : down + 8, across : across + 8], image)
        ]
        assert len(places) == 1
        found.add(places[0])
    assert len(found) > 10  # of 25 places, 40 draws
