"""Targeted evaluations: what counts as fooled, which images are left out, by class, by tensor and by command."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.masked_models import CLASSES, QUIET, Squashed, Staircase, image_set, patterns, trained
from helpers.refusals import named
from rivals import L2, Linf, evaluate
from rivals.api.robustness.attack_spec import read_attack
from rivals.attacks import freeze, run_ensemble

ATTACK = "apgd(steps=10),square(queries=20)"


def one_call(model, x, y, targets):
    with freeze(model, x) as frozen:
        _, *outcomes = run_ensemble(frozen, x, y, Linf(0.1), read_attack(ATTACK, Linf(0.1)), targets=targets)
    return sum(int(outcome.fooled.sum()) for outcome in outcomes)


def test_only_the_target_counts_as_fooled(model, data):
    x, y = data
    targets = (y + 1) % CLASSES
    report = evaluate(model, (x, y, targets), Linf(0.1), attack=ATTACK, **QUIET)
    right = model(x).argmax(1) == y
    assert report.clean.count == int(right.sum())
    fooled = one_call(model, x[right], y[right], targets[right])
    assert 0 < fooled == report.clean.count - report.robust.count
    assert report.robust.count > evaluate(model, data, Linf(0.1), attack=ATTACK, **QUIET).robust.count
    assert report.robust_8bit.count >= report.robust.count


@pytest.mark.parametrize("target", ["kind 2", "2", 2])
def test_a_class_is_a_target_by_name_and_number_without_its_own_images(model, target, tmp_path):
    images = image_set()
    report = evaluate(model, images, Linf(0.1), attack=ATTACK, target=target, out=tmp_path / "r", **QUIET)
    assert (report.n, report.protocol["target"]) == (90, str(target))
    assert any("classified as" in note and "30 images" in note for note in report.notes)
    with np.load(tmp_path / "r" / "adversarial.npz") as found:
        assert (found["prediction"] == 2).all() and len(found["label"]) == report.clean.count - report.robust.count > 0
        assert (images.labels[found["index"]] == found["label"]).all() and 2 not in found["label"]
    again = evaluate(model, images, Linf(0.1), attack=ATTACK, target=target, out=tmp_path / "r", resume=True, **QUIET)
    assert again.robust == report.robust
    with named("another target"):
        evaluate(model, images, Linf(0.1), attack=ATTACK, target=3, out=tmp_path / "r", resume=True, **QUIET)


@pytest.mark.parametrize("attack", ["hopskipjump(queries=50)", "surfree(queries=50)", "square(queries=5)", "fgsm"])
def test_a_targeted_attack_by_labels_is_said_to_need_a_start(model, data, attack):
    def noted(given):
        ball = L2(0.1) if attack.startswith("surfree") else Linf(0.1)
        return any("starts from noise" in note for note in evaluate(model, given, ball, attack=attack, **QUIET).notes)

    x, y = (part[:4] for part in data)
    assert noted((x, y, (y + 1) % CLASSES)) == ("queries=50" in attack)
    assert not noted((x, y))


def test_bad_targets_are_one_line(model, data):
    x, y = data
    with named("unknown target class 'kind 7'", "did you mean kind"):
        evaluate(model, image_set(), Linf(0.1), target="kind 7", **QUIET)
    with named("the targets hold 9", "4 classes"):
        evaluate(model, data, Linf(0.1), target=9, **QUIET)
    with named("the targets are the labels of 120 images"):
        evaluate(model, (x, y, y), Linf(0.1), **QUIET)
    with named("all images are of the target class '1'"):
        evaluate(model, (x[y == 1], y[y == 1]), Linf(0.1), target=1, **QUIET)
    with named("the targets have the shape (3,)"):
        evaluate(model, (x, y, y[:3]), Linf(0.1), **QUIET)


def aimed(data, aim):
    """Images, labels and targets: a constant class, without the images of it, or the label shifted by (1,)."""
    x, y = data
    targets = torch.full_like(y, aim) if isinstance(aim, int) else (y + aim[0]) % CLASSES
    chosen = targets != y
    return x[chosen], y[chosen], targets[chosen]


def alarms(model, data, ball, attack="pgd(steps=10)"):
    return [alarm["alarm"] for alarm in evaluate(model, data, ball, attack=attack, quiet=True).alarms]


@pytest.mark.parametrize("aim", [(1,), (2,), 2], ids=str)
@pytest.mark.parametrize("ball", [Linf(0.12), L2(0.7)], ids=str)
def test_an_honest_model_raises_no_alarm_where_only_the_target_counts(model, ball, aim):
    assert alarms(model, aimed(patterns(60), aim), ball) == []


def test_a_class_that_no_image_can_be_changed_into_raises_no_alarm():
    never = 5
    six = trained(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 6))
    with torch.no_grad():
        six[-1].bias[never] -= 1000
    report = evaluate(six, aimed(patterns(40), never), Linf(0.3), attack="pgd(steps=10)", quiet=True)
    assert (report.robust, report.alarms) == (report.clean, ())


@pytest.mark.parametrize("mask", [Squashed, Staircase])
@pytest.mark.parametrize("aim", [(1,), 2], ids=str)
def test_a_weak_attack_on_a_masked_model_is_called_so_with_targets_too(mask, model, aim):
    assert "weak-attack" in alarms(mask(model), aimed(patterns(60), aim), Linf(0.12))


class TenTanh(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return 10 * torch.tanh(self.model(x))


@pytest.mark.parametrize("masked", [False, True])
def test_an_attack_of_one_small_step_is_called_weak_with_targets_too(masked, model):
    net = TenTanh(model) if masked else model
    found = alarms(net, aimed(patterns(60), (1,)), Linf(0.12), "pgd(steps=1,step_size=0.1)")
    assert found == ["weak-attack"]
