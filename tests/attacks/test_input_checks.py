"""One clear line for each way to hand an attack the wrong thing."""

import warnings

import pytest
import torch
from torch import nn

from rivals.attacks import AugmentRanges, apgd, augment, bim, fgsm, mifgsm, noise, pgd
from rivals.base.errors import UserError
from rivals.base.norm_balls import L2, Linf

X = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0])
NET = nn.Sequential(nn.Flatten(), nn.Linear(75, 3))


class Says(nn.Module):
    """Answers whatever it is made to."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


def attack(model=NET, x=X, y=Y, ball=None, **options):
    return pgd(model, x, y, Linf(0.1) if ball is None else ball, **options)


def with_one(value):
    x = X.clone()
    x[2, 0, 0, 0] = value
    return x


MISTAKES = {
    "bytes": (lambda: attack(x=(X * 255).byte()), "uint8: divide by 255"),
    "0..255": (lambda: attack(x=X * 255), r"from .* to 25\d.*divide them by 255"),
    "-1..1": (lambda: attack(x=(X * 2 - 1) / (X * 2 - 1).abs().max()), r"\(x \+ 1\) / 2"),
    "normalized": (lambda: attack(x=(X - 0.45) / 0.25), "deviation inside the model"),
    "nan": (lambda: attack(x=with_one(torch.nan)), "NaN or infinity, in 1 of 4"),
    "infinity": (lambda: attack(x=with_one(torch.inf)), "NaN or infinity, in 1 of 4"),
    "no tensor": (lambda: attack(x=X.numpy()), "ndarray: give a tensor"),
    "one image": (lambda: attack(x=X[0, 0, 0], y=Y[:1]), r"x\[None\]"),
    "labels of floats": (lambda: attack(y=Y.float()), "float32: give class numbers"),
    "one-hot labels": (lambda: attack(y=nn.functional.one_hot(Y)), r"shape \(4, 3\) for 4 images"),
    "too few labels": (lambda: attack(y=Y[:3]), r"shape \(3,\) for 4 images"),
    "labels from 1": (lambda: attack(y=Y + 1), "hold 3, but the model has 3 classes"),
    "negative label": (lambda: attack(y=Y - 1), "hold -1"),
    "labels elsewhere": (lambda: attack(y=Y.to("meta")), "on meta and the images on cpu"),
    "list of labels": (lambda: attack(y=Y.tolist()), "a list: give a tensor"),
    "targets out of range": (lambda: attack(targets=Y + 7), "the targets hold 7"),
    "model elsewhere": (lambda: attack(model=nn.Linear(75, 3, device="meta")), "model is on meta"),
    "model of doubles": (lambda: attack(model=nn.Linear(75, 3).double()), "model is of type float64"),
    "no model": (lambda: attack(model=lambda x: x), "a function: give an nn.Module"),
    "no ball": (lambda: attack(ball=0.03), "ball is a float"),
    "eps of another batch": (lambda: attack(ball=L2(torch.ones(3))), "3 entries for 4 images"),
    "logits of maps": (lambda: attack(model=Says(lambda x: x)), r"shape \(2, 3, 5, 5\)"),
    "logits of another batch": (lambda: attack(model=Says(lambda x: x.sum((2, 3))[:1])), r"\(1, 3\) for 2 images"),
    "a tuple": (lambda: attack(model=Says(lambda x: (x, x))), r"shape \(2, 3, 5, 5\)"),
    "class numbers": (lambda: attack(model=Says(lambda x: x.sum((2, 3)).long())), "int64: let it return logits"),
    "nan in logits": (lambda: attack(model=Says(lambda x: x.sum((2, 3)) * torch.nan)), "logits hold NaN"),
    "unknown loss": (lambda: attack(loss="dlrr"), "did you mean dlr"),
    "no steps": (lambda: attack(steps=0), "steps of 0"),
    "no restarts": (lambda: attack(restarts=0), "restarts of 0"),
    "step back": (lambda: attack(step_size=-0.1), "a step size of -0.1"),
    "no batch": (lambda: attack(batch_size=0), "batch size of 0"),
    "targets and rivals": (lambda: apgd(NET, X, Y, Linf(0.1), targets=Y, n_targets=2), "leave one out"),
    "clean logits of others": (lambda: attack(clean=torch.rand(4, 5)), r"shape \(4, 5\)"),
    "unknown noise": (lambda: noise(NET, X, Y, Linf(0.1), kind="gauss"), "did you mean gaussian"),
    "no draws": (lambda: noise(NET, X, Y, Linf(0.1), trials=0), "trials of 0"),
    "flat pictures": (lambda: augment(nn.Linear(75, 3), X.flatten(1), Y), r"must be \(n, C, H, W\)"),
    "a ball for a reach": (lambda: augment(NET, X, Y, Linf(0.1)), "ranges are a Linf"),
    "a reach too far": (lambda: AugmentRanges(turn=400), "turn of 400"),
    "negative momentum": (lambda: mifgsm(NET, X, Y, Linf(0.1), decay=-1.0), "decay of -1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_one_line_for(name):
    make, says = MISTAKES[name]
    with pytest.raises(UserError, match=says) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_logits_that_turn_bad_under_attack_are_noticed():
    model = Says(lambda x: torch.where(x.mean() > 0.6, torch.nan, x.sum((2, 3))))
    with pytest.raises(UserError, match="logits hold NaN"):
        pgd(model, X * 0.5, model(X * 0.5).argmax(1), Linf(0.9), stop_when_fooled=False)


def test_probabilities_are_warned_of_once_and_log_probabilities_are_not():
    with pytest.warns(UserWarning, match="probabilities, not logits") as caught:
        attack(model=nn.Sequential(NET, nn.Softmax(1)))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack(model=nn.Sequential(NET, nn.LogSoftmax(1)))


@pytest.mark.parametrize("attack", [fgsm, bim, pgd, mifgsm, apgd, noise, lambda m, x, y, _: augment(m, x, y)])
def test_no_image_and_one_image(attack):
    none = attack(NET, X[:0], Y[:0], Linf(0.1))
    assert none.shape == (0, 3, 5, 5)
    one = attack(NET, X[:1], Y[:1], Linf(0.1))
    assert one.shape == (1, 3, 5, 5)


def test_an_empty_batch_does_not_call_the_model():
    assert attack(model=Says(None), x=X[:0], y=Y[:0]).shape == (0, 3, 5, 5)


def test_labels_of_any_whole_type():
    assert torch.equal(attack(y=Y.to(torch.uint8)), attack())


def test_images_within_rounding_of_the_range_are_taken_and_rounded():
    x = X.clone()
    x[0, 0, 0, 0] = 1 + 5e-7
    for label in range(3):  # by one of them at least the image is fooled already, and so handed back
        found = attack(x=x, y=torch.full_like(Y, label))
        assert found.max() <= 1
        assert Linf(0.1).contains(found, x.clamp(0, 1)).all()
