"""The shortest way to a plane inside the box against solvers, and FAB against optima known in closed form."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import nn

from helpers.models import conv_model, linear_model, normal, uniform
from rivals.attacks import fab, freeze
from rivals.attacks.linear_boundary import min_norm_step, nearest_boundary
from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Linf

FAR = {"Linf": Linf(1.0), "L2": L2(100.0), "L1": L1(1e4)}


def solved(x, w, gain, p):
    """The smallest norm of d with <w, d> = gain and 0 <= x + d <= 1, by a solver that knows nothing of ours."""
    x, w = x.flatten().numpy(), w.flatten().numpy()
    n = len(x)
    if p == 2:
        start = np.clip(x + w * gain / (w @ w), 0, 1) - x
        found = minimize(
            lambda d: d @ d,
            start,
            jac=lambda d: 2 * d,
            bounds=list(zip(-x, 1 - x, strict=True)),
            constraints={"type": "eq", "fun": lambda d: w @ d - gain, "jac": lambda d: w},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        return np.sqrt(found.fun) if found.success else np.inf
    if p == 1:  # d = up - down
        bounds = [*((0, 1 - v) for v in x), *((0, v) for v in x)]
        found = linprog(np.ones(2 * n), A_eq=[np.r_[w, -w]], b_eq=[gain], bounds=bounds)
    else:  # |d| <= t
        eye, minus = np.eye(n), -np.ones((n, 1))
        constraints = np.vstack([np.hstack([eye, minus]), np.hstack([-eye, minus])])
        bounds = [*zip(-x, 1 - x, strict=True), (0, None)]
        cost = np.r_[np.zeros(n), 1]
        found = linprog(cost, A_ub=constraints, b_ub=np.zeros(2 * n), A_eq=[np.r_[w, 0]], b_eq=[gain], bounds=bounds)
    return found.fun if found.success else np.inf


@pytest.mark.parametrize("ball", FAR.values(), ids=FAR)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_shortest_way_to_a_plane_in_the_box(ball, share, sign):
    """``share`` of all that the box allows: at 0.95 most coordinates end at a wall."""
    x, w = uniform(6, 3, 2, 4), normal(6, 3, 2, 4)
    gain = share * (w * ((sign * w > 0).double() - x)).flatten(1).sum(1)
    change = min_norm_step(x, w, gain, ball)
    assert torch.allclose((w * change).flatten(1).sum(1), gain, rtol=1e-9)
    assert ((x + change >= -1e-12) & (x + change <= 1 + 1e-12)).all()
    best = torch.tensor([solved(*parts, ball.p) for parts in zip(x, w, gain.tolist(), strict=True)], dtype=x.dtype)
    assert best.isfinite().all()
    assert torch.allclose(ball.distance(x + change, x), best, rtol=1e-6)


@pytest.mark.parametrize("ball", FAR.values(), ids=FAR)
def test_a_plane_beyond_the_box_is_approached_and_no_normal_is_no_way(ball):
    x, w = uniform(3, 5), normal(3, 5)
    corner = (w > 0).double()
    assert torch.allclose(x + min_norm_step(x, w, torch.full((3,), 1e3, dtype=w.dtype), ball), corner)
    w[:, 2:] = 0
    assert torch.allclose((x + min_norm_step(x, w, torch.full((3,), 1e3, dtype=w.dtype), ball))[:, 2:], x[:, 2:])
    assert torch.equal(min_norm_step(x, torch.zeros_like(x), torch.ones(3, dtype=x.dtype), ball), torch.zeros_like(x))
    assert torch.equal(min_norm_step(x, w, torch.zeros(3, dtype=x.dtype), ball), torch.zeros_like(x))


@pytest.mark.parametrize("ball", FAR.values(), ids=FAR)
def test_small_gradients_in_single_precision(ball):
    x, w = uniform(4, 50), normal(4, 50)
    gain = 0.3 * w.abs().sum(1) * 0.1
    exact = min_norm_step(x, w, gain, ball)
    small = min_norm_step(x.float(), w.float() * 1e-30, gain.float() * 1e-30, ball)
    assert torch.allclose(small.double(), exact, atol=1e-5)


def test_many_coordinates_at_walls_in_l1():
    """So many that the search for the largest has to widen; checked against a full sort."""
    x, w = uniform(2, 5000), normal(2, 5000)
    room = torch.where(w > 0, 1 - x, x)
    for share in (0.01, 0.3, 0.9):
        gain = share * (w.abs() * room).sum(1)
        change = min_norm_step(x, w, gain, FAR["L1"])
        assert torch.allclose((w * change).sum(1), gain)
        order = w.abs().argsort(1, descending=True)
        sorted_change = change.abs().gather(1, order) / room.gather(1, order)
        assert (sorted_change.diff(dim=1) <= 1e-9).all()


@pytest.mark.parametrize("ball", FAR.values(), ids=FAR)
def test_the_nearest_boundary_of_a_linear_model(ball):
    model, x, y = linear_model(4)
    q = {1.0: torch.inf, 2.0: 2.0}.get(ball.p, 1.0)
    others = torch.stack([torch.tensor([k for k in range(4) if k != label]) for label in y.tolist()])
    with freeze(model, x) as frozen:
        leaf, logits = frozen.trace(x)
        lead, normal = nearest_boundary(frozen, leaf, logits, y, ball, others)
        assert frozen.backwards == 3 * len(x)
    for row in range(len(x)):
        z, weights = model(x)[row].detach(), model[1].weight.detach()
        far = [(abs(z[k] - z[y[row]]) / (weights[k] - weights[y[row]]).norm(p=q), k) for k in others[row].tolist()]
        best = min(far)[1]
        assert torch.allclose(lead[row], z[best] - z[y[row]])
        assert torch.allclose(normal[row].flatten(), weights[best] - weights[y[row]])


@pytest.mark.parametrize("ball", FAR.values(), ids=FAR)
@pytest.mark.parametrize("rivals", [0, 9])
@pytest.mark.parametrize("classes", [2, 4])
def test_the_distance_of_a_linear_model_away_from_the_walls(ball, classes, rivals):
    model, x, y = linear_model(classes)
    weights, x = model[1].weight.detach(), 0.45 + 0.1 * x
    model[1].bias.data.copy_(-weights.sum(1) / 2)  # all logits are 0 in the middle
    z, y = model(x).detach(), model(x).argmax(1)
    x_adv = fab(model, x, y, ball, n_targets=rivals, steps=5)
    q = {1.0: torch.inf, 2.0: 2.0}.get(ball.p, 1.0)
    lead = z.gather(1, y[:, None]) - z
    best = (lead / (weights[None] - weights[y][:, None]).norm(p=q, dim=2)).scatter(1, y[:, None], torch.inf).amin(1)
    assert (model(x_adv).argmax(1) != y).all()
    assert torch.allclose(ball.distance(x_adv, x), best, rtol=1e-4)


@pytest.mark.parametrize("ball", FAR.values(), ids=FAR)
@pytest.mark.parametrize(("classes", "rivals"), [(2, 0), (2, 9), (4, 9)])
def test_the_distance_of_a_linear_model_between_walls(ball, classes, rivals):
    """Dark images and bright ones: at most points the way runs into walls."""
    model, x, y = linear_model(classes)
    x = x.pow(torch.arange(1, 13).view(-1, 1, 1, 1) / 3)
    y = model(x).argmax(1)
    weights, z = model[1].weight.detach(), model(x).detach()
    x_adv = fab(model, x, y, ball, n_targets=rivals, steps=60)
    assert (model(x_adv).argmax(1) != y).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    found = ball.distance(x_adv, x).tolist()
    for row, label in enumerate(y.tolist()):
        ways = [
            solved(x[row], weights[k] - weights[label], float(z[row, label] - z[row, k]), ball.p)
            for k in range(classes)
            if k != label
        ]
        assert found[row] == pytest.approx(min(ways), rel=1e-4)


class Wavy(nn.Module):
    """Logits that go up and down several times across the box: full of local answers."""

    def forward(self, x):
        waves = (x.flatten(1) @ normal(108, 40, seed="waves")).sin()
        return waves @ normal(40, 4, seed="heights") + 15 * torch.eye(4, dtype=x.dtype)[0]


@pytest.mark.parametrize("ball", FAR.values(), ids=FAR)
def test_more_steps_and_other_starts_find_nearer_points_of_a_curved_model(ball):
    model, x = Wavy(), uniform(16, 3, 6, 6)
    y = model(x).argmax(1)

    def distances(**options):
        x_adv = fab(model, x, y, ball, **options)
        return ball.distance(x_adv, x).masked_fill(model(x_adv).argmax(1) == y, torch.inf)

    few, many, more = distances(steps=2), distances(steps=30), distances(steps=30, restarts=3)
    assert many.isfinite().all()
    assert (many < 0.99 * few).sum() > (few < 0.99 * many).sum()
    assert (more <= many * 1.01).all()
    assert (more < many).any()


@pytest.mark.parametrize("ball", [Linf(0.01), L2(0.08), L1(0.6)], ids=str)
def test_stopping_within_eps_saves_passes_and_fools_the_same_points(ball):
    model, x, y = conv_model()
    fooled, passes = [], []
    for stop in (False, True):
        with freeze(model, x) as frozen:
            x_adv = fab(frozen, x, y, ball, n_targets=4, steps=20, stop_within=stop)
            passes.append(frozen.forwards)
        assert ball.contains(x_adv, x).all()
        fooled.append(model(x_adv).argmax(1) != y)
    assert torch.equal(*fooled)
    assert 0 < fooled[0].sum() < len(x)
    assert passes[1] < 0.8 * passes[0]


def test_two_passes_forward_and_one_backward_a_step():
    model, x, y = conv_model()
    with freeze(model, x) as frozen:
        fab(frozen, x, y, Linf(1.0), n_targets=2, steps=30)
        assert 16 * 2 * 30 <= frozen.backwards <= 16 * (2 * 30 + 14)
        assert frozen.forwards <= 16 * (1 + 2 * 2 * 30 + 80)
    with freeze(model, x) as frozen:
        fab(frozen, x, y, Linf(1.0), steps=30)
        assert 16 * 4 * 30 <= frozen.backwards <= 16 * (4 * 30 + 14)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"steps": 0}, "steps of 0"),
        ({"restarts": 0}, "restarts of 0"),
        ({"n_targets": -1}, "n_targets of -1"),
        ({"eta": 0.9}, "an eta of 0.9"),
        ({"alpha_max": 1.5}, "alpha_max of 1.5"),
        ({"beta": -0.1}, "beta of -0.1"),
        ({"n_targets": 2, "targets": torch.ones(16, dtype=torch.int64)}, "targets"),
    ],
)
def test_bad_options(options, line):
    model, x, y = conv_model()
    with pytest.raises(UserError, match=line):
        fab(model, x, y, Linf(0.1), **options)
