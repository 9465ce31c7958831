"""Batches as functions of (seed, rank, lane, index)."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.data.imageset import ImageSet
from rivals.data.stream import Batches


def numbered(n, labelled=True):
    """Image i is filled with i, and its label is i; left half and right half differ by 128."""
    pixels = np.empty((n, 3, 8, 8), np.uint8)
    pixels[:] = np.arange(n, dtype=np.uint8)[:, None, None, None]
    pixels[..., 4:] += 128
    if not labelled:
        return ImageSet("numbers", "train", pixels)
    return ImageSet("numbers", "train", pixels, np.arange(n), tuple(map(str, range(n))))


def drawn(batches, index, lane=0):
    return batches.draw(index, lane)[1].tolist()


@given(
    n=st.integers(1, 40),
    batch=st.integers(1, 50),
    world=st.integers(1, 4),
    seed=st.integers(0, 9),
    lane=st.integers(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_every_epoch_shows_every_image_once_across_ranks(n, batch, world, seed, lane):
    images = numbered(n)
    ranks = [Batches(images, batch, seed=seed, rank=rank, world=world) for rank in range(world)]
    steps = -(-3 * n // (batch * world))
    stream = [image for index in range(steps) for rank in ranks for image in drawn(rank, index, lane)]
    for epoch in range(3):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@given(
    n=st.integers(1, 20), batch=st.integers(1, 30), order=st.lists(st.integers(0, 200), min_size=1, max_size=6),
    flip=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_a_batch_does_not_depend_on_what_was_drawn_before(n, batch, order, flip):
    images = numbered(n)
    used = Batches(images, batch, seed=3, flip=flip)
    for index in order:
        for lane in (0, 1):
            fresh = Batches(images, batch, seed=3, flip=flip)
            for one, other in zip(used.draw(index, lane), fresh.draw(index, lane), strict=True):
                assert torch.equal(one, other)


def test_images_belong_to_their_labels_and_are_copies():
    images = numbered(10)
    pixels, labels = Batches(images, 25, seed=0).draw(1)
    assert (pixels.dtype, labels.dtype, pixels.shape) == (torch.uint8, torch.int64, (25, 3, 8, 8))
    np.testing.assert_array_equal(pixels.numpy(), images.images[labels.numpy()])
    pixels.zero_()
    assert images.images[9, 0, 0, 0] == 9


def test_without_labels():
    batches = Batches(numbered(10, labelled=False), 4, seed=0)
    assert batches.n == 10
    assert batches.draw(0)[1] is None


def test_seeds_epochs_and_lanes_have_orders_of_their_own():
    images = numbered(100)
    orders = [
        drawn(Batches(images, 100, seed=seed), index, lane) for seed in (0, 1) for index in (0, 1) for lane in (0, 1)
    ]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_the_stream_is_the_same_in_every_version():
    """Resuming a run relies on this: the numbers below may change only together with the checkpoints' format."""
    assert drawn(Batches(numbered(12), 8, seed=0), 1) == [11, 4, 2, 6, 10, 8, 9, 2]


def test_flips_mirror_half_of_the_images_by_seed_rank_and_index():
    images = numbered(100)
    sides = {}
    for seed in (0, 1):
        for rank in (0, 1):
            for index in (0, 1):
                batches = Batches(images, 1000, seed=seed, rank=rank, world=2, flip=True)
                pixels, labels = batches.draw(index)
                left, right = pixels[:, 0, 0, 0], pixels[:, 0, 0, 7]
                flipped = left > right
                assert torch.equal(torch.where(flipped, right, left), labels.byte())
                assert torch.equal(left.int() - right.int(), torch.where(flipped, 128, -128))
                assert torch.equal(pixels[:, 2, 5], pixels[:, 0, 0])
                sides[seed, rank, index] = tuple(flipped.tolist())
    assert len(set(sides.values())) == len(sides)
    # Of 8,000 fair coins: within five standard deviations of a half.
    assert abs(np.mean(list(sides.values())) - 0.5) < 5 * 0.5 / 8000**0.5


def test_a_memory_map_is_drawn_from(tmp_path):
    images = numbered(10)
    images.images.tofile(tmp_path / "images")
    mapped = np.memmap(tmp_path / "images", np.uint8, mode="c", shape=images.images.shape)
    expected = Batches(images, 7, seed=0).draw(2)
    got = Batches(ImageSet("mapped", "train", mapped, images.labels, images.classes), 7, seed=0).draw(2)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))


def test_shifts_move_each_image_by_its_own_draw():
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
