"""Feature maps of an extractor, and distances of images by them."""

import pytest
import torch
from torch import nn

from rivals.base.errors import UserError
from rivals.extractors.base import Extractor
from rivals.extractors.classifier_features import open_classifier
from rivals.extractors.feature_maps import FeatureMaps, unit
from rivals.nets.factory import build_classifier


class Two(nn.Module):
    """Two resolutions, each with two layers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1))

    def forward(self, x):
        return self.layers(x).mean((2, 3)), None


@pytest.fixture(scope="module")
def maps():
    torch.manual_seed(0)
    return FeatureMaps(Extractor("two", Two(), lambda x: x / 255, size=8, resize="no"))


def test_the_last_map_of_each_resolution_is_taken(maps):
    x = torch.rand(2, 3, 8, 8)
    first, second = maps(x)
    layers = maps.extractor.net.layers
    assert torch.allclose(first, layers[:2](x), atol=1e-6)
    assert torch.allclose(second, layers(x), atol=1e-6)


def test_the_distance_is_that_of_unit_vectors_with_a_gradient(maps):
    x, y = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8).requires_grad_()
    distance = maps.distance(x, y)
    by_hand = [(unit(a) - unit(b)).square().sum(1).mean((1, 2)) for a, b in zip(maps(x), maps(y), strict=True)]
    assert torch.allclose(distance, sum(by_hand) / 2)
    assert maps.distance(x, x).max() < 1e-6
    distance.sum().backward()
    assert y.grad.abs().sum() > 0


def test_gray_is_repeated_and_another_number_of_channels_is_refused(maps):
    x = torch.rand(1, 1, 8, 8)
    assert torch.allclose(maps(x)[0], maps(x.repeat(1, 3, 1, 1))[0])
    net = build_classifier("resnet", size=8, channels=1, classes=2, widths=(4, 4))
    gray = FeatureMaps(open_classifier(net, size=8, channels=1))
    assert [each.shape[1:] for each in gray(x)] == [(4, 8, 8), (4, 4, 4)]
    with pytest.raises(UserError, match="made for images of 1 channels"):
        gray(torch.rand(1, 3, 8, 8))


def test_a_network_without_maps_is_refused():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(192, 2)

        def forward(self, x):
            return self.layer(x.flatten(1)), None

    with pytest.raises(UserError, match="flat has no feature maps"):
        FeatureMaps(Extractor("flat", Flat(), lambda x: x / 255, size=8, resize="no"))


def test_what_a_pooling_puts_out_at_the_end_is_no_map():
    """As in VGG16, whose fifth pooling no convolution follows."""
    net = Two()
    net.layers.append(nn.MaxPool2d(2))
    pooled = FeatureMaps(Extractor("two", net, lambda x: x / 255, size=8, resize="no"))
    assert [each.shape[-1] for each in pooled(torch.rand(1, 3, 8, 8))] == [8, 4]


def test_alpha_counts_and_color_behind_it_does_not(maps):
    rgba = torch.rand(1, 4, 8, 8)
    rgba[:, 3] = 0
    white = torch.ones(1, 3, 8, 8)
    assert torch.allclose(maps(rgba)[0], maps(white)[0])
    opaque = torch.cat([rgba[:, :3], torch.ones(1, 1, 8, 8)], 1)
    assert torch.allclose(maps(opaque)[0], maps(rgba[:, :3])[0])
    assert maps.distance(rgba, opaque) > 0.01
