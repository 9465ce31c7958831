"""A classifier as an extractor, and the scale of a scripted Inception."""

import warnings

import pytest
import torch
from torch import nn

from rivals.base.errors import UserError
from rivals.extractors.classifier_features import open_classifier
from rivals.extractors.inception import open_inception
from rivals.extractors.resize import tf1_bilinear
from rivals.nets.factory import build_classifier


def drawn(n, size=32, channels=3):
    source = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=source)


def test_classifier_features_are_the_input_of_the_last_layer():
    with torch.random.fork_rng():
        net = build_classifier("cnn", size=16, channels=1, classes=3, widths=(4,)).eval()
    extractor = open_classifier(net, size=16, channels=1)
    images = drawn(3, 16, 1)
    seen = extractor.extract(images)
    with torch.no_grad():
        x = images.float() / 255
        hidden = net.head[:-1](net.stages(x).flatten(1))
        torch.testing.assert_close(seen.features, hidden)
        torch.testing.assert_close(seen.logits, net(x))
    with pytest.raises(UserError, match=r"made for images of 1 channels, and these have 3"):
        extractor(drawn(1))
    with pytest.raises(UserError, match="no linear layer"):
        open_classifier(nn.Conv2d(1, 1, 1), size=8, channels=1)


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_features_of_a_flip_averaging_classifier_are_those_of_its_logits(name):
    """Its last layer runs twice a pass: the mean of both inputs gives the logits, and no pass leaves anything."""
    with torch.random.fork_rng():
        net = build_classifier(name, size=16, channels=3, classes=3, widths=(4, 8), flip_tta=True).eval()
    extractor = open_classifier(net, size=16, channels=3)
    images = drawn(5, 16)
    seen = extractor.extract(images)
    last = [layer for layer in net.modules() if isinstance(layer, nn.Linear)][-1]
    torch.testing.assert_close(last(seen.features), seen.logits)
    torch.testing.assert_close(seen.features, extractor(images.flip(3)))
    net.spec["flip_tta"] = False
    plain = (extractor(images) + extractor(images.flip(3))) / 2
    torch.testing.assert_close(seen.features, plain)
    assert not extractor.net._inputs


def test_a_classifier_whose_last_linear_layer_is_idle_is_refused():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle = nn.Linear(2, 2)

        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(UserError, match="does not use its last linear layer"):
        open_classifier(Idle(), size=8, channels=3)


def test_a_scripted_inception_sees_the_scale_of_the_definition(tmp_path):
    """(x - 128) / 128 (Heusel et al. 2017) of the resized pixels, for a script that scales so itself."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.output = nn.Linear(3, 5)

        def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
            return ((img - 128) / 128).mean((2, 3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Scaled()).save(tmp_path / "scripted.pt")
    images = drawn(4, 20)
    wanted = (tf1_bilinear(images.float(), 299).double() / 128 - 1).mean((2, 3))
    found = open_inception(tmp_path / "scripted.pt").extract(images)
    torch.testing.assert_close(found.features.double(), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("other", [{"flip_tta": True}, {"mean": (0.3,)}, {"std": (0.4,)}])
def test_what_a_classifier_computes_with_equal_weights_is_in_its_hash(other):
    """Or the cache of real features would give those of another extractor."""
    shape = {"size": 16, "channels": 1, "classes": 3, "widths": (4,)}
    plain, changed = build_classifier("cnn", **shape), build_classifier("cnn", **shape, **other)
    again = build_classifier("cnn", **shape)
    for net in (changed, again):
        net.load_state_dict(plain.state_dict())
    first, second, third = (open_classifier(net, size=16, channels=1).hash for net in (plain, changed, again))
    assert first == third != second
