"""Translators: shapes, independence of the batch, how far they look, what they begin as; large images in tiles."""

import pytest
import torch

from rivals.base.errors import UserError
from rivals.nets.factory import build_translator, rebuild, shapes_of
from rivals.nets.tiles import translate_in_tiles
from rivals.nets.translator import enlarged

KINDS = {
    "resnet x2": {"net": "resnet", "scale": 2, "widths": (6,), "blocks": 2},
    "resnet x4": {"net": "resnet", "scale": 4, "widths": (6, 4), "blocks": 1},
    "resnet gray to color": {"net": "resnet", "in_channels": 1, "widths": (4, 6, 4), "blocks": 1},
    "unet": {"net": "unet", "widths": (4, 6), "blocks": 1},
    "unet x2": {"net": "unet", "scale": 2, "widths": (4, 6), "blocks": 1},
}


def translator(kind, **changes):
    torch.manual_seed(0)
    net = build_translator(**{"size": 32, "channels": 3, **KINDS[kind], **changes})
    with torch.no_grad():
        for weights in net.parameters():  # also the layers that begin at 0
            weights.add_(0.1 * torch.randn_like(weights))
    return net.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_size_are_translated_and_the_spec_rebuilds_the_network(kind):
    net = translator(kind)
    x = torch.rand(2, net.in_channels, 13, 18)
    y = net(x)
    assert y.shape == (2, 3, 13 * net.scale, 18 * net.scale)
    assert y.min() >= 0 and y.max() <= 1
    assert torch.allclose(y[1:], net(x[1:]), atol=1e-6)  # nothing is normalized over the batch
    other = rebuild(net.spec).eval()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), y)
    assert shapes_of(net.spec) == {name: values.shape for name, values in net.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_pixel_depends_on_no_input_beyond_the_reach(kind):
    net = translator(kind).double().train()
    side = 2 * net.reach + 16
    x = torch.rand(1, net.in_channels, side, side, dtype=torch.float64, requires_grad=True)
    y = net(x)
    for place in (side // 2, side // 2 + 3):
        (grad,) = torch.autograd.grad(y[0, 0, net.scale * place, net.scale * place], x, retain_graph=True)
        rows = grad[0].abs().sum((0, 2)).nonzero()[:, 0]
        assert place - net.reach <= rows[0] and rows[-1] <= place + net.reach
        assert rows[-1] > rows[0] + 4


@pytest.mark.parametrize("kind", KINDS)
def test_tiles_give_what_the_whole_image_gives(kind):
    net = translator(kind)
    tile = 4 * net.reach + 2 * 8
    x = torch.rand(1, net.in_channels, tile + 23, 2 * tile + 9)
    with torch.no_grad():
        assert torch.allclose(translate_in_tiles(net, x, tile=tile), net(x), atol=1e-5)


def test_tiles_that_overlap_too_little_are_blended_without_a_seam():
    net = translator("resnet x2", widths=(8,), blocks=8)  # looks further than the tiles overlap
    x = torch.full((1, 3, 60, 60), 0.5)
    inside = slice(30, -30)

    def jump(image):
        """The largest step from a row to the next, away from the border of the image."""
        return float(image[..., inside, inside].diff(dim=2).abs().max())

    hard, soft = (jump(translate_in_tiles(net, x, tile=32, overlap=overlap)) for overlap in (0, 16))
    assert 0 < soft < 0.25 * hard


def test_a_new_enlarging_network_begins_as_bicubic_interpolation():
    torch.manual_seed(0)
    net = build_translator("resnet", size=32, channels=3, scale=2).eval()
    x = torch.rand(1, 3, 16, 16)
    assert (net(x) - enlarged(x, 2).clamp(0, 1)).abs().max() < 0.05


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"scale": 3}, "scale of 3 is not offered: take 1, 2, 4"),
        ({"scale": 2, "in_channels": 1}, "1 channels cannot be enlarged to 3"),
        ({"in_channels": 2}, "2 channels"),
        ({"blocks": -1}, "-1 residual"),
        ({"classes": 3}, "3 classes"),
        ({"depth": 3}, "'depth'"),
    ],
)
def test_what_cannot_be_built_is_refused(options, part):
    with pytest.raises(UserError, match=part):
        build_translator("resnet", **{"size": 32, "channels": 3, **options})


@pytest.mark.parametrize(("tile", "overlap", "part"), [(8, None, "tile of 8"), (32, 32, "cannot overlap by 32")])
def test_tiles_that_cannot_work_are_refused(tile, overlap, part):
    with pytest.raises(UserError, match=part):
        translate_in_tiles(translator("resnet x2"), torch.rand(1, 3, 40, 40), tile=tile, overlap=overlap)


@pytest.mark.parametrize(("net", "widths"), [("resnet", (4, 4, 4, 4)), ("unet", (4,) * 6)])
def test_features_of_images_of_any_size_are_those_of_the_padded_ones(net, widths):
    """CUT compares them, and training images need not be multiples of what the halvings need."""
    translator = build_translator(net, size=32, channels=3, in_channels=3, widths=widths, blocks=1)
    x = torch.rand(2, 3, 21, 34)
    maps = translator.encode(x)
    padded = torch.nn.functional.pad(x, (0, -34 % translator.multiple, 0, -21 % translator.multiple), mode="replicate")
    assert translator.multiple > 4 and padded.shape != x.shape
    for one, other in zip(maps, translator.encode(padded), strict=True):
        assert torch.equal(one, other)
