"""Classifiers: shapes, normalization, specs and errors."""

import json

import pytest
import torch

from rivals.attacks import freeze
from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.nets.factory import CLASSIFIERS, build_classifier, rebuild

SMALL = {"size": "24x16", "channels": 3, "classes": 4, "widths": (4, 8)}


def settled(net, **shape):
    """A net whose weights and batch norms are away from their start, in evaluation mode."""
    torch.manual_seed(0)
    built = build_classifier(net, **{**SMALL, **shape})
    with torch.no_grad():
        for tensor in (*built.parameters(), *(b for name, b in built.named_buffers() if "running" in name)):
            tensor.add_(torch.rand_like(tensor) * 0.2)
    return built.eval()


@pytest.mark.parametrize("size", [8, 28, 32, 37, "48x32", "19x33"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("net", CLASSIFIERS)
def test_shapes_and_gradients(net, channels, size):
    built = settled(net, size=size, channels=channels)
    x = torch.rand(3, channels, *Size.parse(size), requires_grad=True)
    logits = built(x)
    assert logits.shape == (3, 4)
    logits.square().sum().backward()
    assert x.grad.any()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("net", CLASSIFIERS)
def test_the_normalization_is_part_of_the_network(net):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    plain, inside = settled(net), settled(net, mean=mean, std=std)
    x = torch.rand(5, 3, 16, 24)
    outside = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(inside(x), plain(outside))


@pytest.mark.parametrize("net", CLASSIFIERS)
def test_spec_and_weights_rebuild_the_same_network(net):
    built = settled(net, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    again = rebuild(json.loads(json.dumps(built.spec)))
    again.load_state_dict(built.state_dict())
    x = torch.rand(2, 3, 16, 24)
    assert torch.equal(built(x), again.eval()(x))
    assert again.spec == built.spec


@pytest.mark.parametrize("net", CLASSIFIERS)
def test_flip_tta_averages_the_logits_over_an_image_and_its_flip(net):
    plain = settled(net)
    averaged = rebuild({**plain.spec, "flip_tta": True})
    averaged.load_state_dict(plain.state_dict())
    averaged.eval()
    x = torch.rand(5, 3, 16, 24)
    torch.testing.assert_close(averaged(x), (plain(x) + plain(x.flip(3))) / 2)
    torch.testing.assert_close(averaged(x), averaged(x.flip(3)))
    assert not torch.allclose(plain(x), plain(x.flip(3)), atol=1e-3)
    with freeze(averaged, x) as frozen:
        assert frozen.folded == (net in ("resnet", "strided"))
        torch.testing.assert_close(frozen.logits(x), averaged(x).detach(), rtol=1e-4, atol=1e-4)
    without = {key: value for key, value in plain.spec.items() if key != "flip_tta"}
    assert not rebuild(without).spec["flip_tta"]


def test_an_attack_folds_every_batch_norm_of_a_resnet():
    built = settled("resnet", blocks=2)
    x = torch.rand(4, 3, 16, 24)
    with freeze(built, x) as frozen:
        assert frozen.folded
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in frozen.run.modules())
        torch.testing.assert_close(frozen.logits(x), built(x).detach(), rtol=1e-4, atol=1e-4)


def test_the_shortcut_subsamples_without_a_strided_convolution():
    built = settled("resnet", size=13)
    block = built.blocks[0]
    conv = block.shortcut[0]
    assert conv.kernel_size == (1, 1)
    assert conv.stride == (1, 1)  # with 2 and so few channels, the backward pass corrupts the heap
    seen = []
    conv.register_forward_hook(lambda module, given, gave: seen.append(gave))
    inside = built.stem((torch.rand(2, 3, 13, 13) - built.mean) / built.std)
    block(inside)
    strided = torch.nn.functional.conv2d(inside, conv.weight, stride=2)
    torch.testing.assert_close(seen[-1], strided)
    assert strided.shape[-1] == 7


def test_default_parameter_counts():
    cnn = build_classifier("cnn", size=28, channels=1, classes=10)
    resnet = build_classifier("resnet", size=32, channels=3, classes=10)
    assert sum(p.numel() for p in cnn.parameters()) == 734_602
    assert sum(p.numel() for p in resnet.parameters()) == 1_210_410


@pytest.mark.parametrize("net", sorted(CLASSIFIERS))
@pytest.mark.parametrize("size", [8, 13, 16, 28, 64, "40x13", "13x40"])
def test_default_stages_are_as_many_as_the_size_allows(net, size):
    built = build_classifier(net, size=size, channels=3, classes=2)
    assert built(torch.rand(2, 3, *built.size)).shape == (2, 2)
    halvings = len(built.spec["widths"]) - (net == "resnet")
    assert built.size.shorter >> halvings >= 2
    assert halvings == {"cnn": 2, "resnet": 3 if built.size.shorter >= 16 else 2, "strided": 2}[net]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"net": "cnm"}, "unknown classifier 'cnm': did you mean cnn?"),
        ({"classes": 1}, "a classifier of 1 classes"),
        ({"widths": (4, 0)}, "widths 4,0 do not fit cnn"),
        ({"widths": (4,) * 4}, "give 1 to 3 positive numbers"),
        ({"mean": (0.5,)}, "do not fit images of 3 channels"),
        ({"std": (0.5, 0.5, 0.0)}, "std above 0"),
        ({"net": "resnet", "blocks": 0}, "a resnet of 0 blocks"),
        ({"blocks": 2}, "unknown option 'blocks': cnn has none"),
        ({"size": 4}, "images of 4 px"),
    ],
)
def test_invalid_arguments_are_refused(wrong, says):
    with pytest.raises(UserError, match=says) as refused:
        build_classifier(**{"net": "cnn", **SMALL, **wrong})
    assert "\n" not in str(refused.value)
