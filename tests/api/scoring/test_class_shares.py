"""Conditional generators are scored with classes as frequent as in the data they are compared with."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rivals
from helpers.refusals import named
from helpers.small_networks import small_net
from rivals.api.common.network_io import save_network
from rivals.api.scoring.class_shares import class_counts, classes_by_share
from rivals.data.imageset import ImageSet
from rivals.nets.generator import Generator

COUNTS = (80, 15, 5)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12).filter(any), st.integers(1, 200))
def test_every_prefix_has_each_class_as_often_as_its_share(counts, n):
    counts = np.array(counts)
    classes = classes_by_share(n, counts)
    shares = counts / counts.sum()
    for k in range(1, n + 1):
        given = np.bincount(classes[:k], minlength=len(counts))
        # A class lags or leads by a fraction of an image; many classes may have to wait for one another.
        assert np.abs(given - shares * k).max() < 2
        assert not given[counts == 0].any()
    assert np.array_equal(classes, classes_by_share(n + 7, counts)[:n])


@pytest.mark.parametrize("classes", [2, 3, 7, 1000])
def test_equal_shares_take_turns(classes):
    assert np.array_equal(classes_by_share(2500, np.full(classes, 13)), np.arange(2500) % classes)


class Perfect(Generator):
    """Generates images of a class as the data have them: it shows one of the data's own."""

    def __init__(self, images, names=()):
        super().__init__("perfect", size=16, channels=1, classes=len(images.classes), latent_dim=2, widths=())
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.pixels = torch.from_numpy(images.images).float() / 127.5 - 1
        self.of = torch.from_numpy(images.labels)
        self.index = [images.classes.index(name) for name in names or images.classes]
        self.about = {"classes": list(names)} if names else {}

    def forward(self, z, labels=None):
        chosen = []
        for latent, label in zip(z, labels.tolist(), strict=True):
            those = (self.of == self.index[label]).nonzero()[:, 0]
            share = torch.special.ndtr(latent[0]).clamp(0, 0.999)  # uniform
            chosen.append(self.pixels[those[int(share * len(those))]])
        return torch.stack(chosen)


def unbalanced(name="data", start=0):
    """Dark, bright and gray images with some noise, 80%, 15% and 5% of them."""
    random = np.random.default_rng(start)
    labels = np.repeat([0, 1, 2], [4 * each for each in COUNTS])
    levels = np.array([40, 220, 130])[labels, None, None, None] + random.normal(0, 15, (len(labels), 1, 16, 16))
    return ImageSet(name, "train", levels.clip(0, 255).astype(np.uint8), labels, ("dark", "bright", "gray"))


@pytest.fixture
def eyes(tmp_path):
    (tmp_path / "eyes").mkdir()
    save_network(small_net(), tmp_path / "eyes" / "classifier.safetensors", {})
    return f"classifier:{tmp_path / 'eyes'}"


@pytest.mark.parametrize("names", [(), ("gray", "dark", "bright")], ids=["by index", "by name"])
def test_a_perfect_generator_of_unbalanced_data_has_a_small_distance(eyes, names):
    data, other = unbalanced(), unbalanced(start=1)
    how = {"metrics": "fd", "extractor": eyes, "quiet": True, "n": 400}
    among_real = rivals.score(other, data, **how)["fd"].value
    scores = rivals.score(Perfect(data, names), data, **how)
    unlabeled = ImageSet("data", "train", data.images)
    in_turn = rivals.score(Perfect(data, names), unlabeled, **how)
    assert scores["fd"].value < 2 * among_real
    assert in_turn["fd"].value > 20 * among_real
    assert scores.as_dict()["values"][0]["fake_classes"] == "as in the real images"
    assert "fake_classes: in turn, as nothing tells how frequent they are" in str(in_turn)


def test_shares_are_matched_by_name_or_else_are_those_of_the_training_images():
    data = unbalanced()
    generator = Perfect(data, ("gray", "dark", "bright"))
    assert class_counts(generator, data)[0].tolist() == [20, 320, 60]
    some = ImageSet("some", "test", data.images[:380], data.labels[:380], data.classes)  # no gray ones
    assert class_counts(generator, some)[0].tolist() == [0, 320, 60]
    others = ImageSet("others", "test", data.images, data.labels, ("cat", "dog", "owl"))
    with named(
        "the class 'cat' of 'others' (test) fits no class of the generator", "cat, dog, owl", "gray, dark, bright"
    ):
        class_counts(generator, others)
    spelled = ImageSet("spelled", "test", data.images, data.labels, ("Dark", "BRIGHT", "gray"))
    assert class_counts(generator, spelled)[0].tolist() == [20, 320, 60]
    one = ImageSet("one", "test", data.images, 0 * data.labels, ("all",))
    assert class_counts(generator, one) == (None, "in turn, as nothing tells how frequent they are")
    generator.about["class_counts"] = [1, 2, 3]
    for images in (one, ImageSet("plain", "test", data.images)):
        counts, how = class_counts(generator, images)
        assert counts.tolist() == [1, 2, 3] and how == "as in the training images"
