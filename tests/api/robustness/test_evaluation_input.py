"""Models, images and options that cannot be evaluated, and what is said of them."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from helpers.masked_models import (
    CLASSES,
    image_set,
    patterns,
)
from helpers.refusals import named
from rivals import L1, L2, ImageSet, Linf, evaluate


class Says(nn.Module):
    """Returns the logits it was given."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


X, Y = patterns(8)
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
INPUTS = {
    "logits of the wrong shape": ((Says(lambda x: x), (X, Y)), ["the shape (2, 1, 8, 8)", "(2, classes)"]),
    "logits that are NaN": ((Says(lambda x: x.flatten(1)[:, :4] * torch.nan), (X, Y)), ["NaN or infinity"]),
    "labels out of range": ((LINEAR, (X, Y + 2)), ["labels hold", "4 classes"]),
    "labels that are floats": ((LINEAR, (X, Y.float())), ["float32", "class numbers"]),
    "images in 0..255": ((LINEAR, (X * 255, Y)), ["0..255", "divide them by 255"]),
    "images as bytes": ((LINEAR, ((X * 255).byte(), Y)), ["uint8", "divide by 255"]),
    "images in [-1, 1]": ((LINEAR, (X * 2 - 1, Y)), ["not within [0, 1]"]),
    "images that hold NaN": ((LINEAR, (X / 0 * 0, Y)), ["NaN"]),
    "no images": ((LINEAR, (X[:0], Y[:0])), ["there are no images"]),
    "labels missing": ((LINEAR, (X, None)), ["the labels are a NoneType"]),
    "four things": ((LINEAR, (X, Y, Y, Y)), ["4 things", "a pair"]),
    "data of no kind": ((LINEAR, 3), ["the data are a int"]),
    "images of another size": ((LINEAR, (X[..., :6], Y)), ["fails on images of 1 x 8 x 6", "--size"]),
    "a data set without labels": (
        (LINEAR, ImageSet("bare", "test", np.zeros((4, 1, 8, 8), np.uint8))),
        ["'bare' has no labels", "one subfolder per class"],
    ),
    "more classes than the model has": ((LINEAR, image_set(classes=7)), ["4 classes", "'patterns' has 7"]),
    "channels that differ": ((nn.Sequential(nn.Conv2d(3, 4, 1), LINEAR), image_set()), ["3 channels", "has 1"]),
    "a model on another device": ((nn.Sequential(LINEAR, nn.Linear(4, 4, device="meta")), (X, Y)), ["meta"]),
}


@pytest.mark.parametrize("case", INPUTS)
def test_bad_input_is_reported_in_one_line(case):
    (model, data), parts = INPUTS[case]
    with named(*parts) as caught:
        evaluate(model, data, Linf(0.1), attack="fgsm", quiet=True)
    assert "\n" not in str(caught.value)


BAD_OPTIONS = {
    "no images": ({"n": 0}, ["0 images"]),
    "an unknown way to save": ({"save": "pgn"}, ["'pgn'", "png"]),
    "no draws": ({"eot": 0}, ["--eot 0"]),
    "an empty batch": ({"batch_size": 0}, ["--batch-size 0", "take 1 to"]),
    "a curve beyond the ball": ({"curve": [0.2]}, ["the curve holds 0.2", "ends at 0.1"]),
    "an attack of no kind": ({"attack": 3}, ["the attack is a int"]),
    "half a normalization": ({"mean": (0.5,)}, ["mean [0.5] and std []"]),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_reported_in_one_line(case):
    options, parts = BAD_OPTIONS[case]
    with named(*parts):
        evaluate(LINEAR, (X, Y), Linf(0.1), **{"attack": "fgsm", "quiet": True, **options})


def test_radii_that_are_absurd():
    with named("L2 eps of 128", "did you mean 128/255"):
        evaluate(LINEAR, (X, Y), L2(128.0), quiet=True)
    with named("L1 eps of 1e+06", "take less than 64"):
        evaluate(LINEAR, (X, Y), L1(1e6), quiet=True)
    with named("the ball is a float"):
        evaluate(LINEAR, (X, Y), 0.1, quiet=True)
    with named("eps is a tensor"):
        evaluate(LINEAR, (X, Y), Linf(torch.tensor([0.1, 0.2])), quiet=True)
    with named("an eps of 0"):
        evaluate(LINEAR, (X, Y), Linf(0.0), quiet=True)


def test_a_batch_of_one_and_a_set_that_is_all_wrong():
    report = evaluate(LINEAR, (X[:1], Y[:1]), Linf(0.1), attack="pgd", batch_size=1, quiet=True)
    assert report.n == 1
    with torch.no_grad():
        wrong = (LINEAR(X).argmax(1) + 1) % CLASSES
    report = evaluate(LINEAR, (X, wrong), Linf(0.1), attack="pgd", quiet=True)
    assert (report.clean.count, report.robust.count, report.stages) == (0, 0, {})
    assert any("none of the first images" in note for note in report.notes)


def test_progress_messages_go_to_standard_error(model, data, capsys):
    evaluate(model, data, Linf(0.1), attack="fgsm", eot=2)
    said = capsys.readouterr()
    assert said.out == ""
    assert "not randomized" in said.err
    assert "of 120 images" in said.err
    evaluate(model, data, Linf(0.1), attack="fgsm", quiet=True)
    assert capsys.readouterr() == ("", "")


def test_real_digits(monkeypatch):
    """A trained model, real images, and a second opinion: the same images attacked by PGD alone."""
    home = os.environ.get("RIVALS_DATA", "")
    path = __import__("pathlib").Path(__file__).parents[3] / "benchmarks" / "models" / "mnist-plain.safetensors"
    if not path.exists() or not (__import__("pathlib").Path(home) / "MNIST").exists():
        pytest.skip("needs benchmarks/models/mnist-plain.safetensors and MNIST under RIVALS_DATA")
    report = evaluate(path, "mnist", Linf(0.2), attack="fgsm,pgd(steps=10)", n=20, quiet=True)
    assert report.clean.value > 0.95
    assert report.robust.value < 0.5
    assert report.verdict == "no sign of gradient masking"
