"""Structure by self-similarity: closed forms, and what it is to see and not to see in images."""

import importlib.util

import pytest
import torch

from rivals.extractors.efficientnet_lite0 import PACKAGE, open_lite0
from rivals.extractors.feature_maps import FeatureMaps
from rivals.metrics.self_similarity import MOST_PLACES, self_similarity, structure


def random_maps(seed, channels=6, side=5):
    return torch.randn(4, channels, side, side, generator=torch.Generator().manual_seed(seed))


def test_self_similarities_are_the_cosines_of_all_pairs_of_places():
    maps = torch.tensor([[[[1.0, 0.0], [2.0, 3.0]], [[0.0, 1.0], [0.0, 3.0]]]])
    half = 0.5**0.5
    assert self_similarity(maps)[0].tolist() == pytest.approx([0, 1, half, 0, half, half])
    assert self_similarity(torch.rand(2, 3, 40, 6)).shape == (2, MOST_PLACES * 6 * (MOST_PLACES * 6 - 1) // 2)


def test_structure_of_known_maps_is_the_correlation_worked_out_by_hand():
    """Places a a b b and a b a b: of six pairs two are alike, none of them in both, so -(6/9) / (2 - 6/9)."""
    rows, columns = torch.tensor([[0, 0], [1, 1]]), torch.tensor([[0, 1], [0, 1]])
    one, other = (torch.nn.functional.one_hot(each, 2).permute(2, 0, 1)[None].float() for each in (rows, columns))
    assert float(structure([one], [other])) == pytest.approx(-0.5, abs=1e-6)
    assert float(structure([one, one], [one, other])) == pytest.approx((1 - 0.5) / 2, abs=1e-6)


def test_rotated_and_scaled_features_have_the_same_structure_and_unrelated_ones_none():
    maps = random_maps(0)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    moved = 3 * torch.einsum("dc,bchw->bdhw", rotation, maps)
    assert structure([maps], [moved]).tolist() == pytest.approx([1] * 4, abs=1e-5)
    assert structure([maps], [random_maps(2)]).abs().max() < 0.3
    assert structure([maps], [maps.flip(0)]).abs().max() < 0.3


def test_what_is_the_same_everywhere_has_no_structure():
    maps = random_maps(0)
    flat = maps[:, :, :1, :1].expand_as(maps) * (1 + 1e-7 * maps)
    assert structure([maps], [flat]).tolist() == structure([flat], [flat]).tolist() == [0] * 4


@pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason="the extra lite0 is not installed")
def test_recolored_images_keep_their_structure_and_those_of_other_inputs_do_not():
    """Blobs of one color before another."""
    maps = FeatureMaps(open_lite0())
    coarse = torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    blobs = torch.nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1)

    def painted(*colors):
        first, second = (torch.tensor(each).view(1, 3, 1, 1) for each in colors)
        return first + (second - first) * blobs

    x = painted((0.1, 0.2, 0.7), (0.9, 0.6, 0.1))
    recolors = {"other colors": painted((0.2, 0.5, 0.1), (0.9, 0.9, 0.8)), "darker": x**1.5, "negative": 1 - x}
    with torch.no_grad():
        of_x = maps(x)
        values = {name: float(structure(of_x, maps(each)).mean()) for name, each in recolors.items()}
        same, shuffled = (float(structure(of_x, maps(each)).mean()) for each in (x, x.roll(1, 0)))
    assert same == pytest.approx(1, abs=1e-5)
    assert min(values.values()) > 0.6 and shuffled < 0.3, (values, shuffled)
