"""LPIPS from files of weights: the formula, on a narrow VGG16."""

import pytest
import torch
from safetensors.torch import save_file

from rivals.base.errors import UserError
from rivals.extractors.lpips import LPIPS, MAPS
from rivals.extractors.vgg16 import STAGES
from rivals.extractors.weights import MissingWeights


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """VGG16 with 2 to 6 channels, and weights of its five maps."""
    home = tmp_path_factory.mktemp("lpips")
    torch.manual_seed(0)
    vgg, channels, place, linear = {}, 3, 0, {}
    for stage, convolutions in enumerate(STAGES):
        width = 2 + stage
        for _ in range(convolutions):
            vgg[f"features.{place}.weight"] = torch.randn(width, channels, 3, 3)
            vgg[f"features.{place}.bias"] = torch.randn(width)
            channels, place = width, place + 2
        place += 1
        linear[f"lin{stage}.model.1.weight"] = torch.rand(1, width, 1, 1)
    for number in (0, 3, 6):
        vgg |= {f"classifier.{number}.weight": torch.zeros(2, 2), f"classifier.{number}.bias": torch.zeros(2)}
    save_file(vgg, home / "vgg16.safetensors")
    save_file(linear, home / "linear.safetensors")
    save_file({f"lin{i}.model.1.weight": torch.ones(1, 64, 1, 1) for i in range(5)}, home / "other.safetensors")
    return home


def test_features_of_zero_have_a_finite_gradient(files):
    lpips = LPIPS(files / "linear.safetensors", files / "vgg16.safetensors")
    for layer in lpips.layers:
        if hasattr(layer, "bias") and layer.bias is not None:
            layer.bias.data.fill_(-100.0)  # every ReLU is off
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    lpips(x, torch.rand(1, 3, 32, 32)).sum().backward()
    assert bool(x.grad.isfinite().all())


def test_the_distance_is_the_weighted_one_of_unit_features(files):
    lpips = LPIPS(files / "linear.safetensors", files / "vgg16.safetensors")
    x, y = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    expected = torch.zeros(2)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)))
    maps = [[], []]
    for found, images in zip(maps, (x, y), strict=True):
        h = (2 * images - 1 - mean) / std
        for number, layer in enumerate(lpips.layers[: MAPS[-1] + 1]):
            h = layer(h)
            if number in MAPS:
                found.append(h / h.norm(dim=1, keepdim=True).clamp_min(1e-10))
    for a, b, weight in zip(*maps, lpips.weights, strict=True):
        expected += (weight * (a - b) ** 2).sum(1).mean((1, 2))
    assert torch.allclose(lpips(x, y), expected, rtol=1e-4)
    assert lpips(x, x).abs().max() == 0


def test_files_that_are_missing_or_of_another_network_are_refused(files):
    with pytest.raises(MissingWeights, match=r"no file of LPIPS's weights"):
        LPIPS(files / "nowhere.pth", files / "vgg16.safetensors")
    with pytest.raises(UserError, match="weights for another network"):
        LPIPS(files / "other.safetensors", files / "vgg16.safetensors")
    with pytest.raises(UserError, match="lack 'lin0"):
        LPIPS(files / "vgg16.safetensors", files / "vgg16.safetensors")
