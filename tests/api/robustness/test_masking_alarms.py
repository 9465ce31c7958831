"""Which alarms an evaluation raises: for masked, randomized and saturated models, and for no honest one."""

import copy
import warnings

import pytest
import torch
from torch import nn

from helpers.masked_models import (
    QUIET,
    BatchStatistics,
    ByPlace,
    Detached,
    FinelyRippled,
    FlatOnBytes,
    NeedsCompany,
    Noisy,
    Probabilities,
    Reversed,
    Rippled,
    Rounded,
    Saturated,
    Small,
    Squashed,
    Staircase,
    trained,
)
from rivals import L1, L2, Linf, evaluate
from rivals.base.errors import UserError
from rivals.nets.wrappers import NormalizedModel


def alarms_of(model, data, ball=None, attack="pgd(steps=10)", **options):
    report = evaluate(model, data, ball or Linf(0.1), attack=attack, quiet=True, **options)
    return [alarm["alarm"] for alarm in report.alarms], report


@pytest.mark.parametrize("ball", [Linf(0.02), Linf(0.1), Linf(0.4), L2(0.3), L2(1.0), L1(4.0)], ids=str)
def test_an_honest_model_raises_no_alarm(model, data, ball):
    found, report = alarms_of(model, data, ball)
    assert found == []
    assert report.verdict == "no sign of gradient masking"


def test_a_model_that_is_always_wrong_is_not_called_checked(model, data, tmp_path):
    x, y = data[0][:40], (data[1][:40] + 1) % 4
    found, report = alarms_of(model, (x, y), out=tmp_path / "r")
    assert (found, report.clean.count) == ([], 0)
    assert report.verdict.startswith("not checked for gradient masking")
    assert "no sign of gradient masking" not in str(report) + (tmp_path / "r" / "report.html").read_text()


class Times(nn.Module):
    """Logits times a factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def test_probabilities_raise_an_alarm(model, data):
    found, report = alarms_of(Probabilities(model), data)
    assert found == ["probabilities"]
    assert report.verdict.startswith("the attack may be weak here")


def test_a_saturated_softmax_is_noticed_and_attacked_without_gradients_too(model, data):
    few = data[0][:40], data[1][:40]
    found, report = alarms_of(Saturated(model), few, attack="pgd,square(queries=50)")
    assert {"zero-gradient", "probabilities"} <= set(found)
    assert report.verdict.startswith("possible gradient masking: ")
    assert list(report.stages) == ["pgd", "square(queries=50)"]


def test_images_without_a_gradient_do_not_keep_attacks_from_those_in_the_ball(model, data):
    few = (data[0][:40] * 255).round() / 255, data[1][:40]
    found, report = alarms_of(FlatOnBytes(model), few, attack="pgd(steps=10),square(queries=5)")
    assert "zero-gradient" in found
    assert report.stages["pgd(steps=10)"].fooled > 20


def test_an_error_of_an_attack_is_not_taken_for_a_model_that_fails(model, data):
    def broken(model, x, y, ball, **options):
        raise ValueError("x and y must have the same first dimension, but have shapes (3,) and (2,)")

    with pytest.raises(ValueError, match="same first dimension"):
        evaluate(model, data, Linf(0.1), attack=broken, **QUIET)


def test_a_warning_during_the_attack_reaches_the_user(model, data):
    def warning(model, x, y, ball, **options):
        warnings.warn("late", RuntimeWarning, stacklevel=1)
        return x

    with pytest.warns(RuntimeWarning, match="late"):
        evaluate(model, data, Linf(0.1), attack=warning, **QUIET)


@pytest.mark.parametrize("mask", [Squashed, Staircase, Reversed, Small])
def test_an_attack_that_leaves_what_cheap_probes_fool_is_called_weak(mask, model, data):
    found, _ = alarms_of(mask(model), data)
    assert "weak-attack" in found


def test_an_attack_that_does_nothing_is_called_weak_on_an_honest_model(model, data):
    report = evaluate(model, data, Linf(0.2), attack=lambda model, x, y, ball, **shared: x, quiet=True)
    assert report.verdict.startswith("the attack may be weak here: cheap probes fool ")


@pytest.mark.parametrize("mask", [Reversed, FinelyRippled])
def test_a_gradient_along_which_the_loss_falls_is_noticed(mask, model, data):
    assert "gradient-misleads" in alarms_of(mask(model), data)[0]


@pytest.mark.parametrize("mask", [BatchStatistics, ByPlace])
def test_answers_that_depend_on_the_rest_of_the_batch_are_noticed(mask, model, data):
    found, report = alarms_of(mask(model), data, Linf(0.05))
    assert "batch-dependent" in found
    assert any("--batch-size 1" in alarm["remedy"] for alarm in report.alarms)


def test_images_judged_alone_are_in_no_batch_with_others(model, data):
    few = data[0][:3], data[1][:3]
    assert "batch-dependent" in alarms_of(ByPlace(model), few, attack="fgsm")[0]
    assert "batch-dependent" not in alarms_of(ByPlace(model), few, attack="fgsm", batch_size=1)[0]


def test_a_model_that_fails_on_one_image_alone_is_refused(model, data):
    flat = data[0][:, :, :1, :1], data[1]
    with pytest.raises(UserError, match=r"fails on one image alone .* depend on the rest of the batch"):
        alarms_of(NeedsCompany(nn.Sequential(nn.Flatten(), nn.Linear(1, 4))), flat)


HONEST = {
    "log-probabilities": lambda model: nn.Sequential(model, nn.LogSoftmax(1)),
    "large logits": lambda model: nn.Sequential(model, Times(100)),
    "normalized": lambda model: NormalizedModel(model, (0.0,), (1.0,)),
    "brain float": lambda model: copy.deepcopy(model).bfloat16(),
    "GELU without bias": lambda model: trained(
        nn.Flatten(), nn.Linear(64, 32, bias=False), nn.GELU(), nn.Linear(32, 4, bias=False)
    ),
    "group norm, pooling": lambda model: trained(
        *(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), nn.MaxPool2d(2), nn.Dropout(0.2)),
        *(nn.Flatten(), nn.Linear(72, 4)),
    ),
}


@pytest.mark.parametrize("kind", HONEST)
def test_honest_models_of_other_kinds_raise_no_alarm(kind, model, data):
    assert alarms_of(HONEST[kind](model).eval(), data)[0] == []


def test_a_rounded_input_is_noticed(model, data):
    found, report = alarms_of(Rounded(model), data, Linf(0.2))
    assert {"zero-gradient", "black-box-beats-gradient"} <= set(found)
    assert report.stages["square"].fooled > 0


def test_a_detached_graph_falls_back_to_the_black_box(model, data):
    found, report = alarms_of(Detached(model), data, Linf(0.2))
    assert found == ["no-gradient"]
    assert list(report.stages) == ["square"]
    assert report.robust.count < report.clean.count
    own = evaluate(Detached(model), data, Linf(0.2), attack="noise(trials=5),pgd", quiet=True)
    assert list(own.stages) == ["noise(trials=5)"]


def test_a_random_gradient_is_detected(model, data):
    found, _ = alarms_of(Rippled(model), data)
    assert {"black-box-beats-gradient", "one-step-beats-many"} & set(found)


class Fickle(nn.Module):
    """In 7 of 10 passes class 1 leads by a little, in the others class 0 by far: the vote and the mean disagree."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        lead = 10 * (x.flatten(1).mean(1) - 0.5)
        small = (0.382 * torch.arange(len(x)) + 0.618 * self.passes) % 1 < 0.7  # spread evenly over any passes
        margin = lead + torch.where(small, 0.1, -5.0)
        return torch.stack([-margin, margin], 1) / 2


def test_images_on_which_vote_and_mean_disagree_are_attacked():
    data = torch.full((20, 1, 4, 4), 0.5), torch.ones(20, dtype=torch.int64)
    report = evaluate(Fickle(), data, Linf(0.1), attack="fgsm", eot=10, alarms=False, quiet=True)
    assert report.clean.value == 1
    assert report.robust.value == 0


def test_a_randomized_model_is_noticed_and_averaged(model, data):
    found, report = alarms_of(Noisy(model), data, Linf(0.1))
    assert "randomized" in found
    assert any("randomized" in note for note in report.notes)
    assert report.protocol["votes"] == 10
    found, averaged = alarms_of(Noisy(model), data, Linf(0.1), eot=8)
    assert "randomized" not in found
    assert averaged.robust.count <= report.robust.count
    again = alarms_of(Noisy(model), data, Linf(0.1), eot=8)[1]
    assert again.robust == averaged.robust
    assert alarms_of(model, data, eot=2)[1].notes == ("the model is not randomized: --eot 2 only costs time",)


def test_square_fooling_what_gradients_left_is_noticed_in_the_result(model, data):
    def blunt(frozen, x, y, ball, **shared):
        return x

    ensemble = "pgd(steps=1,step_size=0),square(queries=300)"
    report = evaluate(model, data, Linf(0.2), attack=ensemble, quiet=True)
    assert any("that gradient-based attacks did not" in alarm["message"] for alarm in report.alarms)
    assert not evaluate(model, data, Linf(0.2), attack="square(queries=300)", quiet=True).alarms
    assert evaluate(model, data, Linf(0.2), attack=blunt, quiet=True).robust.count > 0
