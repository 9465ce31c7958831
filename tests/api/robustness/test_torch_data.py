"""Evaluations on data sets and loaders of PyTorch."""

import dataclasses

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from helpers.masked_models import QUIET, image_set, patterns
from helpers.refusals import named
from rivals import Linf, evaluate
from rivals.api.common import model_zoo


class Pairs(Dataset):
    def __init__(self, x, y, classes=()):
        self.x, self.y, self.classes = x, y, list(classes)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        if not index < len(self):
            raise IndexError
        return self.x[index], int(self.y[index])


class Stream(IterableDataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        return zip(self.x, self.y.tolist(), strict=True)


class Named(Pairs):
    """Gives dictionaries, with a third entry that is neither image nor label."""

    def __init__(self, x, y, image="image", label="label"):
        super().__init__(x, y)
        self.keys = image, label

    def __getitem__(self, index):
        return dict(zip(self.keys, super().__getitem__(index), strict=True)) | {"path": f"{index}.png"}


class Both(Named):
    def __getitem__(self, index):
        return super().__getitem__(index) | {"pixel_values": self.x[index]}


SOURCES = {
    "dictionaries": Named,
    "dictionaries of other names": lambda x, y: Named(x, y, "pixel_values", "labels"),
    "a loader of dictionaries": lambda x, y: DataLoader(Named(x, y, "img", "y"), batch_size=7),
    "a data set": Pairs,
    "tensors": TensorDataset,
    "a stream": Stream,
    "a loader": lambda x, y: DataLoader(Pairs(x, y), batch_size=7),
    "a loader of a stream": lambda x, y: DataLoader(Stream(x, y), batch_size=50),
}


@pytest.mark.parametrize("source", SOURCES)
def test_all_images_are_evaluated_as_tensors_are(model, data, source):
    found = evaluate(model, SOURCES[source](*data), Linf(0.1), attack="pgd(steps=5)", **QUIET)
    plain = evaluate(model, data, Linf(0.1), attack="pgd(steps=5)", **QUIET)
    assert (found.clean, found.robust, found.n) == (plain.clean, plain.robust, 120)
    assert found.protocol["of"] == 120


def test_some_images_are_those_that_the_same_images_in_a_folder_give(model, tmp_path):
    images = image_set()
    x, y = torch.from_numpy(images.images), torch.from_numpy(images.labels)
    one = evaluate(model, Pairs(x, y, images.classes), Linf(0.2), attack="fgsm", n=30, out=tmp_path / "r", **QUIET)
    other = evaluate(model, images, Linf(0.2), attack="fgsm", n=30, **QUIET)
    assert (one.clean, one.robust, one.classes) == (other.clean, other.robust, other.classes)
    assert len([each for each in one.classes if each.clean.of]) == 4  # not the first 30, which are of one class


def test_classes_are_matched_by_their_names(model, data, monkeypatch):
    x, y = data
    names = ("a", "b", "c", "d")
    known = lambda *args, **options: dataclasses.replace(find_model(*args, **options), classes=names)  # noqa: E731
    find_model = model_zoo.find_model
    monkeypatch.setattr("rivals.api.robustness.target.find_model", known)
    plain = evaluate(model, Pairs(x, y, names), Linf(0.1), attack="fgsm", **QUIET)
    turned = evaluate(model, Pairs(x, 3 - y, names[::-1]), Linf(0.1), attack="fgsm", **QUIET)
    assert turned.clean == plain.clean
    with named("'e'"):
        evaluate(model, Pairs(x, y, ("a", "b", "c", "e")), Linf(0.1), attack="fgsm", **QUIET)


X, Y = patterns(4)
BAD = {
    "dictionaries without an image": (Named(X, Y, "picture"), ["a dict of picture, label, path", "pixel_values"]),
    "batches without a label": (DataLoader(Named(X, Y, "x", "kind")), ["DataLoader gives a dict of x, kind, path"]),
    "two images": (Both(X, Y), ["a dict of image, label, path, pixel_values", "one of label"]),
    "dictionaries of pictures": (Named(["a picture"] * 4, Y), ["a str as image", "ToTensor"]),
    "no pairs": (DataLoader(X), ["gives a Tensor", "pairs (images, labels)"]),
    "pictures": (Pairs(["a picture"] * 4, Y), ["a str as image", "ToTensor"]),
    "sizes that differ": (Pairs([X[0], X[1][..., :5], X[2], X[3]], Y), ["differ in shape"]),
    "out of range": (Pairs(X * 3, Y), ["not within [0, 1]"]),
    "none": (Pairs(X[:0], Y[:0]), ["has no images"]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_image_with_a_label_is_refused(model, case):
    source, parts = BAD[case]
    with named(*parts):
        evaluate(model, source, Linf(0.1), attack="fgsm", **QUIET)
