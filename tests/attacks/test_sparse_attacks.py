"""sigma-zero, FMN and Sparse-RS in L0, and PDPGD in L1 and L2: closed forms, budgets, and the promises they keep."""

import functools

import pytest
import torch
from torch import nn

from helpers.models import centered_linear_model, conv_model, linear_model, uniform
from helpers.refusals import named
from rivals import L0, L1, L2, Linf
from rivals.attacks import autoattack, freeze, pdpgd, pgd, sigma_zero, sparse_rs
from rivals.attacks import fmn as fmn_attack
from rivals.attacks.pdpgd import _l2
from rivals.base.rng import generator

FAR = L0(1000)
sigma = functools.partial(sigma_zero, steps=30)
fmn = functools.partial(fmn_attack, steps=30)


def fewest_changes(model, x, y, pixels):
    """Closed form for a linear model of two classes: greedily the components whose move to the box gains most."""
    weights = (model[1].weight[1 - y] - model[1].weight[y]).detach().view_as(x)
    gain = torch.where(weights > 0, weights * (1 - x), -weights * x)
    gain = gain.sum(1).flatten(1) if pixels else gain.flatten(1)
    logits = model(x).detach()
    need = logits.gather(1, y[:, None]) - logits.gather(1, 1 - y[:, None])
    return (gain.sort(1, descending=True).values.cumsum(1) <= need).sum(1) + 1


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("attack", [sigma, fmn])
def test_the_closed_form_of_a_linear_model_with_two_classes(attack, pixels):
    model, x, y = linear_model(2, (3, 4, 4))
    ball = L0(1000, pixels=pixels)
    x_adv = attack(model, x, y, ball)
    assert (model(x_adv).argmax(1) != y).all()
    assert torch.equal(ball.distance(x_adv, x).long(), fewest_changes(model, x, y, pixels))


@pytest.mark.parametrize("attack", [sigma, fmn])
def test_results_are_adversarial_within_eps_or_the_image_and_do_not_depend_on_the_batch(attack):
    model, x, y = conv_model(n=12)
    everywhere = attack(model, x, y, FAR)
    assert (model(everywhere).argmax(1) != y).all()
    few = attack(model, x, y, L0(1))
    near = FAR.distance(everywhere, x) <= 1
    assert near.any()
    assert not near.all()
    assert torch.equal(few[near], everywhere[near])
    assert torch.equal(few[~near], x[~near])
    order = torch.randperm(12, generator=generator("order"))
    assert torch.allclose(attack(model, x[order], y[order], FAR, batch_size=5), everywhere[order], atol=1e-6)
    aimed = attack(model, x, y, FAR, targets=(y + 2) % 5)
    reached = model(aimed).argmax(1) == (y + 2) % 5
    assert reached.double().mean() > 0.9
    assert (FAR.distance(aimed, x) >= FAR.distance(everywhere, x))[reached].all()


@pytest.mark.parametrize("attack", [sigma, fmn])
def test_the_refinement_only_restores(attack):
    model, x, y = conv_model(n=12)
    plain, refined = (FAR.distance(attack(model, x, y, FAR, refine_steps=steps), x) for steps in (0, 10))
    assert (refined <= plain).all()
    assert (refined < plain).any()


class Counted(nn.Module):
    """Counts the images that it is asked about, and never changes its mind."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return torch.tensor([2.0, 0.0], dtype=x.dtype).expand(len(x), 2)


@pytest.mark.parametrize("pixels", [False, True])
def test_sparse_rs_asks_exactly_its_queries_inside_the_ball(pixels):
    model, x, ball = Counted(), uniform(3, 2, 5, 5), L0(torch.tensor([1, 4, 12]), pixels=pixels)
    with freeze(model, x) as frozen:
        model.seen.clear()
        sparse_rs(frozen, x, torch.zeros(3, dtype=torch.int64), ball, queries=230, stop_when_fooled=False)
    assert len(model.seen) == 230
    for images in model.seen:
        assert ball.contains(images, x).all()
        assert ((images == x) | (images == 0) | (images == 1)).all()
    # A deaf model never rewards a proposal: each differs from the start by one swap at least, by a share of it at most.
    start, *proposals = model.seen
    for images in proposals[20:]:
        changed = ball.distance(images, start)
        assert (changed <= 2 * (0.3 / 4 * ball.eps).floor().clamp_min(1)).all()
    assert len({tuple(map(tuple, (images != start)[0].nonzero().tolist())) for images in proposals}) > 20


@pytest.mark.parametrize("pixels", [False, True])
def test_sparse_rs_fools_what_gradients_fool_on_a_linear_model(pixels):
    model, x, y = linear_model(3, (3, 4, 4))
    ball = L0(8 if pixels else 20, pixels=pixels)
    found = model(sparse_rs(model, x, y, ball, queries=1500)).argmax(1) != y
    assert (found == (model(pgd(model, x, y, ball)).argmax(1) != y)).double().mean() > 0.9
    assert found.any()


@pytest.mark.parametrize(
    ("shape", "counts", "sizes"), [("patch", [1, 8, 16], [1, 2, 4]), ("frame", [22, 23, 40], [1, 1, 2])]
)
def test_sparse_rs_paints_one_patch_or_the_frame_and_nothing_else(shape, counts, sizes):
    model, x, ball = Counted(), uniform(3, 2, 6, 7), L0(torch.tensor(counts), pixels=True)
    with freeze(model, x) as frozen:
        model.seen.clear()
        zeros = torch.zeros(3, dtype=torch.int64)
        sparse_rs(frozen, x, zeros, ball, queries=120, shape=shape, stop_when_fooled=False)
    assert len(model.seen) == 120
    places = set()
    for images in model.seen:
        assert ball.contains(images, x).all()
        for image, clean, size in zip(images, x, sizes, strict=True):
            rows, columns = (image != clean).any(0).nonzero().T.tolist()
            assert set(image[(image != clean)].tolist()) <= {0.0, 1.0}
            if shape == "patch":
                assert max(rows) - min(rows) == max(columns) - min(columns) == size - 1
                assert len(rows) == size**2
                places.add((size, min(rows), min(columns)))
            else:
                depth = [min(r, 5 - r, c, 6 - c) for r, c in zip(rows, columns, strict=True)]
                assert max(depth) == size - 1
                assert len(rows) == 42 - (6 - 2 * size) * (7 - 2 * size)
    # A deaf model rewards no proposal: they have other colors than the start, or another place.
    start, *proposals = model.seen
    assert torch.stack([(images != start).flatten(1).any(1) for images in proposals]).double().mean() > 0.95
    assert len(places) > 15 or shape == "frame"


def test_a_patch_and_a_frame_fool_and_do_not_depend_on_the_batch():
    model, x, y = linear_model(3, (3, 6, 6))
    for shape, count in (("patch", 16), ("frame", 20)):
        ball = L0(count, pixels=True)
        found = sparse_rs(model, x, y, ball, queries=300, shape=shape)
        assert ball.contains(found, x).all()
        assert (model(found).argmax(1) != y).double().mean() > (model(x).argmax(1) != y).double().mean() + 0.2
        assert torch.equal(sparse_rs(model, x[3:5], y[3:5], ball, queries=300, shape=shape, batch_size=1), found[3:5])


@pytest.mark.parametrize("radii", [[0, 4, 0, 25], [21, 0, 1, 0], [0, 0, 0, 0]])
@pytest.mark.parametrize("shape", ["values", "free", "patch", "frame"])
def test_sparse_rs_leaves_images_alone_of_which_nothing_may_change(shape, radii):
    model, x, y = conv_model(n=4)
    ball, options = L0(torch.tensor(radii), pixels=shape != "values"), {"queries": 25, "stop_when_fooled": False}
    options["shape"] = "free" if shape == "values" else shape
    if shape == "frame" and not any(radii):
        with named("0 pixels are too few for a frame"):
            sparse_rs(model, x, y, ball, **options)
        return
    found = sparse_rs(model, x, y, ball, **options)
    assert ball.contains(found, x).all()
    some = torch.tensor(radii) > 0  # and the others are those of a call without them
    without = sparse_rs(model, x[some], y[some], ball.with_eps(torch.tensor(radii)[some]), **options)
    assert torch.equal(found[some], without)


@pytest.mark.parametrize("attack", [sigma, fmn, functools.partial(pgd, steps=5, stop_when_fooled=False)])
def test_other_attacks_in_l0_leave_images_alone_of_which_nothing_may_change(attack):
    model, x, y = conv_model(n=5)
    ball = L0(torch.tensor([0, 9, 0, 1, 30]))
    found = attack(model, x, y, ball)
    assert ball.contains(found, x).all()
    assert not torch.equal(found, x)


@pytest.mark.parametrize("ball", [L1(1e4), L2(100.0)], ids=str)
@pytest.mark.parametrize("classes", [2, 4])
def test_pdpgd_finds_the_closed_form_of_a_linear_model(ball, classes):
    model, x, y = centered_linear_model(classes)
    z, weights = model(x).detach(), model[1].weight.detach()
    q = torch.inf if isinstance(ball, L1) else 2
    far = (z.gather(1, y[:, None]) - z) / (weights[None] - weights[y][:, None]).norm(p=q, dim=2)
    expected = far.scatter(1, y[:, None], torch.inf).amin(1)
    x_adv = pdpgd(model, x, y, ball, steps=40)
    assert (model(x_adv).argmax(1) != y).all()
    assert torch.allclose(ball.distance(x_adv, x), expected, rtol=1e-4)


@pytest.mark.parametrize("ball", [L1(1e4), L2(100.0)], ids=str)
def test_pdpgd_alone_comes_near_and_the_refinement_gains(ball):
    model, x, y = conv_model(n=12)
    plain, refined = (ball.distance(pdpgd(model, x, y, ball, refine_steps=steps), x) for steps in (0, 10))
    assert (refined <= plain * (1 + 1e-6)).all()
    assert plain.median() < 1.3 * refined.median()


def test_the_proximal_operator_in_l2_satisfies_its_optimality_condition():
    """0 = mu z / |z| + root (z - r); or z = 0 where |root r| <= mu."""
    r, root = uniform(5, 2, 3, 3) - 0.5, 0.1 + uniform(5, 2, 3, 3, seed="root")
    mu = torch.tensor([0.01, 0.1, 0.2, 0.3, 50.0]).double().view(5, 1, 1, 1)
    z = _l2(r, root, mu)
    norms = z.flatten(1).norm(dim=1).view(5, 1, 1, 1)
    assert norms[4] == 0
    assert (mu * z / norms + root * (z - r))[:4].abs().max() < 1e-9


def test_norms_without_an_algorithm_are_refused_in_one_line():
    model, x, y = conv_model(n=2)
    with named("sigma_zero is an attack in L0, the ball is Linf(0.1): take one in L0 (--norm l0)"):
        sigma_zero(model, x, y, Linf(0.1))
    with named("pdpgd is an attack in L1 or L2, the ball is L0(3)", "sigma_zero, fmn, sparse_rs or pgd"):
        pdpgd(model, x, y, L0(3))
    with named("autoattack is an attack in Linf, L2 or L1, the ball is L0(3)"):
        autoattack(model, x, y, L0(3))
    with named("threshold of 2 is not a share"):
        sigma_zero(model, x, y, FAR, threshold=2)
    with named("a sigma of 0 cannot work"):
        sigma_zero(model, x, y, FAR, sigma=0)
    with named("queries of 0 cannot work: take 1 or more"):
        sparse_rs(model, x, y, FAR, queries=0)
    with named("an alpha of 0 is not a share"):
        sparse_rs(model, x, y, FAR, alpha=0)
    with named("a patch is made of pixels: take L0(k, pixels=True), or --pixels"):
        sparse_rs(model, x, y, L0(9), shape="patch")
    with named("9 pixels are too few for a frame: take 20 or more"):
        sparse_rs(model, x, y, L0(9, pixels=True), shape="frame")
    with named("unknown shape of sparse_rs 'square'"):
        sparse_rs(model, x, y, L0(9, pixels=True), shape="square")
