"""Turns: which player learns, what has a graph, penalties, EMA, schedules, precision."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from helpers.small_games import Affine, affine_game, noise_images, small_game, snapshot, states_equal
from rivals.base.process_group import ALONE
from rivals.base.schedules import Clock
from rivals.data.batches import Batches
from rivals.game.game import Turn
from rivals.game.gan_step import GanStep
from rivals.game.loop import play
from rivals.losses.gan import hinge, nonsaturating, relativistic
from rivals.losses.penalties import r1, r2


@pytest.fixture(scope="module")
def images():
    return noise_images()


@pytest.mark.parametrize("mover", ["discriminator", "generator"])
def test_a_turn_updates_one_player_only(images, mover):
    other = {"discriminator": "generator", "generator": "discriminator"}[mover]
    game = affine_game([Turn(mover, getattr(relativistic, mover))])
    before = {name: snapshot(player.net) for name, player in game.players.items()}
    seen = []
    hold = game.players[other].net.layer.weight.register_hook(seen.append)
    game.round(0, Batches(images, 4, seed=0), seed=0)
    hold.remove()
    assert not seen
    assert states_equal(before[other], snapshot(game.players[other].net))
    assert not states_equal(before[mover], snapshot(game.players[mover].net))
    weights = [weight for player in game.players.values() for weight in player.net.parameters()]
    assert all(weight.grad is None and weight.requires_grad for weight in weights)


def test_generated_images_have_a_graph_in_the_generators_turn_only():
    for mover, graph in (("discriminator", False), ("generator", True)):
        nets = {"generator": Affine(3, 64), "discriminator": Affine(64, 1)}
        step = GanStep(
            nets,
            mover,
            lambda: (torch.zeros(4, 1, 8, 8), None),
            batch_size=4,
            clock=Clock(0),
            augment=None,
            needs_input_grad=False,
        )
        assert step.fake_images.requires_grad is graph
        assert step.real.shape == step.fake.shape == (4,)
        assert step.real.requires_grad is not graph


def test_real_images_are_loaded_only_if_the_loss_uses_them():
    def draw():
        raise AssertionError("nobody asked for real images")

    nets = {"generator": Affine(3, 64), "discriminator": Affine(64, 1)}
    step = GanStep(nets, "generator", draw, batch_size=4, clock=Clock(0), augment=None, needs_input_grad=False)
    step.nets["generator"].classes = 0
    step.__dict__["labels"] = None
    nonsaturating().generator(step)
    assert "real" not in step.__dict__


def test_one_forward_pass_over_both_batches_equals_two():
    """Slopes and logits, joint or apart, against autograd on each image."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 1), nn.Flatten(0)).double()

    class D(nn.Module):
        uses_batch_stats = False

        def forward(self, x, labels):
            return net(x)

    real = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    found = []
    for couples in (False, True):
        d = D()
        d.uses_batch_stats = couples
        nets = {"generator": Affine(3, 64).double(), "discriminator": d}
        step = GanStep(
            nets,
            "discriminator",
            lambda: (real, None),
            batch_size=3,
            clock=Clock(0),
            augment=None,
            needs_input_grad=True,
        )
        step.__dict__["fake_images"] = real.flip(0) * 2
        found.append((step.real, step.fake, step.real_input_grad, step.fake_input_grad))
    for joint, apart in zip(*found, strict=True):
        torch.testing.assert_close(joint, apart)
    for i, image in enumerate(step.real_images):
        x = image[None].requires_grad_()
        (slope,) = torch.autograd.grad(net(x).sum(), x)
        torch.testing.assert_close(found[0][2][i], slope[0])


def test_lazy_penalties_are_added_when_due(images):
    every = 3
    turns = [Turn("discriminator", hinge.discriminator, [r1(0.5, every), r2(0.5, every)])]
    game = affine_game(turns)
    net = game.players["discriminator"].net
    batches = Batches(images, 4, seed=0)
    for step in range(7):
        weight = net.layer.weight.detach().clone()
        values = game.round(step, batches, seed=0)
        assert ("penalty/r1" in values) == ("penalty/r2" in values) == (step % every == 0)
        if step % every == 0:  # D is affine, so both penalties are gamma / 2 |w|^2
            assert values["penalty/r1"].item() == pytest.approx(0.25 * weight.square().sum().item(), rel=1e-5)


def test_gradient_of_a_lazy_penalty_is_multiplied_by_its_interval(images):
    """With gamma alone pulling (both batches alike, so that the loss has no gradient), |grad| = every * gamma |w|."""
    nothing = Turn("discriminator", lambda s: {"none": (s.real * 0).sum()}, [r1(0.5, every=4)])
    game = affine_game([nothing])
    weight = game.players["discriminator"].net.layer.weight.detach().clone()
    values = game.round(0, Batches(images, 4, seed=0), seed=0)
    assert values["grad_norm/discriminator"].item() == pytest.approx(4 * 0.5 * weight.norm().item(), rel=1e-5)


def test_parts_sum_to_the_loss(images):
    game, _ = small_game("mlp-classic")
    values = game.round(0, Batches(images, 4, seed=0), seed=0)
    parts = values["loss/discriminator/real"] + values["loss/discriminator/fake"]
    torch.testing.assert_close(values["loss/discriminator"], parts)
    assert 0 < values["d_real"].item() < 1


@pytest.mark.parametrize(("rampup", "limit"), [(0.05, 1 / 20), (0.5, 1 / 2), (None, math.inf)])
def test_ema_follows_its_half_life_and_ramp_up(images, rampup, limit):
    game = affine_game([Turn("generator", relativistic.generator)], ema=40, ema_rampup=rampup)
    player = game.players["generator"]
    expected = player.net.layer.bias.detach().clone()
    batches = Batches(images, 10, seed=0)
    for step in range(30):
        game.round(step, batches, seed=0)
        beta = 0.5 ** (10 / min(40, (step + 1) * 10 * limit))
        expected = beta * expected + (1 - beta) * player.net.layer.bias.detach()
    torch.testing.assert_close(player.ema.layer.bias, expected)
    assert player.eval_net is player.ema


def test_learning_rates_and_betas_follow_their_schedules(images):
    game, _ = small_game("quick", generator_lr="1e-3 -> 1e-4 in 40 images", beta2="0.9 -> 0.99 in 40 images")
    play(game, Batches(images, 4, seed=0), until="6 steps")
    optimizer = game.players["generator"].optimizer  # as set before the sixth step, after 20 images
    assert optimizer.lr == pytest.approx(5.5e-4)
    assert optimizer.betas[1] == pytest.approx(0.945)


def test_bf16_is_used_in_convolutions_only(images):
    game, _ = small_game("quick", precision="bf16", penalty_every=2)
    net = game.players["discriminator"].net
    seen = []
    for part in net.layers:
        part.register_forward_hook(lambda part, x, y: seen.append(y.dtype))
    batches = Batches(images, 4, seed=0)
    exact, _ = small_game("quick", precision="fp32", penalty_every=2)
    for step in (0, 1):  # with a gradient penalty, and without
        values = game._take(game.turns[0], (step, 0, 0), batches, Clock(0), 0, ALONE)
        assert set(seen) == {torch.bfloat16}
        seen.clear()
        assert all(value.dtype == torch.float32 and value.isfinite() for value in values.values())
        other = exact._take(exact.turns[0], (step, 0, 0), batches, Clock(0), 0, ALONE)
        assert {key: float(value) for key, value in values.items()} == {
            key: pytest.approx(float(value), abs=0.02, rel=0.02) for key, value in other.items()
        }
    assert {weight.dtype for player in game.players.values() for weight in player.net.parameters()} == {torch.float32}


@pytest.mark.parametrize("penalties", [{"r1": 5, "r2": 5}, {"r1": 0, "r2": 0, "gp": 10}])
def test_gradient_penalties_in_bf16_have_slopes_in_float32_and_nearly_their_gradient(images, monkeypatch, penalties):
    slopes, gradients, grad = [], [], torch.autograd.grad

    def watched(*args, **how):
        found = grad(*args, **how)
        slopes.extend(each.dtype for each in found)
        return found

    monkeypatch.setattr(torch.autograd, "grad", watched)
    for precision in ("fp32", "bf16"):
        game, _ = small_game("r3", precision=precision, penalty_every=1, **penalties)
        turn = replace(game.turns[0], loss=lambda view: {"none": 0 * (view.real.sum() + view.fake.sum())})
        game._play(turn, (0, 0, 0), Batches(images, 4, seed=0), Clock(0))
        gradients.append(torch.cat([gradient.flatten() for gradient in game.players["discriminator"].gradients()]))
    assert set(slopes) == {torch.float32}
    exact, half = gradients
    assert not torch.equal(exact, half)
    assert torch.cosine_similarity(exact, half, dim=0) > 0.98
    assert half.norm() == pytest.approx(exact.norm().item(), rel=0.02)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # which the tracer itself reads
@pytest.mark.parametrize(
    ("precision", "penalties"), [("fp32", {}), ("bf16", {}), ("fp32", {"r1": 0, "r2": 0, "gp": 1, "cr": 1})]
)
def test_compiled_networks_give_the_same_values(images, monkeypatch, precision, penalties):
    # The flags are those for an accelerator; the backend is the one that needs no compiler.
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda net: compile(net, backend="aot_eager"))
    values, graphs = [], []
    for compiled in (False, True):
        torch._dynamo.reset()  # or a network of the test before would do
        counters.clear()
        game, _ = small_game("quick", compile=compiled, precision=precision, penalty_every=2, **penalties)
        values.append([game.round(step, Batches(images, 4, seed=0), seed=0) for step in range(4)])
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == 0 < graphs[1]
    assert [part.keys() for part in values[0]] == [part.keys() for part in values[1]]
    slack = 1e-4 if precision == "fp32" else 0.02
    for plain, fused in zip(*values, strict=True):
        assert all(float(fused[key]) == pytest.approx(float(plain[key]), abs=slack, rel=slack) for key in plain)
