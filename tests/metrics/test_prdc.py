"""Nearest-neighbor metrics: definitions, ties, block size, order, rounding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.metrics import authenticity, density_coverage, nearest, pairwise, precision_recall
from rivals.metrics.prdc import nearest_images


def normal(n, d, seed=0, shift=0.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, d, generator=generator, dtype=torch.float64) + shift).to(dtype)


def by_definition(real, fake, k, closed):
    """Precision, recall, density, coverage from all exact distances at once."""
    distances = lambda a, b: ((a.double()[:, None] - b.double()[None]) ** 2).sum(2)  # noqa: E731
    radii = [distances(x, x).fill_diagonal_(torch.inf).sort(1).values[:, k - 1] for x in (real, fake)]
    less = torch.le if closed else torch.lt
    in_real = less(distances(real, fake), radii[0][:, None])
    in_fake = less(distances(real, fake), radii[1][None])
    means = (in_real.any(0), in_fake.any(1), in_real.sum(0) / k, in_real.any(1))
    return [float(each.double().mean()) for each in means]


@given(st.integers(6, 40), st.integers(6, 40), st.integers(1, 5), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_all_four_equal_their_definitions_also_with_ties(n, m, k, coarse, seed):
    """Coarse points are on a small grid, so many distances are equal and many points coincide."""
    real, fake = normal(n, 3, seed, dtype=torch.float32), normal(m, 3, seed + 1, 0.3, dtype=torch.float32)
    if coarse:
        real, fake = real.round(), fake.round()
    assert precision_recall(real, fake, k) == pytest.approx(by_definition(real, fake, k, closed=True)[:2])
    assert density_coverage(real, fake, k) == pytest.approx(by_definition(real, fake, k, closed=False)[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_do_not_depend_on_block_size_order_or_offset(dtype, monkeypatch):
    """Points far from the origin, where float32 is coarse, with copies among them."""
    real, fake = normal(120, 5, shift=300, dtype=dtype), normal(90, 5, 1, 300.3, dtype=dtype)
    fake[:20] = real[:20]
    expected = [precision_recall(real, fake), density_coverage(real, fake), authenticity(real, fake)]
    assert expected[0] == pytest.approx(by_definition(real, fake, 3, closed=True)[:2])
    assert expected[1] == pytest.approx(by_definition(real, fake, 5, closed=False)[2:])
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    indices, distances = nearest(real, fake, 4)
    monkeypatch.setattr(pairwise, "_BLOCK", 17)
    monkeypatch.setattr(pairwise, "_EXACT", 40)
    found = [f(real[order], fake.flip(0)) for f in (precision_recall, density_coverage, authenticity)]
    assert found == expected
    again = nearest(real[order], fake.flip(0), 4)
    torch.testing.assert_close(again.distances, distances.flip(0), rtol=1e-12, atol=0)
    assert torch.equal(order[again.indices], indices.flip(0))


def test_nearest_is_exact_where_the_fast_distance_is_not():
    """Copies at a distance of exactly 0 and near-copies, in float32, far from the mean."""
    train = torch.cat([normal(200, 64, shift=5), normal(200, 64, 1, shift=-5)]).float()
    fake = train[[7, 311, 50]].clone()
    fake[2, 0] += 2.0**-12
    indices, distances = nearest(train, fake, 3)
    assert indices[:, 0].tolist() == [7, 311, 50]
    step = float(fake[2, 0].double() - train[50, 0].double())
    assert distances[:, 0].tolist() == [0, 0, step]
    expected = torch.cdist(fake.double(), train.double(), compute_mode="donot_use_mm_for_euclid_dist").sort(1)
    torch.testing.assert_close(distances, expected.values[:, :3])
    assert torch.equal(indices, expected.indices[:, :3])


def test_ties_go_to_the_lower_index():
    train = torch.zeros(30, 2)
    found = nearest(train, torch.ones(1, 2), 2).distances.flatten()
    assert found.tolist() == pytest.approx([2**0.5, 2**0.5])  # a square root of rounded sums, which differ by processor
    assert nearest(torch.cat([torch.ones(1, 2), train[:3]]), torch.zeros(1, 2), 4).indices.tolist() == [[1, 2, 3, 0]]


def test_reduced_matmul_precision_does_not_change_the_result():
    real, fake = normal(300, 32, dtype=torch.float32), normal(300, 32, 1, dtype=torch.float32)
    expected, before = precision_recall(real, fake), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert precision_recall(real, fake) == expected
    finally:
        torch.set_float32_matmul_precision(before)


def test_errors_of_fast_distances_are_within_their_bound():
    """The errors are not all 0 either, so the test means something."""
    pairs = pairwise.Pairs(
        normal(200, 300, dtype=torch.float32).relu(), normal(150, 300, 1, dtype=torch.float32).relu()
    )
    rows, columns = slice(0, 200), slice(0, 150)
    squared, bound = pairs.fast(rows, columns)
    i, j = torch.meshgrid(torch.arange(200), torch.arange(150), indexing="ij")
    errors = (squared - pairs.exact(i.flatten(), j.flatten()).view(200, 150)).abs()
    assert 0 < float((errors / bound).max()) < 0.5


def test_identical_disjoint_and_independent_sets():
    x, y = normal(400, 8), normal(400, 8, 1)
    assert precision_recall(x, x) == (1, 1)
    assert density_coverage(x, x) == (1, 1)
    assert precision_recall(x, x + 100) == (0, 0)
    assert density_coverage(x, x + 100) == (0, 0)
    assert min(precision_recall(x, y)) > 0.6
    density, coverage = density_coverage(x, y)
    assert density == pytest.approx(1, abs=0.1)
    assert coverage > 0.9
    shifted = precision_recall(x, y + 1)
    assert max(shifted) < min(precision_recall(x, y))
    assert precision_recall(y, x) == precision_recall(x, y)[::-1]


def test_noise_and_one_image_repeated():
    x = normal(400, 4)
    noise = torch.rand(400, 4, dtype=torch.float64) * 40 - 20
    assert precision_recall(x, noise).precision < 0.1
    assert density_coverage(x, noise).density < 0.1
    mean = x.mean(0).expand(400, 4)
    collapsed = precision_recall(x, mean)
    assert collapsed == (1, 0)
    assert density_coverage(x, mean).coverage < 0.1
    for same in (torch.zeros(50, 4), torch.ones(50, 4)):
        assert precision_recall(same, same) == (1, 1)  # on the boundary of a ball of radius 0
        assert density_coverage(same, same) == (0, 0)  # not in the open ball


def test_memorized_images_are_not_authentic():
    train = normal(500, 8)
    assert authenticity(train, train[:100]) == 0
    assert authenticity(train, train[:100] + 1e-9) == 0
    assert authenticity(train, train[:100] + 100) == 1
    assert 0.4 < authenticity(train, normal(300, 8, 1)) < 0.8
    mixed = torch.cat([train[:50], normal(50, 8, 1) + 100])
    assert authenticity(train, mixed) == 0.5
    # A training image with an exact copy is closer to it than to any generated image.
    with_copy = torch.cat([train, train[:1]])
    assert authenticity(with_copy, train[:1] + 1e-3) == 1


def test_numpy_and_half_precision_are_accepted():
    x, y = normal(60, 4), normal(50, 4, 1)
    assert precision_recall(x.numpy(), y.numpy()) == precision_recall(x, y)
    assert nearest(x.half(), y.half(), 1).distances.dtype == torch.float64
    assert np.isfinite(density_coverage(x.bfloat16(), y)).all()


def test_nearest_images_are_by_pixels():
    source = torch.Generator().manual_seed(0)
    train = torch.randint(0, 256, (5000, 3, 6, 6), dtype=torch.uint8, generator=source)
    fake = torch.cat(
        [train[[4999, 2047, 2048]], torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8, generator=source)]
    )
    found = nearest_images(train, fake, 4)
    truth = (fake.double().flatten(1)[:, None] - train.double().flatten(1)).square().sum(2).sqrt()
    distances, indices = truth.sort(dim=1, stable=True)
    assert torch.equal(found.indices, indices[:, :4]) and found.indices[:3, 0].tolist() == [4999, 2047, 2048]
    torch.testing.assert_close(found.distances, distances[:, :4], rtol=1e-12, atol=0)


FIVE, SIX = torch.zeros(5, 2), torch.zeros(6, 2)
BYTES = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
BAD = {
    "fake images of type torch.float32 and shape .*: give uint8": lambda: nearest_images(BYTES, BYTES.float(), 1),
    "the training set has 3 images: give 4 or more": lambda: nearest_images(BYTES, BYTES, 4),
    "the fake set has 0 images: give 1 or more": lambda: nearest_images(BYTES, BYTES[:0], 1),
    "0 neighbors: ask for 1 or more, of images": lambda: nearest_images(BYTES, BYTES, 0),
    "training images are .1, 2, 2. and fake ones .1, 1, 2.": lambda: nearest_images(BYTES, BYTES[:, :, :1], 1),
    "the real set has 3 images: give 4 or more, since each needs 3 neighbors": lambda: precision_recall(FIVE[:3], SIX),
    "the fake set has 1 image: give 4 or more, since each needs": lambda: precision_recall(FIVE, SIX[:1]),
    "the real set has 5 images: give 6 or more, since each needs 5": lambda: density_coverage(FIVE, SIX[:1]),
    "the fake set is empty": lambda: density_coverage(SIX, SIX[:0]),
    "k = 0 gives no radius": lambda: precision_recall(FIVE, SIX, k=0),
    "the training set has 5 images: give 7 or more, since 7 nearest": lambda: nearest(FIVE, SIX, 7),
    "0 neighbors: ask for 1 or more": lambda: nearest(FIVE, SIX, 0),
    "the training set has 1 image: give 2 or more": lambda: authenticity(FIVE[:1], SIX),
    "training features have 2 dimensions and fake ones 1": lambda: nearest(FIVE, SIX[:, :1], 1),
    "the fake features of image 0 are not finite": lambda: precision_recall(FIVE, SIX + torch.inf),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_in_one_line(message):
    with pytest.raises(UserError, match=message) as raised:
        BAD[message]()
    assert "\n" not in str(raised.value)
