"""Balls against brute force and against the variational inequalities of projection and linear maximum."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Linf, ball_for
from rivals.base.rng import generator

KINDS = (Linf, L2, L1)
kinds = st.sampled_from(KINDS)
often_bounds = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))
anywhere = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-3, 4))
radii = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(1e-3, 1))
SIZE = 6


def images(values):
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 2, 3)


batches = st.lists(often_bounds, min_size=2 * SIZE, max_size=2 * SIZE).map(images)
points = st.lists(anywhere, min_size=2 * SIZE, max_size=2 * SIZE).map(images)


def dot(a, b):
    return (a * b).flatten(1).sum(1)


def generators(count, *place):
    return [generator("test", *place, i) for i in range(count)]


@given(kinds, radii, batches, points)
@settings(max_examples=200)
def test_a_projection_is_feasible_nearest_and_idempotent(kind, eps, x, point):
    ball = kind(eps)
    nearest = ball.project(point, x)
    assert ball.contains(nearest, x).all()
    assert torch.allclose(ball.project(nearest, x), nearest, atol=1e-9)
    # p is the nearest point of a convex set to v if and only if <v - p, z - p> <= 0 for each z of the set
    away = point - nearest
    assert (dot(away, ball.linear_max(x, away) - nearest) <= 1e-8).all()


@given(kinds, radii, batches, points)
@settings(max_examples=200)
def test_no_feasible_point_exceeds_the_linear_maximum(kind, eps, x, gradient):
    ball = kind(eps)
    top = ball.linear_max(x, gradient)
    assert ball.contains(top, x).all()
    others = [ball.project(x + scale * gradient, x) for scale in (0.01, 1, 100)]
    others += [ball.sample(x, generators(2, i)) for i in range(5)]
    for other in others:
        assert (dot(gradient, other) <= dot(gradient, top) + 1e-9).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eps", [0.2, 0.7])
def test_projection_and_linear_maximum_against_a_grid_search(kind, eps):
    ball = kind(eps)
    axis = torch.linspace(0, 1, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    draws = torch.rand(8, 2, generator=generator("grid"), dtype=torch.float64)
    for x, point in itertools.product(draws[:4], 3 * draws[4:] - 1):
        allowed = grid[ball.contains(grid, x.expand_as(grid))]
        nearest = ball.project(point[None], x[None])
        least = (allowed - point).norm(dim=1).min()
        assert abs((nearest - point).norm() - least) < 0.005
        top = ball.linear_max(x[None], point[None])
        assert abs((top @ point).item() - (allowed @ point).max().item()) < 0.005


@given(kinds, st.floats(0.01, 1), batches, points, st.sampled_from([0.01, 0.3, 5.0]))
def test_a_linear_maximum_is_a_fixed_point_of_step_and_projection(kind, eps, x, gradient, length):
    ball = kind(eps)
    top = ball.linear_max(x, gradient)
    again = ball.project(ball.step(top, gradient, torch.full((2,), length, dtype=x.dtype)), x)
    assert torch.allclose(dot(gradient, again), dot(gradient, top), atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (5,)])
def test_results_are_feasible_in_single_precision(kind, shape):
    eps = {Linf: 0.03, L2: 2.0, L1: 12.0}[kind] if len(shape) == 3 else 0.3
    ball = kind(eps)
    x = torch.rand(16, *shape, generator=generator("x"))
    far = x + torch.randn(16, *shape, generator=generator("far"))
    for found in (ball.project(far, x), ball.linear_max(x, far - x), ball.sample(x, generators(16))):
        assert found.dtype == torch.float32
        assert ball.contains(found, x).all()
    assert (ball.distance(ball.project(far, x), x) >= eps * (1 - 1e-4)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_ties_and_a_distant_point_project_into_the_set(kind):
    """All coordinates cross the threshold at once, and the point is a hundred boxes away."""
    ball = kind(0.5)
    x = torch.full((2, 3072), 0.5)
    assert ball.contains(ball.project(x + 100, x), x).all()
    assert ball.contains(ball.project(x + 0.4, x), x).all()


@pytest.mark.parametrize("kind", KINDS)
def test_one_radius_per_image_equals_one_call_per_image(kind):
    eps = torch.tensor([0.0, 0.1, 0.4, 1.0], dtype=torch.float64)
    x, far = torch.rand(2, 4, 3, 2, generator=generator("eps"), dtype=torch.float64)
    far = 3 * far - 1
    together = kind(eps)
    for i, radius in enumerate(eps.tolist()):
        alone, one = kind(radius), slice(i, i + 1)
        pairs = [
            (together.project(far, x)[one], alone.project(far[one], x[one])),
            (together.linear_max(x, far)[one], alone.linear_max(x[one], far[one])),
        ]
        for start in ("sample", "sample_sphere"):
            drawn = getattr(together, start)(x, generators(4))[one]
            pairs.append((drawn, getattr(alone, start)(x[one], generators(4)[one])))
        for found, expected in pairs:  # a sum over more rows may be taken in another order
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert together.contains(far, x)[i] == alone.contains(far[one], x[one])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_uniform_in_the_ball(kind):
    """In D dimensions the share of the ball within r is (r / eps)^D, so that share of a draw is uniform on [0, 1]."""
    x = torch.full((4000, 3), 0.5, dtype=torch.float64)
    ball = kind(0.4)
    share = (ball.distance(ball.sample(x, generators(4000)), x) / 0.4) ** 3
    assert share.max() <= 1
    assert abs(share.mean() - 1 / 2) < 0.03
    assert abs(share.var() - 1 / 12) < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_sphere_samples_have_norm_eps_away_from_the_box(kind):
    x = torch.full((50, 20), 0.5, dtype=torch.float64)
    ball = kind(0.3)
    point = ball.sample_sphere(x, generators(50))
    assert torch.allclose(ball.distance(point, x), torch.tensor(0.3, dtype=x.dtype))
    assert not torch.equal(point[0], point[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 1e-30])
def test_steepest_direction_has_norm_one_however_small_the_gradient(kind, scale):
    gradient = scale * torch.randn(4, 3, 5, generator=generator("dual"))
    step = kind(0.1).steepest_direction(gradient)
    assert torch.allclose(torch.linalg.vector_norm(step.flatten(1), kind.p, dim=1), torch.ones(4))
    assert (dot(step, gradient / scale) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_gradient_gives_no_step(kind):
    x, zero = torch.rand(2, 3, 4), torch.zeros(2, 3, 4)
    ball = kind(0.1)
    assert torch.equal(ball.steepest_direction(zero), zero)
    assert torch.equal(ball.step(x, zero, torch.ones(2)), x)
    assert torch.equal(ball.linear_max(x, zero), x)


def test_steepest_direction_of_l1_takes_count_coordinates():
    gradient = torch.tensor([[3.0, -2.0, 1.0, 0.0], [3.0, -2.0, 1.0, 0.0]])
    assert L1(1.0).steepest_direction(gradient).tolist() == [[1, 0, 0, 0]] * 2
    step = L1(1.0).steepest_direction(gradient, count=torch.tensor([2, 4]))
    assert torch.allclose(step, torch.tensor([[1 / 2, -1 / 2, 0, 0], [1 / 3, -1 / 3, 1 / 3, 0]]))


@pytest.mark.parametrize("kind", KINDS)
def test_contains_tolerates_rounding_only(kind):
    x = torch.full((1, 3, 8, 8), 0.5)
    ball = kind(0.2)
    edge = ball.linear_max(x, torch.randn(1, 3, 8, 8, generator=generator("edge")))
    assert ball.contains(edge, x)
    assert not ball.contains(x + (edge - x) * 1.001, x)
    assert not ball.contains(torch.full_like(x, torch.nan), x)
    wall = torch.ones(1, 4)
    assert not ball.contains(wall + 1e-4, wall)


@pytest.mark.parametrize("kind", KINDS)
def test_distance_is_the_norm_of_the_change(kind):
    x, y = torch.rand(2, 5, 3, 4, 4, generator=generator("distance"))
    expected = [torch.linalg.vector_norm(a - b, kind.p) for a, b in zip(x, y, strict=True)]
    assert torch.allclose(kind(0.1).distance(y, x), torch.stack(expected))
    assert torch.equal(kind(0.1).distance(x, x), torch.zeros(5))


def test_bounds_other_than_the_unit_interval():
    ball = L2(1.0, bounds=(-1.0, 1.0))
    x = torch.tensor([[-1.0, 0.9]])
    assert torch.allclose(ball.project(torch.tensor([[-5.0, 5.0]]), x), torch.tensor([[-1.0, 1.0]]))
    assert Linf(1.5, bounds=(-1.0, 1.0)).contains(torch.tensor([[0.5, 0.9]]), x)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_stays_empty(kind):
    none = torch.empty(0, 3, 4, 4)
    ball = kind(0.1)
    for found in (
        ball.project(none, none),
        ball.linear_max(none, none),
        ball.sample(none, []),
        ball.sample_sphere(none, []),
    ):
        assert found.shape == none.shape


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: L2(-0.5), "eps of -0.5 is not a radius"),
        (lambda: L1(float("nan")), "eps of nan"),
        (lambda: L2(float("inf")), "eps of inf"),
        (lambda: Linf(torch.tensor([0.1, -0.1])), "eps of -0.1"),
        (lambda: Linf(8), "did you mean 8/255"),
        (lambda: Linf(torch.tensor([0.1, 16.0])), "did you mean 16/255"),
        (lambda: Linf(3.0, bounds=(-1.0, 1.0)), "take 2 or less"),
        (lambda: L2(torch.zeros(2, 2)), r"shape \(2, 2\)"),
        (lambda: L2(0.5, bounds=(1.0, 0.0)), "smallest value, then the largest"),
        (lambda: L2(torch.tensor([0.1, 0.2])).project(torch.rand(3, 2), torch.rand(3, 2)), "2 entries for 3 images"),
    ],
)
def test_invalid_radii_and_bounds_are_refused(make, says):
    with pytest.raises(UserError, match=says) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_str_gives_norm_and_eps():
    assert [str(Linf(0.25)), str(L1(torch.tensor([1.0, 2.0])))] == ["Linf(0.25)", "L1(a tensor)"]


def test_a_ball_by_the_name_of_its_norm():
    assert [str(ball_for(norm, 0.5)) for norm in ("linf", "l2", "l1")] == ["Linf(0.5)", "L2(0.5)", "L1(0.5)"]
    with pytest.raises(UserError, match="unknown norm 'l3': did you mean l2"):
        ball_for("l3", 0.5)
