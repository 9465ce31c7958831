"""NDB and k-means, on distributions that are the same or differ in a known way."""

import pytest
import torch

from rivals.base.errors import UserError
from rivals.metrics.mode_coverage import square
from rivals.metrics.ndb import kmeans, ndb, nearest_center


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def one_broken(n):
    points = torch.zeros(n, 2)
    points[2, 1] = torch.nan
    return points


def test_kmeans_finds_separated_clusters():
    mixture = square()
    centers = kmeans(mixture.sample(2000), 25)
    assert torch.cdist(centers, mixture.centers).amin(0).max() < 0.05
    assert sorted(nearest_center(mixture.centers, centers).tolist()) == list(range(25))
    assert torch.equal(centers, kmeans(mixture.sample(2000), 25))
    assert kmeans(torch.ones(10, 2), 3).isfinite().all()  # fewer distinct points than centers


def test_ndb_counts_chance_for_the_same_distribution_and_most_bins_for_another():
    sample = lambda n, seed, scale=1.0: scale * torch.randn(n, 2, generator=seeded(seed))  # noqa: E731
    train = sample(2000, 0)
    same = ndb(train, sample(2000, 1), bins=20)
    assert same.by_chance == pytest.approx(1)
    assert same.different <= 5  # binomial(20, 0.05): above 5 three times in 10,000
    assert same.jsd < 0.01
    half = ndb(train, train[train[:, 0] > 0], bins=20)
    assert half.different > 15 and half.jsd > 0.15
    wide = ndb(train, sample(2000, 1, 2.0), bins=20)
    assert wide.different > 5
    assert ndb(train, train, bins=20).different == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ndb(torch.zeros(4, 2), torch.zeros(4, 2)), "has 4 images: give 100 or more"),
        (lambda: ndb(torch.zeros(400, 2), torch.zeros(0, 2)), "the generated set is empty"),
        (lambda: ndb(torch.zeros(400, 2), torch.zeros(4, 3)), "2 dimensions and generated ones 3"),
        (lambda: ndb(one_broken(400), torch.zeros(4, 2)), "real features of image 2 are not finite"),
        (lambda: ndb(torch.zeros(400, 2), one_broken(4)), "generated features of image 2 are not finite"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
