"""Sampling of a generator: determinism, restored state and errors."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.nets.factory import GAN_NETS, build_generator

WIDTHS = {"mlp": (16,), "dcgan": (6, 5), "sngan": (6, 5, 4), "r3": (8, 8, 8)}
nets = st.sampled_from(list(GAN_NETS))


@functools.cache
def generator(net, classes=0):
    """A small generator of 3 channels at 17 px, away from its start."""
    torch.manual_seed(0)
    made = build_generator(net, size=17, channels=3, classes=classes, latent_dim=5, widths=WIDTHS[net])
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


@settings(max_examples=40, deadline=None)
@given(nets, st.integers(1, 150), st.data(), st.integers(0, 2**40), st.sampled_from([1, 7, 16, 50, 256]))
def test_a_smaller_sample_is_the_start_of_a_larger_one(net, n, data, seed, batch_size):
    k = data.draw(st.integers(1, n))
    classes = data.draw(st.sampled_from([0, 3]))
    images = generator(net, classes).sample(n, seed=seed, batch_size=batch_size)
    assert images.shape == (n, 3, 17, 17) and images.dtype == torch.uint8 and images.device.type == "cpu"
    assert torch.equal(images[:k], generator(net, classes).sample(k, seed=seed, batch_size=batch_size))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300))
def test_the_shape_of_an_image_s_pass_does_not_depend_on_n(n, k, batch_size):
    """Or floats would be rounded in another way, and a gray level would differ once in a while."""

    def passes(count):
        sizes = []
        hook = generator("mlp").register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
        generator("mlp").sample(count, batch_size=batch_size)
        hook.remove()
        return sizes

    fewer, more = sorted((passes(n), passes(k)), key=len)
    assert more[: len(fewer)] == fewer
    assert max(more) <= batch_size
    assert sum(more) < 2 * max(n, k, 16)


@settings(max_examples=15, deadline=None)
@given(nets, st.integers(1, 100), st.integers(1, 300))
def test_the_batch_size_changes_only_rounding(net, n, batch_size):
    one, other = (generator(net).sample(n, seed=1, batch_size=size).int() for size in (256, batch_size))
    assert (one - other).abs().max() <= 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(-5, 5))
def test_latents_depend_on_seed_and_index(n, k, seed):
    z = generator("mlp").latents(max(n, k), seed)
    assert torch.equal(z[:k], generator("mlp").latents(k, seed))
    assert not torch.equal(z[:1], generator("mlp").latents(1, seed + 1))
    assert z.unique(dim=0).shape == z.shape


def test_latents_are_standard_normal():
    z = generator("mlp").latents(20_000, 3)
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01
    assert torch.corrcoef(z.T).fill_diagonal_(0).abs().max() < 0.03


@pytest.mark.parametrize("net", GAN_NETS)
def test_sampling_changes_no_mode_statistics_or_global_random_state(net):
    made = generator(net)
    for number, part in enumerate(made.modules()):
        part.training = number % 3 > 0
    modes = [part.training for part in made.modules()]
    state = {name: value.clone() for name, value in made.state_dict().items()}
    random = torch.get_rng_state()
    made.sample(20)
    assert [part.training for part in made.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in made.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_modes_are_restored_after_an_error():
    made = generator("dcgan").train()
    with pytest.raises(RuntimeError):
        made.generate(torch.randn(2, 99))
    assert all(part.training for part in made.modules())


def test_generate_rounds_and_clamps():
    made = generator("r3")  # no tanh: its images leave [-1, 1]
    z = torch.randn(9, 5)
    with torch.no_grad():
        x = made(z)
    assert x.min() < -1 and x.max() > 1
    exact = (x.double().clamp(-1, 1) + 1) * 127.5
    assert (made.generate(z) - exact).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("net", GAN_NETS)
def test_truncation_scales_the_latents(net):
    made = generator(net)
    nothing = made.sample(5, truncation=0)
    assert all(torch.equal(image, nothing[0]) for image in nothing)
    half = made.generate(made.latents(5, 4) * 0.5)
    assert (half.int() - made.sample(5, seed=4, truncation=0.5).int()).abs().max() <= 1
    assert torch.equal(made.sample(5), made.sample(5, truncation=1.0))


@pytest.mark.parametrize("net", GAN_NETS)
def test_classes_alternate_by_default(net):
    made = generator(net, 3)
    turns = made.sample(7)
    assert torch.equal(turns, made.sample(7, labels=[0, 1, 2, 0, 1, 2, 0]))
    ones = made.sample(7, labels=1)
    assert torch.equal(ones, made.sample(7, labels=torch.ones(7, dtype=torch.int32)))
    assert torch.equal(ones[1::3], turns[1::3]) and not torch.equal(ones[0], turns[0])


@pytest.mark.parametrize(
    ("classes", "n", "options", "says"),
    [
        (0, 0, {}, "cannot generate 0 images"),
        (0, -3, {}, "cannot generate -3 images"),
        (0, 2, {"truncation": -0.1}, "truncation -0.1 is out of range: take a number from 0 to 2"),
        (0, 2, {"truncation": 2.1}, "truncation 2.1"),
        (0, 2, {"truncation": float("nan")}, "truncation nan"),
        (0, 2, {"batch_size": 0}, "batch of 0 images"),
        (0, 2, {"labels": [0, 0]}, "trained without labels"),
        (3, 2, {"labels": [0, 3]}, "label 3 is out of range: take 0 to 2"),
        (3, 2, {"labels": -1}, "label -1 is out of range"),
        (3, 2, {"labels": [0, 1, 2]}, "do not fit 2 images"),
        (3, 2, {"labels": [0.5, 1.0]}, "give 2 whole numbers"),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(classes, n, options, says):
    with pytest.raises(UserError, match=says) as refusal:
        generator("mlp", classes).sample(n, **options)
    assert "\n" not in str(refusal.value)
