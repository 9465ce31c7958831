"""The estimate of a round's memory."""

import pytest
import torch

from helpers.small_games import noise_images
from rivals.api.training.memory import estimate_memory
from rivals.api.training.preflight import memory_note
from rivals.recipes import RECIPES

MB = 1e6
SHAPE = {"size": 8, "channels": 3, "classes": 2}


def config(**settings):
    return RECIPES["mlp"]().changed(generator_widths=(1000,), discriminator_widths=(1000,), batch_size=16, **settings)


def test_small_batches_need_the_weights_gradients_and_moments():
    plain = config(latent_dim=500, r1=0, r2=0, ema=0)
    weights = 4 * (500 * 1000 + 1000 * 192 + 192 * 1000)  # of G and D
    needed = estimate_memory(plain, **SHAPE, micro_batches=1)
    # Weights and two moments of both; the gradients of one, and what its optimizer needs for a moment.
    assert 3 * weights < needed < 5 * weights + 1 * MB
    averaged = estimate_memory(plain.changed(ema=100), **SHAPE, micro_batches=1)
    assert averaged - needed == pytest.approx(4 * (500 * 1000 + 1000 * 192), rel=0.01)


def test_activations_count_per_image_of_a_micro_batch():
    wide = RECIPES["dcgan"]().changed(generator_widths=(32, 16), discriminator_widths=(16, 32), batch_size=512)
    whole, halves, quarters = (estimate_memory(wide, **SHAPE, micro_batches=parts) for parts in (1, 2, 4))
    assert whole - halves == pytest.approx(2 * (halves - quarters), rel=0.1)


def test_more_micro_batches_hold_more_partial_sums():
    two, four, sixteen = (estimate_memory(config(latent_dim=500), **SHAPE, micro_batches=n) for n in (2, 4, 16))
    assert two < four < sixteen


def test_nothing_is_allocated_and_no_random_number_is_drawn():
    state = torch.get_rng_state()
    huge = RECIPES["r3-ffhq64"]()
    assert estimate_memory(huge, size=64, channels=3, classes=1, micro_batches=1) > 50e9
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("parts", "processes"), [(1, 1), (8, 4), ("auto", 2)])
def test_the_note_tells_the_memory_of_each_process(parts, processes):
    recipe = RECIPES["mlp"]().changed(generator_widths=(32,), batch_size=64, micro_batches=parts)
    note = memory_note(recipe, noise_images(), processes)
    assert note.startswith("a step needs about 0.0 GiB of memory")
    assert ("on each of" in note) == (processes > 1)
    least = max(1 if parts == "auto" else parts, processes)
    assert (f"with --micro-batches {8 * least}" in note) == (2 * 8 * least <= 64)
