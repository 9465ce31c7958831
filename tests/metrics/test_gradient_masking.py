"""Signs of gradient masking, and the alarms that they raise."""

import dataclasses
import math

import pytest
import torch

from rivals.base.norm_balls import L1, L2, Linf
from rivals.metrics.gradient_masking import (
    DLR,
    GRADIENT_FREE,
    MARGIN,
    MULTI_STEP,
    NOISE,
    ONE_STEP,
    REMEDIES,
    ProbeResult,
    changed_by_batch,
    find_alarms,
    full_range,
    gradient_free_alarm,
    probe,
    significantly_more,
    weak_attack_alarm,
)


def which(*indices, n=40):
    """A mask (n,) that is true at these indices."""
    mask = torch.zeros(n, dtype=torch.bool)
    mask[list(indices)] = True
    return mask


def steps(*falling, n=40, points=4):
    """Small steps along the gradient (n, points), of which all of these images lower the loss."""
    return which(*falling, n=n)[:, None].expand(n, points)


def result(strong, *, by_eps=None, zero_gradient=(), falling=(), n=40, **others):
    by_eps = by_eps or [(0.1, strong), (1.0, which(*range(n)))]
    return ProbeResult({MULTI_STEP: strong, **others}, by_eps, which(*zero_gradient), steps(*falling))


def test_a_model_without_masking_raises_no_alarm():
    others = {ONE_STEP: which(*range(20)), NOISE: which(1), GRADIENT_FREE: which(*range(28), 35)}
    assert find_alarms(result(which(*range(30)), **others, zero_gradient=[0])) == []


SHRINKING = [(0.1, which(*range(9))), (0.2, which(0)), (1.0, ~which())]


@pytest.mark.parametrize(
    ("alarm", "found"),
    [
        ("one-step-beats-many", result(which(1, 2), **{ONE_STEP: which(*range(9))})),
        ("noise-beats-gradient", result(which(), **{NOISE: which(*range(5))})),
        ("black-box-beats-gradient", result(which(0), **{GRADIENT_FREE: which(*range(1, 9))})),
        ("zero-gradient", result(which(), zero_gradient=range(5))),
        ("larger-eps-fools-fewer", result(which(*range(9)), by_eps=SHRINKING)),
        ("gradient-misleads", result(which(0), falling=range(1, 6))),
        ("unbounded-attack-fails", result(which(), by_eps=[(0.1, which()), (1.0, which(*range(30)))])),
    ],
)
def test_each_sign_raises_its_alarm_alone(alarm, found):
    alarms = find_alarms(found)
    assert [each.alarm for each in alarms] == [alarm]
    assert alarms[0].as_dict()["remedy"] == REMEDIES[alarm]


def test_a_larger_ball_of_radii_per_feature_is_called_by_the_largest():
    found = dataclasses.replace(result(which(*range(9)), by_eps=SHRINKING), per_feature=True)
    assert "(9 at eps per feature, at most 0.1; 1 at 0.2)" in find_alarms(found)[0].message


def test_steps_that_lower_the_loss_do_not_matter_where_the_attack_succeeds():
    assert find_alarms(result(which(*range(30)), falling=range(30))) == []


def test_probes_raise_an_alarm_if_they_add_more_than_a_tenth_of_the_images():
    assert weak_attack_alarm(5, 50) == weak_attack_alarm(2, 4) == []
    (alarm,) = weak_attack_alarm(6, 50)
    assert alarm.as_dict()["alarm"] == "weak-attack"
    assert "fool 6 of 50 images" in alarm.message


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-4), (torch.bfloat16, 2**-7)])
def test_the_rest_of_the_batch_changes_logits_only_beyond_rounding(dtype, rounding):
    alone = torch.tensor([[10.0, -10.0, 3.0], [0.0, 5.0, 1.0]], dtype=dtype)
    assert not changed_by_batch(alone, alone * (1 + rounding)).any()
    other = alone.clone()
    other[1, 2] += 1
    assert changed_by_batch(alone, other).tolist() == [False, True]


def test_secondary_probes_attack_only_images_that_those_before_left():
    x, y, met = torch.zeros(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64), {}
    index = torch.arange(6.0)

    def fooling(name, *chosen):
        def attack(x, y, ball, targets):
            met.setdefault(name, (x[:, 0, 0, 0]).tolist())
            return torch.where(torch.isin(x, torch.tensor([float(i) for i in chosen])), -1.0, x)

        return attack

    x = x + index.view(-1, 1, 1, 1)
    attacks = {MULTI_STEP: fooling("pgd", 0, 1), ONE_STEP: fooling("fgsm", 2)}
    attacks |= {MARGIN: fooling("margin", 3), DLR: fooling("dlr", 4)}
    ball = Linf(0.1, bounds=(-1.0, 6.0))
    found = probe(
        x, y, None, ball, attacks, lambda x, y, targets: (x < 0).flatten(1).all(1), torch.ones_like(x), steps(n=6)
    )
    assert met["fgsm"] == [0, 1, 2, 3, 4, 5]
    assert met["margin"] == [3, 4, 5]
    assert met["dlr"] == [4, 5]
    assert found.fooled_by_any.tolist() == [True] * 5 + [False]


def test_a_difference_by_chance_is_not_significant():
    assert not significantly_more(which(0, 1, 2, 3), which())  # 1 in 16
    assert significantly_more(which(0, 1, 2, 3, 4), which())  # 1 in 32
    assert not significantly_more(which(*range(12)), which(*range(20, 29)))
    assert not significantly_more(which(), which())


def test_gradient_free_stages_raise_an_alarm_only_if_they_add_many_images():
    assert gradient_free_alarm(2, 50, 100) == []
    assert gradient_free_alarm(20, 300, 1000) == []
    (alarm,) = gradient_free_alarm(21, 300, 1000)
    assert "fool 21 of 1000 images" in alarm.message


def test_the_probe_runs_each_attack_once_and_the_multi_step_one_at_every_radius():
    x, y, calls = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64), []

    def attack(x, y, ball, targets):
        calls.append((len(x), torch.as_tensor(ball.eps).flatten().tolist()))
        return x

    attacks = {MULTI_STEP: attack, ONE_STEP: attack}
    found = probe(x, y, None, Linf(0.3), attacks, lambda x, y, targets: y.bool(), torch.ones_like(x), steps(n=3))
    assert calls[0] == calls[1] == (3, [pytest.approx(0.3)])
    assert calls[2][0] == 9
    assert calls[2][1] == pytest.approx([0.3] * 3 + [0.6] * 3 + [1.0] * 3)
    assert [eps for eps, _ in found.by_eps] == pytest.approx([0.3, 0.6, 1.0])
    assert found.as_dict()["zero_gradients"] == 0


def test_the_full_range_of_images_in_each_norm():
    x = torch.zeros(1, 3, 4, 4)
    assert full_range(Linf(0.1), x) == 1
    assert full_range(L2(0.1), x) == pytest.approx(math.sqrt(48))
    assert full_range(L1(0.1, bounds=(-1.0, 1.0)), x) == 96
