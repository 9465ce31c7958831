"""Every GAN network, conditional and not: shapes, gradients, penalties and specs."""

import copy
import json

import pytest
import torch

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.nets.factory import GAN_NETS, build_discriminator, build_generator, rebuild
from rivals.nets.padding import PaddedSize

SIZES = (16, 28, 32, 37, 64, 128, "48x32", "19x33")
LABELS = torch.tensor([0, 1, 2, 1])


def narrow(net, size, width=8):
    """Widths that make a net of any size small."""
    return (width,) * {"mlp": 2, "dcgan": PaddedSize.of(size).stages}.get(net, PaddedSize.of(size).stages + 1)


def players(net, size, channels=3, classes=0, *, width=8, norm=None, upsample=None):
    """A small generator and discriminator away from their start, where some of r3's weights are 0."""
    torch.manual_seed(0)
    shape = {"size": size, "channels": channels, "classes": classes, "widths": narrow(net, size, width)}
    pair = (
        build_generator(net, latent_dim=5, **shape, **(upsample or {})),
        build_discriminator(net, **shape, **(norm or {})),
    )
    with torch.no_grad():
        for parameter in (*pair[0].parameters(), *pair[1].parameters()):
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return pair


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("net", "upsample"), [*((net, {}) for net in GAN_NETS), ("dcgan", {"upsample": "nearest"})])
def test_shapes_and_gradients(net, upsample, size, channels, classes):
    generator, discriminator = players(net, size, channels, classes, upsample=upsample)
    labels = LABELS if classes else None
    x = generator(torch.randn(4, 5), labels)
    assert x.shape == (4, channels, *Size.parse(size))
    assert net == "r3" or x.abs().max() <= 1
    logits = discriminator(x, labels)
    assert logits.shape == (4,)
    logits.square().sum().backward()
    for name, parameter in (*generator.named_parameters(), *discriminator.named_parameters()):
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A bias in front of a batch norm moves nothing.
        assert parameter.ndim == 1 or parameter.grad.any(), name
        # Fused Adam on a CPU goes through both in the order of memory, and does not look whether it is one order.
        assert parameter.grad.stride() == parameter.stride(), name


@pytest.mark.parametrize(
    ("net", "options"),
    [
        ("mlp", {"dropout": 0.0}),
        ("dcgan", {"norm": "none"}),
        ("dcgan", {"norm": "batch"}),
        ("sngan", {}),
        ("r3", {"groups": 2}),
    ],
)
def test_gradient_penalty_has_the_right_gradient(net, options):
    """R1's derivative along a random direction of the weights is the quotient of differences."""
    torch.manual_seed(1)
    size = 12
    net_d = build_discriminator(net, size=size, channels=1, classes=3, widths=narrow(net, size, 4), **options).double()
    net_d.train(net == "dcgan")  # in training, spectral norm would take a step at each pass
    x = torch.rand(4, 1, size, size).double()
    weights = list(net_d.parameters())
    with torch.no_grad():
        for weight in weights:
            weight.add_(torch.randn_like(weight) * 0.2)
    direction = [torch.randn_like(weight) for weight in weights]

    def penalty(shift):
        moved = copy.deepcopy(net_d)
        with torch.no_grad():
            for weight, along in zip(moved.parameters(), direction, strict=True):
                weight.add_(along, alpha=shift)
        image = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(moved(image, LABELS).sum(), image, create_graph=True)
        return slope.square().sum(), list(moved.parameters())

    value, at = penalty(0.0)
    grads = torch.autograd.grad(value, at, allow_unused=True)
    exact = sum((g * along).sum() for g, along in zip(grads, direction, strict=True) if g is not None)
    step = 1e-6
    quotient = (penalty(step)[0] - penalty(-step)[0]) / (2 * step)
    assert value > 0
    torch.testing.assert_close(exact, quotient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("net", GAN_NETS)
def test_uses_batch_stats_tells_whether_images_influence_each_other(net, norm):
    options = {"norm": norm} if net == "dcgan" else {"dropout": 0.0} if net == "mlp" else {}
    _, discriminator = players(net, 16, norm=options)
    x, y = torch.rand(2, 4, 3, 16, 16)
    y[0] = x[0]
    one, other = (copy.deepcopy(discriminator)(images)[0] for images in (x, y))
    assert discriminator.uses_batch_stats == (not torch.allclose(one, other, atol=1e-6))
    assert discriminator.uses_batch_stats == (net == "dcgan" and norm == "batch")


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("net", GAN_NETS)
def test_a_spec_rebuilds_the_same_network(net, classes):
    deep = {"groups": 2, "blocks": 1, "expansion": 3}
    of_generator = {"dcgan": {"upsample": "nearest"}, "r3": deep}
    options = {"mlp": {"dropout": 0.1}, "dcgan": {"norm": "none"}, "r3": deep}
    shape = {"size": 17, "channels": 4, "classes": classes, "widths": narrow(net, 17, 4)}
    generator = build_generator(net, latent_dim=7, **shape, **of_generator.get(net, {}))
    discriminator = build_discriminator(net, **shape, **options.get(net, {}))
    z, x, labels = torch.randn(4, 7), torch.rand(4, 4, 17, 17), LABELS if classes else None
    for module, given in ((generator, z), (discriminator, x)):
        again = rebuild(json.loads(json.dumps(module.spec)))
        assert type(again) is type(module)
        assert again.spec == module.spec
        again.load_state_dict(module.state_dict())
        assert torch.equal(again.eval()(given, labels), module.eval()(given, labels))


@pytest.mark.parametrize("net", GAN_NETS)
def test_a_spec_holds_the_defaults(net):
    with torch.device("meta"):
        for module in (build_generator(net, size=32, channels=3), build_discriminator(net, size=32, channels=3)):
            assert module.spec["widths"] and None not in module.spec.values()
            assert rebuild(module.spec).spec == module.spec


@pytest.mark.parametrize("net", GAN_NETS)
def test_conditional_networks_need_labels(net):
    generator, discriminator = players(net, 16, classes=3)
    with pytest.raises(UserError, match="label for every image"):
        generator(torch.randn(4, 5))
    with pytest.raises(UserError, match="label for every image"):
        discriminator(torch.rand(4, 3, 16, 16))


@pytest.mark.parametrize("net", GAN_NETS)
def test_labels_matter_to_conditional_networks_only(net):
    one, other = torch.tensor([0, 0, 0, 0]), torch.tensor([2, 2, 2, 2])
    for classes in (3, 0):
        z, x = torch.randn(4, 5), torch.rand(4, 3, 16, 16)
        for module, given in zip(players(net, 16, classes=classes), (z, x), strict=True):
            module.eval()
            assert torch.equal(module(given, one), module(given, other)) == (classes == 0)
