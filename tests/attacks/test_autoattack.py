"""Attacks one after the other: who attacks what, who is believed, and AutoAttack's published budgets."""

from functools import partial

import pytest
import torch
from torch import nn

from helpers.attack_norms import SHORT, ball_of
from helpers.models import conv_model, uniform
from rivals.attacks import (
    ATTACKS,
    Stage,
    apgd,
    autoattack,
    autoattack_stages,
    freeze,
    noise,
    pgd,
    run_ensemble,
    square,
    square_pgd,
)
from rivals.attacks.attack_losses import LOSSES
from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Linf
from rivals.base.rng import generator

NARROW = Linf(0.012)


def recorded(attack, calls):
    def part(model, x, y, ball, *, clean, targets, seed, batch_size):
        calls.append({"x": x, "y": y, "ball": ball, "clean": clean, "targets": targets, "seed": seed})
        return attack(model, x, y, ball, targets=targets, seed=seed, batch_size=batch_size)

    return Stage(f"part {len(calls)}", part)


def stay(model, x, y, ball, **options):
    return x.clone()


def test_each_stage_attacks_the_images_still_classified_correctly():
    model, x, y = conv_model()
    y[:3] = (y[:3] + 1) % 5  # three are wrong from the start
    radii = torch.linspace(0.001, 0.03, 16, dtype=torch.float64)
    calls = []
    few = recorded(lambda *args, **options: apgd(*args, steps=1, **options), calls)
    with freeze(model, x) as frozen:
        clean, first, second, third = run_ensemble(
            frozen, x, y, Linf(radii), [few, recorded(stay, calls), recorded(apgd, calls)], seed=7
        )
    assert clean.stage == "clean"
    assert clean.indices.tolist() == list(range(16))
    assert clean.fooled.tolist() == [True] * 3 + [False] * 13
    assert torch.equal(clean.x_adv, x)
    assert first.indices.tolist() == list(range(3, 16))
    assert 0 < first.fooled.sum() < 13
    assert not second.fooled.any()
    assert torch.equal(second.indices, first.indices[~first.fooled])
    assert torch.equal(third.indices, second.indices)
    assert third.fooled.any()
    for call, outcome in zip(calls, (first, second, third), strict=True):
        assert torch.equal(call["x"], x[outcome.indices])
        assert torch.equal(call["y"], y[outcome.indices])
        assert torch.equal(call["ball"].eps, radii[outcome.indices])
        assert torch.allclose(call["clean"], model(x)[outcome.indices])
        assert call["targets"] is None
        assert call["seed"] == 7
        assert torch.equal(model(outcome.x_adv).argmax(1) != y[outcome.indices], outcome.fooled)


def test_ensemble_ends_when_all_images_are_misclassified():
    model, x, y = conv_model()
    calls = []
    parts = [recorded(apgd, calls), recorded(apgd, calls)]
    with freeze(model, x) as frozen:
        assert [outcome.stage for outcome in run_ensemble(frozen, x, y, Linf(0.3), parts)] == ["clean", parts[0].name]
        assert [outcome.stage for outcome in run_ensemble(frozen, x, (y + 1) % 5, Linf(0.3), parts)] == ["clean"]
        assert [len(outcome.indices) for outcome in run_ensemble(frozen, x[:0], y[:0], Linf(0.3), parts)] == [0]
    assert len(calls) == 1


def test_results_of_a_stage_are_verified():
    model, x, y = conv_model()
    inside = apgd(model, x, y, Linf(0.3))
    cheats = {
        "too far": lambda *args, **options: inside,
        "out of the box": lambda model, x, y, ball, **options: x - 2,
        "no image": lambda model, x, y, ball, **options: x * float("nan"),
        "right after all": stay,
    }
    with freeze(model, x) as frozen:
        outcomes = list(run_ensemble(frozen, x, y, Linf(0.1), [Stage(*cheat) for cheat in cheats.items()]))
        assert [outcome.stage for outcome in outcomes] == ["clean", *cheats]
        assert not any(outcome.fooled.any() for outcome in outcomes)
        honest = list(run_ensemble(frozen, x, y, Linf(0.3), [Stage("too far", cheats["too far"])]))
    assert honest[1].fooled.all()


def test_targets_are_passed_on_and_decide_success():
    model, x, y = conv_model()
    targets, calls = (y + 2) % 5, []
    with freeze(model, x) as frozen:
        outcomes = list(
            run_ensemble(frozen, x, y, L2(0.6), [recorded(apgd, calls), recorded(apgd, calls)], targets=targets)
        )
    assert 0 < outcomes[1].fooled.sum() < 16
    for outcome, call in zip(outcomes[1:], calls, strict=True):
        assert torch.equal(call["targets"], targets[outcome.indices])
        assert torch.equal(model(outcome.x_adv).argmax(1) == targets[outcome.indices], outcome.fooled)
    x, targets = x[:6], targets[:6]
    x_adv = autoattack(model, x, y[:6], L2(3.0), targets=targets, version="swift")
    assert (model(x_adv).argmax(1) == targets).sum() >= 5


def test_passes_and_seconds_are_counted_per_stage():
    model, x, y = conv_model()
    parts = [Stage("noise", lambda *args, **options: noise(*args, trials=4, **options)), Stage("apgd", apgd)]
    with freeze(model, x) as frozen:
        outcomes = list(run_ensemble(frozen, x, y, Linf(1e-7), parts))
        assert [outcome.forwards for outcome in outcomes] == [16, 16 * (1 + 4 + 1), 16 * (101 + 1)]
        assert [outcome.backwards for outcome in outcomes] == [0, 0, 16 * 100]
        assert sum(outcome.forwards for outcome in outcomes) == frozen.forwards
        assert all(outcome.seconds > 0 for outcome in outcomes)
        before = frozen.forwards
        next(run_ensemble(frozen, x, y, Linf(1e-7), parts, clean=model(x).detach()))
        assert frozen.forwards == before


def test_nothing_is_held_open_between_stages():
    model, x, y = conv_model()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    drawn = []
    with freeze(model, x) as frozen:
        for _ in run_ensemble(frozen, x, y, NARROW, autoattack_stages("standard", NARROW)[:2]):
            assert torch.is_grad_enabled()
            drawn.append(torch.rand(1))
    assert torch.equal(torch.cat(drawn), expected[: len(drawn)])


def test_standard_is_as_published():
    """Passes of an image that nothing fools, in ten classes; K - 1 targets where there are fewer."""
    model, x, y = conv_model(10)
    x, y = x[:1], y[:1]
    with freeze(model, x) as frozen:
        spent = {
            o.stage: (o.forwards, o.backwards)
            for o in run_ensemble(frozen, x, y, Linf(1e-9), autoattack_stages("standard", Linf(1)))
        }
        assert list(spent) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
        assert spent["apgd-ce"] == (101 + 1, 100)
        assert spent["apgd-t"] == (9 * 101 + 1, 9 * 100)
        assert 9 * 100 <= spent["fab-t"][1] < 9 * 102
        assert spent["square"] == (5001 + 1, 0)
        two = autoattack_stages("standard", L1(1))[:2]
        spent = {o.stage: (o.forwards, o.backwards) for o in run_ensemble(frozen, x, y, L1(1e-9), two)}
        assert spent["apgd-ce"] == (5 * 103 + 1, 5 * 102)
        assert spent["apgd-t"] == (5 * 103 + 1, 5 * 102)
    model, x, y = conv_model(3)
    with freeze(model, x[:1]) as frozen:
        *_, last = run_ensemble(frozen, x[:1], y[:1], Linf(1e-9), autoattack_stages("standard", Linf(1))[1:2])
        assert last.backwards == 2 * 100


@pytest.mark.parametrize(("ball", "classes"), [(Linf(0.012), 5), (L2(0.16), 2)])
def test_autoattack_is_as_strong_as_its_stages_together(ball, classes):
    model, x, y = conv_model(classes)
    x, y = x[:10], y[:10]
    parts = ["apgd-ce", "apgd-t", "fab-t"]
    x_adv = autoattack(model, x, y, ball, stages=parts)
    fooled = model(x_adv).argmax(1) != y
    assert ball.contains(x_adv, x).all()
    assert torch.equal(x_adv[~fooled], x[~fooled])
    alone = [model(autoattack(model, x, y, ball, stages=[part])).argmax(1) != y for part in parts]
    assert torch.equal(fooled, torch.stack(alone).any(0))
    assert torch.equal(alone[0], model(apgd(model, x, y, ball)).argmax(1) != y)
    assert 0 < fooled.sum() < 10


class Silent(nn.Module):
    """Rounds its images to sixteenths, and hands back a gradient that says nothing."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x.detach() * 16).round() / 16) + 0 * x.flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("version", ["standard", "swift"])
def test_a_model_with_masked_gradients_is_fooled(version):
    model, x, y = conv_model()
    model, x = Silent(model), x[:6]
    y = model(x).argmax(1)
    gradients_only = model(autoattack(model, x, y, Linf(0.06), stages=["apgd-ce", "apgd-t"])).argmax(1) != y
    fooled = model(autoattack(model, x, y, Linf(0.06), version=version)).argmax(1) != y
    assert fooled.sum() > gradients_only.sum() + 2


@pytest.mark.parametrize("version", ["standard", "swift"])
def test_autoattack_depends_on_neither_batch_size_nor_order_and_leaves_the_model_alone(version):
    model, x, y = conv_model()
    x, y = x[:8], y[:8]
    model.train()
    options = {"version": version, "seed": 2}
    if version == "standard":
        options["stages"] = ["apgd-ce", "apgd-t"]
    state = torch.get_rng_state()
    together = autoattack(model, x, y, NARROW, **options)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    order = torch.randperm(8, generator=generator("order"))
    shuffled = autoattack(model, x[order], y[order], NARROW, batch_size=3, **options)
    assert torch.allclose(shuffled, together[order], atol=1e-9)


def test_each_stage_gets_the_best_iterates_before_it():
    model, x, y = conv_model()
    x, y = x[:6], y[:6]
    gains, seen = [0.5, 0.9, 0.2, 0.0], []
    far = apgd(model, x, y, Linf(1e-4), stop_when_fooled=False)

    def part(gain, model, x, y, ball, *, best, **options):
        seen.append(best)
        return x + gain * (far - x)

    with freeze(model, x) as frozen:
        list(run_ensemble(frozen, x, y, Linf(0.01), [Stage("part", partial(part, gain)) for gain in gains]))
    assert torch.equal(seen[0], x)
    assert torch.allclose(seen[1], x + 0.5 * (far - x))
    assert torch.allclose(seen[2], x + 0.9 * (far - x))
    assert torch.equal(seen[3], seen[2])


def test_square_pgd_succeeds_where_neither_attack_does_alone():
    """Class 1 wins past a plateau without a gradient: only search crosses it, and only gradients succeed after it."""
    x = torch.full((8, 1, 8, 9), 0.5, dtype=torch.float64)
    x[..., 0] = uniform(8, 1, 8)  # the model ignores these pixels, so that images differ and are all as hard
    model, y = Plateau(), torch.zeros(8, dtype=torch.int64)
    ball = Linf(0.1)
    for alone in (partial(pgd, steps=200, restarts=2), partial(square, queries=1000)):
        assert (model(alone(model, x, y, ball)).argmax(1) == 0).all()
    x_adv = square_pgd(model, x, y, ball, turns=4)
    assert ball.contains(x_adv, x).all()
    assert (model(x_adv).argmax(1) == 1).all()


class Plateau(nn.Module):
    """The upper half should be bright, without a gradient; the lower half half as bright, and no window holds that."""

    def forward(self, x):
        moved = 10 * (x - 0.5)[..., 1:]
        upper = moved[:, :, :4].mean((1, 2, 3)).detach()
        lower = 1 - (moved[:, :, 4:] - 0.5).abs().mean((1, 2, 3))
        lower = torch.where(upper > 0.3, lower, lower.detach())
        return torch.stack([3 - upper - lower, 0 * lower + 1.3], 1)


def test_square_pgd_starts_from_the_best_and_is_never_worse():
    model, x, y = conv_model()
    found = pgd(model, x, y, NARROW, loss="margin", seed=3)
    start = (model(found).argmax(1) != y).sum()
    with freeze(model, x) as frozen:
        x_adv = square_pgd(frozen, x, y, NARROW, turns=2, queries=10, steps=3, best=found)
        n_robust = 16 - int(start)
        most = (
            16 + 16 + n_robust * (11 + 4 + 1 + 21 + 7 + 1)
        )  # the originals, what was found, and two turns of Square and PGD
        assert frozen.forwards <= most
    fooled = model(x_adv).argmax(1) != y
    assert fooled[model(found).argmax(1) != y].all()
    loss = LOSSES["margin"]
    assert (loss(model(x_adv), y) >= loss(model(found), y))[~fooled].all()


def test_square_pgd_gives_up_without_progress():
    """A tiny ball takes next to nothing off the lead: one turn, where ten are due."""
    model, x, y = conv_model()
    with freeze(model, x) as frozen:
        square_pgd(frozen, x, y, Linf(1e-6), queries=20, steps=5)
        assert frozen.forwards == 16 * (1 + 21 + 6 + 1)


def test_a_start_must_lie_in_the_ball():
    model, x, y = conv_model()
    for attack in (partial(pgd, steps=1), partial(square, queries=5)):
        with pytest.raises(UserError, match="outside of ball or box in 16 of 16 images"):
            attack(model, x, y, NARROW, start=1 - x)
        with pytest.raises(UserError, match="give images like x"):
            attack(model, x, y, NARROW, start=x[:3])
        begun = attack(model, x, y, Linf(0.0), start=x, stop_when_fooled=False)
        assert torch.equal(begun, x)
    with pytest.raises(UserError, match="turns of 0"):
        square_pgd(model, x, y, NARROW, turns=0)


def test_every_attack_has_a_name():
    model, x, y = conv_model()
    assert set(ATTACKS) >= {"noise", "fgsm", "bim", "pgd", "mifgsm", "apgd", "fab", "square", "autoattack"}
    quick = SHORT | {"autoattack": {"stages": ["apgd-ce"]}}
    for name, attack in ATTACKS.items():
        ball = ball_of(name)
        x_adv = attack(model, x, y, ball, seed=1, batch_size=8, targets=None, **quick.get(name, {}))
        assert ball.contains(x_adv, x).all()
    with pytest.raises(UserError, match="unknown attack 'sqare': did you mean square"):
        ATTACKS["sqare"]


def test_bad_input_gives_one_line():
    model, x, y = conv_model()
    with pytest.raises(UserError, match="unknown version of autoattack 'standart': did you mean standard"):
        autoattack(model, x, y, NARROW, version="standart")
    with pytest.raises(UserError, match="unknown stage of autoattack standard 'apgd-c': did you mean apgd-ce"):
        autoattack(model, x, y, NARROW, stages=["apgd-c"])
    with pytest.raises(UserError, match="the ball is a float"):
        autoattack(model, x, y, 0.1)
    with pytest.raises(UserError, match="divide them by 255"):
        autoattack(model, x * 255, y, NARROW)
    with pytest.raises(UserError, match="the images are a list"):
        autoattack(model, [1.0], y, NARROW)
    assert autoattack(model, x[:0], y[:0], NARROW).shape == (0, 3, 6, 6)
    assert square is ATTACKS["square"]
