"""What a model is before an attack it is after it; and what is folded into it answers as it does."""

import copy
import gc
import sys

import pytest
import torch
from torch import nn

from helpers.model_states import same, setting, state
from rivals.attacks import AugmentRanges, apgd, augment, bim, fgsm, freeze, mifgsm, noise, pgd
from rivals.attacks.bn_folding import fold_batch_norm
from rivals.base.errors import UserError
from rivals.base.norm_balls import L2, Linf
from rivals.base.rng import generator

BALL = Linf(0.05)
ATTACKS = {
    "fgsm": lambda model, x, y: fgsm(model, x, y, BALL),
    "bim": lambda model, x, y: bim(model, x, y, BALL, steps=3),
    "pgd": lambda model, x, y: pgd(model, x, y, BALL, steps=3),
    "mifgsm": lambda model, x, y: mifgsm(model, x, y, BALL, steps=3),
    "apgd": lambda model, x, y: apgd(model, x, y, BALL, steps=3),
    "noise": lambda model, x, y: noise(model, x, y, BALL, trials=3),
    "augment": lambda model, x, y: augment(model, x, y, AugmentRanges(), trials=3),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_model_comes_back_as_it_was(name):
    model, x, y = setting()
    before = state(model)
    ATTACKS[name](model, x, y)
    assert same(state(model), before)


@pytest.mark.parametrize("name", ATTACKS)
def test_also_after_an_error(name):
    model, x, y = setting()
    before = state(model)
    calls = []

    def third_call_fails(*_):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    hook = model.register_forward_pre_hook(third_call_fails)
    with pytest.raises(KeyboardInterrupt):
        ATTACKS[name](model, x.repeat(20, 1, 1, 1), y.repeat(20))
    hook.remove()
    assert same(state(model), before)


class Restless(nn.Module):
    """Updates its statistics in evaluation too, and draws from the global random state."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.head = nn.Linear(3, 4)
        self.drawn = []

    def forward(self, x):
        pooled = x.mean((2, 3))
        self.mean.lerp_(pooled.detach().mean(0), 0.1)
        draws = torch.randn(len(x), 4)
        self.drawn.append(draws)
        return self.head(pooled - self.mean) + 0.1 * draws


def test_a_randomized_model_draws_by_the_seed_and_leaves_no_trace():
    model = Restless()
    x, y = torch.rand(6, 3, 5, 5, generator=generator("restless")), torch.zeros(6, dtype=torch.int64)
    before = state(model)
    found, draws = [], []
    for seed in (1, 1, 2):
        model.drawn.clear()
        found.append(pgd(model, x, y, BALL, steps=3, seed=seed, stop_when_fooled=False))
        draws.append(torch.cat(model.drawn))
        assert same(state(model), before)
        torch.rand(7)
        before["random"] = torch.get_rng_state()
    assert torch.equal(found[0], found[1])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])


def test_a_graph_the_caller_has_open_stays_whole():
    model, x, y = setting()
    loss = model(x).square().sum()
    pgd(model, x, y, BALL, steps=2)
    loss.backward()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_attacks_work_where_gradients_are_switched_off(mode):
    model, x, y = setting()
    expected = pgd(model, x, y, BALL, steps=3)
    with mode():
        assert torch.equal(pgd(model, x.clone(), y.clone(), BALL, steps=3), expected)


def test_attacks_cut_the_graph_of_their_images():
    model, x, y = setting()
    leaf = x.clone().requires_grad_()
    assert not pgd(model, leaf * 1, y, BALL, steps=2).requires_grad
    assert leaf.grad is None


def test_the_attack_meets_the_model_in_evaluation_mode():
    model, x, y = setting()
    model.eval()
    expected = pgd(copy.deepcopy(model), x, y, BALL, steps=3)
    model.train()
    assert torch.equal(pgd(model, x, y, BALL, steps=3), expected)


def test_batch_norm_is_folded_where_possible_without_changing_the_logits():
    model, x, _ = setting(torch.float64)
    model.eval()
    with freeze(model, x) as frozen:
        assert frozen.folded
        assert torch.allclose(frozen.logits(x), model(x), atol=1e-12)
        leaf, logits = frozen.trace(x)
        gradient = frozen.gradient(logits[:, 0], leaf)
    own = x.clone().requires_grad_()
    assert torch.allclose(gradient, torch.autograd.grad(model(own)[:, 0].sum(), own)[0], atol=1e-12)
    folded = fold_batch_norm(model, x, model(x))
    kinds = [type(module).__name__ for module in folded.modules()]
    assert kinds.count("BatchNorm2d") == 1
    assert "BatchNorm1d" not in kinds


class Twice(nn.Module):
    """One convolution used twice, under two batch-norms."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.second.running_mean.fill_(2.0)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x)))).mean((2, 3))


class Branching(Twice):
    """Control flow that depends on values cannot be traced."""

    def forward(self, x):
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


class Baked(Twice):
    """Its coin would become a constant when traced."""

    def forward(self, x):
        return super().forward(x) * torch.rand(1)


class CommonOptions(Twice):
    """The convolution's own output is used beside its batch-norm."""

    def forward(self, x):
        x = self.conv(x)
        return (self.first(x) + x).mean((2, 3))


class Statless(nn.Module):
    """Without running statistics, batch-norm is not affine."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False))

    def forward(self, x):
        return self.net(x).mean((2, 3))


@pytest.mark.parametrize(
    ("kind", "folds"), [(Twice, True), (Branching, False), (Baked, False), (CommonOptions, False), (Statless, False)]
)
def test_folding_falls_back_where_it_is_not_allowed(kind, folds):
    model = kind().eval()
    x = torch.rand(4, 3, 6, 6, generator=generator("fold"))
    with freeze(model, x) as frozen:
        assert frozen.folded is folds
        if kind is not Baked:
            assert torch.allclose(frozen.logits(x), model(x), atol=1e-5)


def test_hooks_are_not_folded_away():
    model = Twice().eval()
    x = torch.rand(4, 3, 6, 6)
    seen = []
    model.conv.register_forward_hook(lambda *_: seen.append(1))
    with freeze(model, x) as frozen:
        assert not frozen.folded
        frozen.logits(x)
    assert seen


class Viewing(nn.Module):
    """A view that only contiguous images allow."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 3)

    def forward(self, x):
        return self.head(x.view(len(x), -1))


def test_channels_last_where_the_model_takes_it():
    x = torch.rand(5, 3, 4, 4, generator=generator("last"))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    y = model(x).argmax(1)
    plain = pgd(model, x, y, L2(0.5), steps=4)
    with freeze(model, x, channels_last=True) as frozen:
        assert frozen.channels_last
        assert torch.allclose(pgd(frozen, x, y, L2(0.5), steps=4), plain, atol=1e-5)
    with freeze(Viewing(), x, channels_last=True) as frozen:
        assert not frozen.channels_last
    with freeze(nn.Linear(6, 3), torch.rand(5, 6), channels_last=True) as frozen:
        assert not frozen.channels_last
    assert torch.allclose(pgd(model, x.to(memory_format=torch.channels_last), y, L2(0.5), steps=4), plain, atol=1e-5)


def test_a_frozen_model_still_checks_its_images():
    model, x, y = setting()
    with freeze(model, x) as frozen, pytest.raises(UserError, match="images of float64"):
        fgsm(frozen, x.double(), y, BALL)


def test_passes_are_counted_in_images():
    model, x, _ = setting()
    with freeze(model, x) as frozen:
        frozen.logits(x)
        leaf, logits = frozen.trace(x[:4])
        frozen.gradient(logits.sum(1), leaf, retain_graph=True)
        frozen.gradient(logits[:, 0], leaf)
        assert (frozen.forwards, frozen.backwards, frozen.classes) == (13, 8, 10)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net(x.detach()),
        lambda net, x: torch.no_grad()(net)(x),
        lambda net, x: net(x.mul(255).round().div(255).detach()) + torch.zeros(1, requires_grad=True),
    ],
)
def test_a_model_without_gradient_is_an_error(forward):
    class NoGradient(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 3)

        def forward(self, x):
            return forward(self.net, x)

    with pytest.raises(UserError, match="no gradient for its images") as refusal:
        pgd(NoGradient(), torch.rand(3, 4), torch.tensor([0, 1, 2]), BALL, stop_when_fooled=False)
    assert "\n" not in str(refusal.value)
    noise(NoGradient(), torch.rand(3, 4), torch.tensor([0, 1, 2]), BALL)


def test_a_compiled_model_is_attacked_alike(monkeypatch):
    """By a backend that needs no compiler; batches of any size go through one compilation."""
    model, x, y = setting()
    compile_ = torch.compile
    asked = []

    def quick(module, **options):
        asked.append(options)
        return compile_(module, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", quick)
    plain = pgd(model, x, y, Linf(0.05), steps=5)
    with freeze(model, x, compiled=True) as frozen:
        assert asked == [{"dynamic": True}]
        torch.testing.assert_close(pgd(frozen, x, y, Linf(0.05), steps=5), plain)
        assert frozen.forwards and frozen.backwards


def test_freezing_leaves_nothing_behind():
    """As fx does, which keeps the source of what it has traced: two strings and more each time."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2)).eval()
    x = torch.rand(2, 1, 4, 4)

    def held_after(times: int) -> int:
        for _ in range(times):
            with freeze(model, x) as frozen:
                assert frozen.folded
        del frozen
        gc.collect()
        return sys.getallocatedblocks()

    held_after(5)
    assert held_after(50) - held_after(1) < 50
