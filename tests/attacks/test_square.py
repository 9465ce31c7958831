"""Square against what its papers say of it, and the promises it keeps about its result."""

import itertools

import pytest
import torch
from torch import nn

from helpers.models import BALLS, conv_model, linear_model, uniform
from rivals.attacks import freeze, square
from rivals.attacks.square import cover
from rivals.base.errors import UserError
from rivals.base.norm_balls import L1, L2, Linf


class Watched(nn.Module):
    """Records its queries."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.queried = []

    def forward(self, x):
        self.queried.append(x.detach().clone().contiguous())
        return self.model(x)


class Deaf(nn.Module):
    """Answers class 0 to everything, so no proposal is ever taken up."""

    def forward(self, x):
        return torch.tensor([2.0, 0.0], dtype=x.dtype).expand(len(x), 2) + 0 * x.flatten(1)[:, :1]


class Rising(nn.Module):
    """A margin that grows with every pass, so every proposal is taken up."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        lead = torch.full((len(x), 1), 1e6 - self.passes, dtype=x.dtype)
        return torch.cat([lead, torch.zeros_like(lead)], 1) + 0 * x.flatten(1)[:, :1]


def queried(model, x, ball, queries, **options):
    """The images of each query of a search, without the clean images and the probes."""
    watched = Watched(model)
    with freeze(watched, x) as frozen:
        watched.queried.clear()
        square(frozen, x, torch.zeros(len(x), dtype=torch.int64), ball, queries=queries, **options)
    return watched.queried[1:]


def test_the_schedule_is_the_published_one_for_10000_queries_of_which_5000_are_the_first_half():
    share = cover(10_000)
    for first, last, halvings in [
        (0, 10, 0),
        (11, 50, 1),
        (51, 200, 2),
        (201, 500, 3),
        (501, 1000, 4),
        (1001, 2000, 5),
    ]:
        assert (share[first : last + 1] == 0.8 / 2**halvings).all()
    assert (share[2001:4001] == 0.8 / 64).all()
    assert (share[4001:6001] == 0.8 / 128).all()
    assert (share[6001:8001] == 0.8 / 256).all()
    assert (share[8001:] == 0.8 / 512).all()
    assert torch.equal(cover(5000), share[:5001])
    assert torch.equal(cover(7000), share[:7001])
    assert torch.equal(cover(500), cover(5000)[::10])


def test_linf_starts_with_stripes_and_changes_one_window_a_query():
    x = 0.2 + 0.6 * uniform(3, 3, 12, 9)
    seen = queried(Rising(), x, Linf(0.1), 400)
    assert len(seen) == 401
    assert all(torch.allclose((images - x).abs(), torch.full_like(x, 0.1)) for images in seen)
    start = (seen[0] - x).sign()
    assert torch.equal(start, start[:, :, :1].expand_as(start))
    sides = (cover(400) * 12 * 9).sqrt().round().clamp(1, 9)
    for query, (before, after) in enumerate(itertools.pairwise(seen)):
        changed = (before != after).any(1)
        assert changed.flatten(1).any(1).all()  # never the same image again
        for image in changed:
            down, across = image.any(1).nonzero()[:, 0], image.any(0).nonzero()[:, 0]
            assert down[-1] - down[0] < sides[query]
            assert across[-1] - across[0] < sides[query]
    final = torch.stack([(before != after).any(1) for before, after in itertools.pairwise(seen)]).any(0)
    assert final.all()  # windows reach every pixel, those of the last row and column too


def test_a_proposal_without_a_larger_loss_is_rejected():
    """A deaf model never rewards one: all queries differ from the start by a single window."""
    x = 0.2 + 0.6 * uniform(2, 1, 10, 10)
    start, *seen = queried(Deaf(), x, Linf(0.1), 1000)
    side = (cover(1000) * 100).sqrt().round().clamp(1, 10)
    for query, images in enumerate(seen):
        changed = (images != start).flatten(1).sum(1)
        assert (changed > 0).all()
        assert (changed <= side[query] ** 2).all()


@pytest.mark.parametrize("ball", [L2(0.5), L1(2.0)], ids=str)
def test_l2_and_l1_use_up_eps_and_move_two_windows_at_most(ball):
    x = 0.3 + 0.4 * uniform(3, 3, 15, 15)
    seen = queried(Rising(), x, ball, 200)
    for images in seen:
        assert ball.contains(images, x).all()
    assert torch.allclose(ball.distance(seen[0], x), torch.full((3,), float(ball.eps), dtype=x.dtype))
    assert (ball.distance(seen[-1], x) > 0.9 * float(ball.eps)).all()
    start = seen[0] - x
    assert ((start > 0).flatten(1).any(1) & (start < 0).flatten(1).any(1)).all()
    if isinstance(ball, L2):  # in L1 the projection takes something off everywhere
        side = (cover(200) * 225).sqrt().round().clamp_min(3)
        side = side + (side % 2 == 0)
        for query, (before, after) in enumerate(itertools.pairwise(seen)):
            changed = ((before - after).abs() > 1e-12).any(1).flatten(1).sum(1)
            assert (changed <= 2 * side[query] ** 2).all()


def test_images_have_windows_of_their_own():
    x = uniform(1, 1, 12, 12) * 0.6 + 0.2
    x = torch.cat([x, x + 0.01])
    seen = queried(Rising(), x, Linf(0.05), 30)
    same = [torch.equal((a[0] - x[0]).sign(), (a[1] - x[1]).sign()) for a in seen]
    assert not any(same)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(1.0), L1(4.0)], ids=str)
def test_it_finds_most_of_what_gradients_would(ball):
    """On a linear model of two classes the closed form is the most there is."""
    model, x, y = linear_model(2, (3, 10, 10))
    x, y = x[:4], y[:4]
    weights = model[1].weight.detach()

    def lead(images):
        logits = model(images).detach()
        return (logits.gather(1, 1 - y[:, None]) - logits.gather(1, y[:, None]))[:, 0]

    best = lead(ball.linear_max(x, (weights[1 - y] - weights[y]).view_as(x))) - lead(x)
    found = lead(square(model, x, y, ball, queries=1000, stop_when_fooled=False)) - lead(x)
    assert (found > {Linf: 0.6, L2: 0.4, L1: 0.5}[type(ball)] * best).all()
    few = lead(square(model, x, y, ball, queries=50, stop_when_fooled=False)) - lead(x)
    assert few.mean() < found.mean()


@pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
def test_neither_batch_size_nor_order_nor_other_images_matter(ball):
    model, x, y = conv_model()
    x, y = x[:6], y[:6]
    options = {"queries": 60, "seed": 5}
    together = square(model, x, y, ball, batch_size=100, **options)
    assert ball.contains(together, x).all()
    for size in (1, 4):
        assert torch.allclose(square(model, x, y, ball, batch_size=size, **options), together, atol=1e-9)
    order = torch.arange(6).flip(0)
    shuffled = square(model, x[order], y[order], ball, batch_size=4, **options)
    assert torch.allclose(shuffled, together[order], atol=1e-9)
    assert not torch.allclose(square(model, x, y, ball, queries=60, seed=6), together, atol=1e-3)


@pytest.mark.parametrize("kind", [Linf, L2, L1])
def test_one_call_with_many_eps_is_the_same_as_many_calls(kind):
    model, x, y = conv_model()
    radii = torch.tensor([0.0, 0.02, 0.3], dtype=torch.float64) * (1 if kind is Linf else 5)
    together = square(model, x.repeat(3, 1, 1, 1), y.repeat(3), kind(radii.repeat_interleave(16)), queries=40)
    for radius, part in zip(radii.tolist(), together.split(16), strict=True):
        assert torch.allclose(square(model, x, y, kind(radius), queries=40), part, atol=1e-9)


@pytest.mark.parametrize("kind", [Linf, L2, L1])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 7), (2, 4, 3), (4, 6, 5)])
def test_small_and_oblong_images(kind, shape):
    model, x, y = linear_model(3, shape)
    ball = kind(0.2)
    x_adv = square(model, x, y, ball, queries=60)
    assert ball.contains(x_adv, x).all()
    assert (x_adv != x).any()


def test_targets_and_few_classes():
    model, x, y = conv_model(3)
    targets = (y + 1) % 3
    x_adv = square(model, x, y, Linf(0.3), queries=400, targets=targets)
    assert (model(x_adv).argmax(1) == targets).double().mean() > 0.8
    model, x, y = conv_model(2)
    assert (model(square(model, x, y, Linf(0.3), queries=400)).argmax(1) != y).all()


class Stepped(nn.Module):
    """Rounds its images: no gradient."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x.detach() * 8).round() / 8)


def test_no_gradient_is_needed():
    model, x, y = conv_model()
    model = Stepped(model)
    y = model(x).argmax(1)
    x_adv = square(model, x, y, Linf(0.2), queries=200)
    assert (model(x_adv).argmax(1) != y).double().mean() > 0.8


def test_the_number_of_passes_is_the_number_of_queries():
    model, x, y = conv_model()
    with freeze(model, x) as frozen:
        square(frozen, x, y, Linf(1e-6), queries=120)
        assert (frozen.forwards, frozen.backwards) == (16 * (1 + 1 + 120), 0)
    with freeze(model, x) as frozen:
        square(frozen, x, y, Linf(1e-6), queries=120, clean=model(x).detach())
        assert frozen.forwards == 16 * (1 + 120)
    with freeze(model, x) as frozen:
        square(frozen, x, (y + 1) % 5, Linf(0.1))
        assert frozen.forwards == 16


def test_bad_input_gives_one_line():
    model, x, y = conv_model()
    with pytest.raises(UserError, match="queries of 0"):
        square(model, x, y, Linf(0.1), queries=0)
    assert square(model, x[:0], y[:0], Linf(0.1)).shape == (0, 3, 6, 6)


SHAPES = {"table": (24,), "narrow table": (3,), "series": (2, 12), "video": (1, 4, 6, 6), "set": (2, 1, 2, 3, 2)}


@pytest.mark.parametrize("norm", [Linf, L2, L1])
@pytest.mark.parametrize("shape", SHAPES)
def test_inputs_of_any_shape_are_searched(shape, norm):
    """On a linear model the nearest boundary is known: some way beyond it most are fooled, and none before it."""
    model, x, _ = linear_model(3, SHAPES[shape], n=16)
    x = 0.25 + x / 2
    with torch.no_grad():
        y = model(x).argmax(1)
        gaps = model(x).gather(1, y[:, None]) - model(x)
        normals = model[1].weight[y][:, None] - model[1].weight[None]
        dual = {Linf: 1, L2: 2, L1: torch.inf}[norm]
        far = (gaps / normals.norm(dual, dim=2)).nan_to_num(nan=torch.inf).amin(1)
    x_adv = square(model, x, y, norm(3 * far), queries=300)
    assert norm(3 * far).contains(x_adv, x).all()
    assert (model(x_adv).argmax(1) != y).double().mean() > 0.75
    assert torch.equal(model(square(model, x, y, norm(0.9 * far), queries=50)).argmax(1), y)
