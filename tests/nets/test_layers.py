"""The layers against their definitions: folded convolutions, resampling, spectral norm, labels."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.nets.conditioning import ConditionalBatchNorm2d, ProjectionHead
from rivals.nets.dcgan import UpLayer
from rivals.nets.factory import build_discriminator, build_generator
from rivals.nets.resampling import DownConv2d, UpConv2d, downsample, upsample

SIDES = st.integers(2, 9)


def assert_same(layer, x, plain):
    """The same values and the same gradients of x, weight and bias, in double precision."""
    layer, x = layer.double(), x.double().requires_grad_()
    ours, theirs = layer(x), plain(x, layer.weight, layer.bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(ours)
    wanted = (x, layer.weight, layer.bias)
    for mine, other in zip(
        torch.autograd.grad(ours, wanted, upstream), torch.autograd.grad(theirs, wanted, upstream), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(SIDES, SIDES)
def test_up_convolution_is_nearest_upsampling_then_convolution(height, width):
    assert_same(
        UpConv2d(3, 5),
        torch.randn(2, 3, height, width),
        lambda x, w, b: F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), w, b, padding=1),
    )


@settings(max_examples=20, deadline=None)
@given(SIDES, SIDES)
def test_down_convolution_is_convolution_then_average_pooling(height, width):
    assert_same(
        DownConv2d(3, 5),
        torch.randn(2, 3, height, width),
        lambda x, w, b: F.avg_pool2d(F.conv2d(x, w, b, padding=1), 2),
    )


@pytest.mark.parametrize(("upsample", "checkered"), [("transposed", True), ("nearest", False)])
def test_only_transposed_convolutions_draw_a_checkerboard_on_a_flat_map(upsample, checkered):
    layer = UpLayer(3, 2, 0, upsample).eval()
    flat = torch.rand(1, 3, 1, 1).expand(1, 3, 6, 5)
    inside = layer(flat, None)[..., 2:-2, 2:-2]
    assert bool((inside - inside[..., :1, :1]).abs().max() > 1e-3) == checkered


def filtered(x):
    """x (B, C, H, W) under the kernel [1, 3, 3, 1] / 8 along both axes, two zeros before and one after."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype) / 8
    flat = F.pad(x, (2, 1, 2, 1)).flatten(0, 1)[:, None]
    rows = F.conv2d(flat, taps.view(1, 1, 1, 4))
    return F.conv2d(rows, taps.view(1, 1, 4, 1)).view(x.shape)


def test_upsampling_is_zero_insertion_then_the_kernel():
    x = torch.randn(2, 3, 4, 5).double()
    spread = torch.zeros(2, 3, 8, 10).double()
    spread[..., ::2, ::2] = x
    torch.testing.assert_close(upsample(x), 4 * filtered(spread))
    assert torch.allclose(upsample(torch.ones(1, 1, 4, 4))[..., 1:-1, 1:-1], torch.ones(6, 6))


def test_downsampling_is_the_kernel_then_every_second_pixel():
    x = torch.randn(2, 3, 8, 10).double()
    torch.testing.assert_close(downsample(x), filtered(F.pad(x, (0, 1, 0, 1)))[..., 1::2, 1::2])


def test_upsampling_is_the_transpose_of_downsampling():
    x, y = torch.randn(1, 2, 4, 4).double(), torch.randn(1, 2, 8, 8).double()
    torch.testing.assert_close((upsample(x) * y).sum(), 4 * (x * downsample(y)).sum())


@pytest.fixture
def normalized():
    """A small discriminator with spectral norm everywhere, and images for it."""
    torch.manual_seed(0)
    net = build_discriminator("sngan", size=16, channels=3, classes=4, widths=(6, 5, 5))
    return net, torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])


def spectra(net):
    """The largest singular value of every normalized weight, by name."""
    return {
        name: torch.linalg.matrix_norm(module.weight.flatten(1), 2).item()
        for name, module in net.named_modules()
        if hasattr(module, "parametrizations")
    }


def test_spectral_norm_of_every_weight_is_1(normalized):
    net, x, labels = normalized
    for _ in range(60):
        net(x, labels)
    found = spectra(net.eval())
    weights = [name for name, p in net.named_parameters() if p.ndim > 1]
    assert len(found) == len(weights)
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=2e-3)


def test_spectral_norm_takes_one_power_iteration_per_training_pass(normalized):
    net, x, labels = normalized
    norm = net.blocks[0].conv2.parametrizations.weight
    u, v, weight = norm[0]._u.clone(), norm[0]._v.clone(), norm.original.detach().flatten(1)
    net.eval()(x, labels)
    assert torch.equal(norm[0]._v, v)
    net.train()(x, labels)
    u = F.normalize(weight @ v, dim=0)
    torch.testing.assert_close(norm[0]._u, u)
    torch.testing.assert_close(norm[0]._v, F.normalize(weight.T @ u, dim=0))


def test_spectral_norm_continues_from_its_saved_state(normalized):
    net, x, labels = normalized
    net(x, labels)
    again = build_discriminator("sngan", size=16, channels=3, classes=4, widths=(6, 5, 5))
    again.load_state_dict(copy.deepcopy(net.state_dict()))
    for _ in range(3):
        assert torch.equal(net(x, labels), again(x, labels))


def test_projection_head_equals_its_formula():
    """w.h + b + e(y).h (Miyato & Koyama 2018)."""
    head, h, y = ProjectionHead(5, 3), torch.randn(4, 5), torch.tensor([2, 0, 1, 2])
    expected = [
        head.linear.weight[0] @ h[i] + head.linear.bias[0] + head.embedding.weight[y[i]] @ h[i] for i in range(4)
    ]
    torch.testing.assert_close(head(h, y), torch.stack(expected))


def test_conditional_batch_norm_scales_and_shifts_by_class():
    x, y = torch.randn(6, 4, 3, 3), torch.tensor([0, 1, 1, 0, 2, 2])
    norm = ConditionalBatchNorm2d(4, 3)
    plain = F.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(norm(x, y), plain)
    torch.nn.init.normal_(norm.scale.weight)
    torch.nn.init.normal_(norm.shift.weight)
    scale, shift = (table.weight[y][:, :, None, None] for table in (norm.scale, norm.shift))
    torch.testing.assert_close(norm(x, y), plain * scale + shift)


def test_the_first_batch_norm_of_dcgan_does_not_see_the_label():
    """A label there could supply all of the variance, and each class would collapse to one image."""
    net = build_generator("dcgan", size=16, channels=1, classes=3, latent_dim=8, widths=(8, 4))
    seen = []
    net.layers[0].norm.norm.register_forward_hook(lambda layer, given, out: seen.append(out))
    z = torch.randn(6, 8)
    images = [net(z, torch.full((6,), y)) for y in (0, 1)]
    assert torch.equal(*seen) and torch.equal(*images)  # classes start alike
    with torch.no_grad():
        net.layers[0].norm.shift.weight[1] += 1
    assert not torch.equal(net(z, torch.full((6,), 1)), images[0])
    assert torch.equal(net(z, torch.full((6,), 0)), images[0])
