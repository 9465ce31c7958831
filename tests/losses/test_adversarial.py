"""Robust losses against their definitions, term by term."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rivals.base.errors import UserError
from rivals.base.seeds import generator
from rivals.game.lesson import Lesson
from rivals.losses.classification import cross_entropy
from rivals.losses.robust import awp, madry, mart, readings, trades


def answers(n=6, classes=4):
    draw = [torch.randn(n, classes, generator=generator(part), dtype=torch.float64) * 2 for part in ("clean", "adv")]
    y = torch.arange(n) % classes
    return SimpleNamespace(logits=draw[0], logits_adv=draw[1], y=y)


def ce(logits, y):
    return -torch.stack([row.softmax(0)[label].log() for row, label in zip(logits, y, strict=True)]).mean()


def divergences(given):
    p, q = given.logits.softmax(1), given.logits_adv.softmax(1)
    return (p * (p / q).log()).sum(1)


def test_madry_is_cross_entropy_on_attacked_images_and_a_share_of_the_plain():
    given = answers()
    assert set(madry()(given)) == {"adv"}
    torch.testing.assert_close(madry()(given)["adv"], ce(given.logits_adv, given.y))
    parts = madry(0.3)(given)
    torch.testing.assert_close(parts["adv"], 0.3 * ce(given.logits_adv, given.y))
    torch.testing.assert_close(parts["clean"], 0.7 * ce(given.logits, given.y))


def test_madry_with_attacked_images_alone_never_passes_the_plain_ones():
    given = SimpleNamespace(logits_adv=answers().logits_adv, y=answers().y)
    assert madry()(given)["adv"] > 0


def test_trades_is_cross_entropy_and_a_divergence():
    given = answers()
    parts = trades(6)(given)
    torch.testing.assert_close(parts["clean"], ce(given.logits, given.y))
    torch.testing.assert_close(parts["divergence"], 6 * divergences(given).mean())
    given.logits_adv = given.logits
    assert trades()(given)["divergence"].abs() < 1e-12


def test_mart_is_boosted_cross_entropy_and_a_divergence_weighed_by_doubt():
    given = answers()
    q = given.logits_adv.softmax(1)
    own = q.gather(1, given.y[:, None])[:, 0]
    rival = q.scatter(1, given.y[:, None], 0).amax(1)
    doubt = 1 - given.logits.softmax(1).gather(1, given.y[:, None])[:, 0]
    parts = mart(5)(given)
    torch.testing.assert_close(parts["boosted"], (-own.log() - (1 - rival).log()).mean())
    torch.testing.assert_close(parts["divergence"], 5 * (divergences(given) * doubt).mean())


def test_mart_stays_finite_where_the_rival_is_certain():
    logits = torch.tensor([[0.0, 200.0, 0.0]], requires_grad=True)
    given = SimpleNamespace(logits=logits * 1, logits_adv=logits, y=torch.tensor([0]))
    total = sum(mart()(given).values())
    total.backward()
    assert total.isfinite() and logits.grad.isfinite().all()


def test_readings_count_what_stands():
    given = answers()
    assert readings(given)["accuracy/attacked"] == (given.logits_adv.argmax(1) == given.y).float().mean()


def lesson(net, x, y):
    return Lesson({"c": net}, "c", lambda: (x * 255, y), batch=len(x), images=0, view=None, slopes=False)


def test_awp_learns_from_the_gradient_at_the_worst_weights_nearby():
    """Against the definition: move each matrix by gamma |w| along its normalised gradient, take the gradient there."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x, y = torch.rand(8, 1, 2, 2, dtype=torch.float64), torch.arange(8) % 3
    loss, gamma = cross_entropy(), 0.05
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}

    value = awp(loss, gamma)(lesson(net, x, y))["ce"]
    value.backward()
    found = {name: weight.grad.clone() for name, weight in net.named_parameters()}
    assert all(torch.equal(before[name], weight) for name, weight in net.named_parameters())

    net.zero_grad()
    loss(lesson(net, x, y))["ce"].backward()
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:
                weight += gamma * weight.norm() * weight.grad / weight.grad.norm()
    net.zero_grad()
    worst = loss(lesson(net, x, y))["ce"]
    worst.backward()
    torch.testing.assert_close(value, worst)
    assert worst > loss(lesson(nn.Sequential(*net), x, y))["ce"] - 1e-12
    for name, weight in net.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, msg=name)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: madry(0), "a mix of 0"),
        (lambda: madry(1, 1), "label smoothing of 1"),
        (lambda: trades(0), "a beta of 0"),
        (lambda: mart(-1), "a beta of -1"),
        (lambda: awp(madry(), 0), "a weight perturbation of 0"),
    ],
)
def test_numbers_that_make_no_loss_are_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        wrong()
