"""HopSkipJump, SurFree and SPSA: what they see, exactly how often they ask, and what they find."""

import functools

import pytest
import torch
from torch import nn

from helpers.models import centered_linear_model, conv_model, linear_model
from helpers.refusals import named
from rivals import L0, L2, Linf, evaluate
from rivals.attacks import freeze, hopskipjump, noise, pgd, sparse_rs, spsa, square, surfree
from rivals.attacks.low_frequencies import dct_basis, low_frequency_noise
from rivals.base.rng import generator

LABELS = [(hopskipjump, L2(100.0)), (hopskipjump, Linf(1.0)), (surfree, L2(100.0))]
labels_only = pytest.mark.parametrize(("attack", "ball"), LABELS, ids=lambda each: getattr(each, "__name__", str(each)))


class LabelsOnly(nn.Module):
    """Answers by one-hot logits, and records what it is asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.asked = model, []

    def forward(self, x):
        self.asked.append(x.detach().clone())
        return 4 * nn.functional.one_hot(self.model(x).argmax(1), 3).to(x.dtype)


@labels_only
def test_labels_are_enough_and_queries_are_counted_exactly(attack, ball):
    model, x, y = centered_linear_model(3)
    watched = LabelsOnly(model)
    with freeze(watched, x[:2]) as frozen:
        watched.asked.clear()
        x_adv = attack(frozen, x[:2], y[:2], ball, queries=431)
        assert frozen.forwards == 2 * (431 + 1)  # and the clean images
        assert sum(map(len, watched.asked)) == 2 * (431 + 1)
        assert frozen.backwards == 0
        needed = frozen.queries_needed
    assert (model(x_adv).argmax(1) != y[:2]).all()
    assert ball.contains(x_adv, x[:2]).all()
    assert all(((some >= 0) & (some <= 1)).all() for some in watched.asked)
    assert ((needed >= 1) & (needed <= 431)).all()


@labels_only
def test_the_distance_nears_the_closed_form_of_a_linear_model_and_falls_with_the_budget(attack, ball):
    model, x, y = centered_linear_model(2)
    x, y = x[:4], y[:4]
    weights = (model[1].weight[0] - model[1].weight[1]).detach()
    gap = (model(x)[:, 0] - model(x)[:, 1]).detach().abs()
    expected = gap / weights.norm(p=2 if isinstance(ball, L2) else 1)
    options = {"frequencies": 1.0} if attack is surfree else {}
    short, long = (ball.distance(attack(model, x, y, ball, queries=made, **options), x) for made in (100, 1200))
    assert (long <= short).all()
    assert (long >= expected * (1 - 1e-9)).all()
    assert long.median() < {surfree: 1.5, hopskipjump: 1.25}[attack] * expected.median()


@labels_only
def test_results_do_not_depend_on_the_batch_and_eps_says_what_counts(attack, ball):
    model, x, y = conv_model(n=4)
    found = attack(model, x, y, ball, queries=150)
    assert torch.allclose(attack(model, x[2:3], y[2:3], ball, queries=150, batch_size=7), found[2:3], atol=1e-9)
    far = ball.distance(found, x)
    few = attack(model, x, y, ball.with_eps(far * torch.tensor([0.9, 1.1, 0.9, 1.1])), queries=150)
    assert torch.equal(few[[0, 2]], x[[0, 2]])
    assert torch.equal(few[[1, 3]], found[[1, 3]])


class SeesFineNoise(nn.Module):
    """Class 0 for images whose neighbors differ much, as in white noise."""

    def forward(self, x):
        rough = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))
        return torch.stack([rough - 0.2, torch.zeros_like(rough)], 1)


@labels_only
def test_where_white_noise_is_of_the_images_own_class_coarser_noise_is_the_start(attack, ball):
    model, x = SeesFineNoise(), (torch.arange(8) % 2).double().expand(1, 1, 8, 8).contiguous()
    y = torch.zeros(1, dtype=torch.int64)
    white = torch.rand(100, 1, 8, 8, generator=generator("white"), dtype=x.dtype)
    assert (model(white).argmax(1) == 0).all()
    assert model(attack(model, x, y, ball, queries=100)).argmax(1) != 0


def test_a_targeted_start_is_taken_and_reached():
    model, x, y = conv_model(n=8)
    targets = y.roll(1)
    start = x.roll(1, 0)
    keep = targets != y
    x_adv = hopskipjump(model, x[keep], y[keep], L2(100.0), queries=200, targets=targets[keep], start=start[keep])
    assert (model(x_adv).argmax(1) == targets[keep]).all()
    assert (L2(1.0).distance(x_adv, x[keep]) < L2(1.0).distance(start[keep], x[keep])).all()
    with named("the start has the shape (8, 3, 6, 6): give images like x"):
        surfree(model, x[:2], y[:2], L2(1.0), start=start)


@pytest.mark.parametrize("ball", [Linf(0.03), L2(0.4)], ids=str)
def test_spsa_fools_most_of_what_gradients_fool_within_its_queries(ball):
    model, x, y = conv_model()
    with freeze(model, x) as frozen:
        x_adv = spsa(frozen, x, y, ball, queries=700)
        assert frozen.backwards == 0
        assert frozen.forwards <= len(x) * (700 + 1)
    assert ball.contains(x_adv, x).all()
    found, known = ((model(each).argmax(1) != y).sum() for each in (x_adv, pgd(model, x, y, ball)))
    assert found >= 0.7 * known > 0


def test_spsa_asks_for_valid_images_alone():
    model, x, y = linear_model(3, (2, 4), n=6)
    seen = []
    hook = model.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    spsa(model, x.round(), y, Linf(0.2), queries=40, samples=4)
    hook.remove()
    assert (
        len(seen) > 2 and min(float(each.min()) for each in seen) >= 0 and max(float(each.max()) for each in seen) <= 1
    )


def test_the_estimate_of_spsa_is_the_gradient_on_average():
    """One step in L2 from the clean image follows the gradient of a linear model, with enough pairs."""
    model, x, y = linear_model(2, (1, 2, 2), n=4)
    x_adv = spsa(model, x, y, L2(1e-3), queries=4001, samples=2000, stop_when_fooled=False, step_size=1e-3)
    signs = (model[1].weight[1 - y] - model[1].weight[y]).view_as(x).sign()  # of Adam's first step
    inside = (x_adv > 0) & (x_adv < 1)
    assert torch.equal((x_adv - x).sign()[inside], signs.detach()[inside])


def test_low_frequencies_are_low():
    basis = dct_basis(8)
    assert torch.allclose(basis @ basis.T, torch.eye(8).double())
    smooth = low_frequency_noise(torch.zeros(1, 2, 8, 8).double(), 0.5, generator("v"))
    spectrum = basis @ smooth @ basis.T
    assert spectrum[:, :, :4, :4].abs().min() > 0
    assert max(spectrum[:, :, 4:].abs().max(), spectrum[:, :, :, 4:].abs().max()) < 1e-12


def test_robust_accuracy_against_queries_is_reported_and_ends_at_the_stage_s_own():
    model, x, y = conv_model(n=16)
    report = evaluate(model, (x, y), L2(0.4), attack="noise,square(queries=60)", alarms=False, quiet=True)
    curve = dict(report.queries["square(queries=60)"])
    assert curve[max(curve)].count == report.robust.count < curve[1].count <= 16 - report.stages["noise"].fooled
    hits = [curve[made].count for made in sorted(curve)]
    assert hits == sorted(hits, reverse=True)
    assert max(curve) <= 61
    assert report.as_dict()["queries"][-1]["stage"] == "square(queries=60)"
    assert not evaluate(model, (x, y), L2(0.4), attack="fgsm", alarms=False, quiet=True).queries


@pytest.mark.parametrize(
    "attack",
    [hopskipjump, surfree, square, spsa, functools.partial(sparse_rs, ball=L0(3))],
    ids=["hopskipjump", "surfree", "square", "spsa", "sparse_rs"],
)
def test_a_budget_of_0_is_refused(attack):
    model, x, y = conv_model(n=2)
    options = {} if isinstance(attack, functools.partial) else {"ball": L2(1.0)}
    with named("queries of 0 cannot work: take 1 or more"):
        attack(model, x, y, queries=0, **options)


def test_bad_options_are_refused_in_one_line():
    model, x, y = conv_model(n=2)
    with named("surfree is an attack in L2, the ball is Linf(0.1)"):
        surfree(model, x, y, Linf(0.1))
    with named("frequencies of 0 are no share"):
        surfree(model, x, y, L2(1.0), frequencies=0)
    with named("64 queries are too few for a gradient of 32 pairs", "take 65 or more"):
        spsa(model, x, y, L2(1.0), queries=64)
    with named("spsa is an attack in Linf, L2 or L1"):
        spsa(model, x, y, L0(3))
    assert noise(model, x, y, L2(0.1)).shape == x.shape
