"""Losses of adversarial training against their definitions, term by term."""

import copy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rivals.attacks.training_attack import TrainingPGD
from rivals.base.errors import UserError
from rivals.base.norm_balls import Linf
from rivals.base.rng import generator
from rivals.base.schedules import Clock
from rivals.game.classifier_step import ClassifierStep
from rivals.game.game import Game, Turn
from rivals.game.player import Player, adam
from rivals.losses.adversarial import awp, madry, mart, readings, trades
from rivals.losses.classification import cross_entropy


def random_output(n=6, classes=4):
    logits = [torch.randn(n, classes, generator=generator(part), dtype=torch.float64) * 2 for part in ("clean", "adv")]
    y = torch.arange(n) % classes
    return SimpleNamespace(logits=logits[0], logits_adv=logits[1], y=y)


def ce(logits, y):
    return -torch.stack([row.softmax(0)[label].log() for row, label in zip(logits, y, strict=True)]).mean()


def divergences(output):
    p, q = output.logits.softmax(1), output.logits_adv.softmax(1)
    return (p * (p / q).log()).sum(1)


def test_madry_is_cross_entropy_on_adversarial_examples_and_with_a_weight_on_clean_images():
    output = random_output()
    assert set(madry()(output)) == {"adv"}
    torch.testing.assert_close(madry()(output)["adv"], ce(output.logits_adv, output.y))
    terms = madry(0.3)(output)
    torch.testing.assert_close(terms["adv"], 0.3 * ce(output.logits_adv, output.y))
    torch.testing.assert_close(terms["clean"], 0.7 * ce(output.logits, output.y))


def test_madry_without_a_clean_term_never_computes_clean_logits():
    output = SimpleNamespace(logits_adv=random_output().logits_adv, y=random_output().y)
    assert madry()(output)["adv"] > 0


def test_trades_is_cross_entropy_plus_beta_times_kl():
    output = random_output()
    terms = trades(6)(output)
    torch.testing.assert_close(terms["clean"], ce(output.logits, output.y))
    torch.testing.assert_close(terms["divergence"], 6 * divergences(output).mean())
    output.logits_adv = output.logits
    assert trades()(output)["divergence"].abs() < 1e-12


def test_mart_is_boosted_cross_entropy_plus_kl_weighted_by_one_minus_the_label_probability():
    output = random_output()
    q = output.logits_adv.softmax(1)
    true_class = q.gather(1, output.y[:, None])[:, 0]
    other = q.scatter(1, output.y[:, None], 0).amax(1)
    weight = 1 - output.logits.softmax(1).gather(1, output.y[:, None])[:, 0]
    terms = mart(5)(output)
    torch.testing.assert_close(terms["boosted"], (-true_class.log() - (1 - other).log()).mean())
    torch.testing.assert_close(terms["divergence"], 5 * (divergences(output) * weight).mean())


def test_mart_stays_finite_where_another_class_has_probability_one():
    logits = torch.tensor([[0.0, 200.0, 0.0]], requires_grad=True)
    output = SimpleNamespace(logits=logits * 1, logits_adv=logits, y=torch.tensor([0]))
    total = sum(mart()(output).values())
    total.backward()
    assert total.isfinite() and logits.grad.isfinite().all()


def test_readings_are_the_accuracy_on_adversarial_examples():
    output = random_output()
    assert readings(output)["accuracy/train_adversarial"] == (output.logits_adv.argmax(1) == output.y).float().mean()


def step(net, x, y):
    return ClassifierStep(
        {"c": net}, "c", lambda: (x * 255, y), batch_size=len(x), clock=Clock(0), augment=None, needs_input_grad=False
    )


@pytest.mark.parametrize("loss", [madry(), awp(trades(6.0))], ids=["madry", "awp"])
def test_a_frozen_backbone_under_attack_keeps_its_statistics_and_its_weights(loss):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).eval().requires_grad_(False)
    head = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    net = nn.Sequential(backbone, head)
    frozen, learning = copy.deepcopy(backbone.state_dict()), copy.deepcopy(head.state_dict())
    batch = torch.rand(8, 1, 4, 4) * 255, torch.arange(8) % 3
    attack = TrainingPGD(2, 0.7)
    step = partial(ClassifierStep, attack=lambda net, x, y, clock: attack(net, x, y, Linf(0.1)))
    game = Game({"c": Player(net, adam(1e-2))}, [Turn("c", loss)], make_step=step)
    for index in range(3):
        game.round(index, SimpleNamespace(n=8, batch_size=8, micro_batches=1, draw=lambda *args: batch), seed=0)
    assert all(torch.equal(value, frozen[name]) for name, value in backbone.state_dict().items())
    assert not any(torch.equal(value, learning[name]) for name, value in head.state_dict().items())
    assert head[1].training and not backbone[1].training


def test_awp_takes_the_gradient_at_the_perturbed_weights():
    """Against the definition: move each matrix by gamma |w| along its normalized gradient, take the gradient there."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.rand(8, 1, 2, 2, dtype=torch.float64), torch.arange(8) % 3
    loss, gamma = cross_entropy(), 0.05
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}

    value = awp(loss, gamma)(step(net, x, y))["ce"]
    value.backward()
    found = {name: weight.grad.clone() for name, weight in net.named_parameters()}
    assert all(torch.equal(before[name], weight) for name, weight in net.named_parameters())

    net.zero_grad()
    loss(step(net, x, y))["ce"].backward()
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:
                weight += gamma * weight.norm() * weight.grad / weight.grad.norm()
    net.zero_grad()
    worst = loss(step(net, x, y))["ce"]
    worst.backward()
    torch.testing.assert_close(value, worst)
    assert worst > loss(step(nn.Sequential(*net), x, y))["ce"] - 1e-12
    for name, weight in net.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, msg=name)


def test_awp_leaves_alone_what_the_loss_does_not_read():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.unread = nn.Linear(4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.read(x.flatten(1))

    net = TwoHeads()
    awp(cross_entropy(), 0.05)(step(net, torch.rand(8, 1, 2, 2), torch.arange(8) % 3))["ce"].backward()
    assert net.read.weight.grad.abs().sum() > 0 and net.unread.weight.grad is None


class Attacked(ClassifierStep):
    """A step whose adversarial examples are given, so that the only passes are those of the loss."""

    x_adv = None


@pytest.mark.parametrize(
    ("loss", "passes"),
    [(madry(), 1), (madry(0.5), 2), (trades(), 2), (mart(), 2)],
    ids=["madry", "both", "trades", "mart"],
)
@pytest.mark.parametrize("gamma", [0, 0.3])
def test_running_statistics_see_each_batch_once_also_with_awp(loss, passes, gamma):
    """In the authors' code a proxy finds the perturbation. The statistics are then those of the perturbed network."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3, momentum=None), nn.Flatten(), nn.Linear(12, 3)).double()
    x, y = torch.rand(8, 1, 2, 2, dtype=torch.float64), torch.arange(8) % 3
    seen = Attacked(
        {"c": net.train()},
        "c",
        lambda: (x * 255, y),
        batch_size=8,
        clock=Clock(0),
        augment=None,
        needs_input_grad=False,
    )
    seen.x_adv = x + 0.1
    convolved = []
    net[0].register_forward_hook(lambda module, inputs, output: convolved.append(output.detach()))
    total = sum((awp(loss, gamma) if gamma else loss)(seen).values())
    total.backward()
    readings(seen)  # takes no further pass
    assert len(convolved) == passes * (2 if gamma else 1)
    assert net[1].num_batches_tracked == passes
    expected = torch.stack([each.mean((0, 2, 3)) for each in convolved[-passes:]]).mean(0)
    torch.testing.assert_close(net[1].running_mean, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: madry(0), "an adversarial weight of 0"),
        (lambda: madry(1, 1), "label smoothing of 1"),
        (lambda: trades(0), "a beta of 0"),
        (lambda: mart(-1), "a beta of -1"),
        (lambda: awp(madry(), 0), "a weight perturbation of 0"),
    ],
)
def test_options_out_of_range_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()
