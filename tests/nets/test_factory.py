"""Networks by name: published parameter counts, padded sizes and errors."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.nets.factory import build_discriminator, build_generator, rebuild
from rivals.nets.padding import PaddedSize


def parameters(builder, net, **arguments):
    """The number of parameters, without making them."""
    with torch.device("meta"):
        return sum(p.numel() for p in builder(net, channels=3, **arguments).parameters())


def test_r3_has_the_published_counts():
    """CIFAR-10's configuration (Huang et al. 2024): 20.8M and 21.3M."""
    published = {"size": 32, "classes": 10, "widths": (768,) * 4, "groups": 96, "blocks": 2, "expansion": 2}
    assert parameters(build_generator, "r3", **published) == 20_781_952
    assert parameters(build_discriminator, "r3", **published) == 21_280_512


@pytest.mark.parametrize(
    ("size", "generator", "discriminator"),
    [(32, 4_276_739, 1_053_825), (64, 12_220_675, 10_141_441), (128, 32_150_787, 29_017_857)],
)
def test_sngan_has_the_published_counts(size, generator, discriminator):
    """Those of the networks that torch-mimicry trained."""
    assert parameters(build_generator, "sngan", size=size) == generator
    assert parameters(build_discriminator, "sngan", size=size) == discriminator


def test_mlp_has_the_published_counts():
    layers = [100, 256, 512, 1024, 3072]
    count = sum((wide + 1) * after for wide, after in pairwise(layers))
    assert parameters(build_generator, "mlp", size=32, latent_dim=100) == count
    layers = [3072, 1024, 512, 256, 1]
    count = sum((wide + 1) * after for wide, after in pairwise(layers))
    assert parameters(build_discriminator, "mlp", size=32) == count


def test_dcgan_is_initialized_as_published():
    """Weights N(0, 0.02), the scales of batch norm N(1, 0.02) (Radford et al. 2016, section 4)."""
    torch.manual_seed(0)
    generator = build_generator("dcgan", size=32, channels=3)
    assert generator.spec["widths"] == [256, 128, 64]
    assert build_discriminator("dcgan", size=32, channels=3).spec["widths"] == [64, 128, 256]
    for name, weight in generator.named_parameters():
        if weight.ndim > 1:
            assert abs(weight.std().item() / 0.02 - 1) < 0.05, name
        elif name.endswith("weight"):
            assert abs(weight.mean().item() - 1) < 0.01, name
        else:
            assert not weight.any(), name


def test_r3_blocks_start_as_the_identity():
    torch.manual_seed(0)
    generator = build_generator("r3", size=32, channels=3)
    h = torch.randn(2, generator.spec["widths"][0], 4, 4)
    assert torch.equal(generator.stages[0](h), h)
    # He's gain for this leaky ReLU with the factor L^(-1/4), L = 8 blocks, over the fan-in.
    first = generator.stages[0][0].conv1.weight
    assert abs(first.std().item() * (first[0].numel() * 1.04 / 2) ** 0.5 * 8**0.25 - 1) < 0.03


@pytest.mark.parametrize(("classes", "width"), [(10, 128), (400, 32)])
def test_conditional_r3_embeddings_are_scaled_as_published(classes, width):
    """The authors' code: N(0, 1 / fan_in) of a linear layer on one-hot labels; in D with the gain 1 / sqrt(width)."""
    torch.manual_seed(0)
    discriminator = build_discriminator("r3", size=8, channels=3, classes=classes, widths=(16, width))
    weight = discriminator.head.embedding.weight
    assert weight.std().item() * (classes * width) ** 0.5 == pytest.approx(1, abs=0.08)
    generator = build_generator("r3", size=8, channels=3, classes=classes, latent_dim=64, widths=(16, 16))
    assert generator.input.embedding.weight.std().item() * classes**0.5 == pytest.approx(1, abs=0.08)
    # Features of unit variance give the logits of a sum of `width` terms, each of variance 1 / (classes * width).
    logits = discriminator.head(torch.randn(2000, width), torch.arange(2000) % classes)
    assert logits.std().item() == pytest.approx(classes**-0.5, rel=0.2)


SIDES = st.integers(8, 1024)


@given(st.builds(Size, SIDES, SIDES))
def test_padded_size_is_the_smallest_that_fits(size):
    padding = PaddedSize.of(size)
    for side, padded, base in zip(size, padding.padded, padding.base, strict=True):
        assert padded == base * 2**padding.stages
        assert side <= padded < side + 2**padding.stages
    assert 4 <= padding.base.shorter <= 8


@pytest.mark.parametrize(
    ("size", "base", "stages"),
    [
        (28, "7", 2),
        (32, "4", 3),
        (100, "7", 4),
        (8, "4", 1),
        (1024, "4", 8),
        ("96x64", "6x4", 4),
        ("48x200", "6x25", 3),
    ],
)
def test_padded_size_of_known_sizes(size, base, stages):
    expected = PaddedSize(Size.parse(size), Size.parse(base), stages)
    assert PaddedSize.of(size) == expected == PaddedSize.of(size, stages)


@given(st.builds(Size, SIDES, SIDES), st.integers(1, 10))
def test_padded_size_of_another_depth_has_a_shorter_base_of_two_to_eight_pixels(size, stages):
    bases = [-(-side // 2**stages) for side in size]
    if 2 <= min(bases) <= 8:
        padding = PaddedSize.of(size, stages)
        assert (padding.stages, [*padding.base]) == (stages, bases)
        assert all(side <= padded < side + 2**stages for side, padded in zip(size, padding.padded, strict=True))
    else:
        with pytest.raises(UserError, match=f"images of {size} px take . to . widths, one per halving, not {stages}"):
            PaddedSize.of(size, stages)


@given(st.integers(8, 200), st.integers(8, 200))
def test_cropping_undoes_padding(height, width):
    x = torch.arange(2.0 * height * width).view(1, 2, height, width) + 1
    padding = PaddedSize.of(Size(height, width))
    padded = padding.pad(x)
    assert padded.shape == (1, 2, *padding.padded)
    assert torch.equal(padding.crop(padded), x)
    assert padded.count_nonzero() == x.numel()


COMMON = {"size": 32, "channels": 3}


@pytest.mark.parametrize(
    ("builder", "net", "arguments", "says"),
    [
        (build_generator, "dcgam", COMMON, "did you mean dcgan"),
        (build_generator, "mlp", {**COMMON, "size": 7}, "images of 7 px cannot be learned: take a size from 8 to 1024"),
        (build_generator, "r3", {**COMMON, "size": 1025}, "size from 8 to 1024"),
        (build_generator, "mlp", {**COMMON, "channels": 0}, "not 0: take 1"),
        (build_discriminator, "mlp", {**COMMON, "classes": -1}, "-1 classes"),
        (build_generator, "mlp", {**COMMON, "latent_dim": 0}, "latent of 0 numbers"),
        (build_generator, "mlp", {**COMMON, "widths": (5, 0)}, "widths 5,0 do not fit mlp"),
        (build_generator, "mlp", {**COMMON, "dropout": 0.1}, "unknown option 'dropout': mlp's generator has none"),
        (
            build_discriminator,
            "mlp",
            {**COMMON, "droput": 0.1},
            "unknown option of mlp's discriminator 'droput': did you",
        ),
        (build_discriminator, "mlp", {**COMMON, "dropout": 1.0}, "dropout 1.0 is out of range"),
        (
            build_generator,
            "dcgan",
            {**COMMON, "widths": (64,)},
            "images of 32 px take 2 to 4 widths, one per halving, not 1",
        ),
        (build_discriminator, "dcgan", {**COMMON, "norm": "bacth"}, "unknown norm 'bacth': did you mean batch"),
        (
            build_generator,
            "dcgan",
            {**COMMON, "upsample": "nearst"},
            "unknown upsampling 'nearst': did you mean nearest",
        ),
        (
            build_generator,
            "sngan",
            {**COMMON, "upsample": "nearest"},
            "unknown option 'upsample': sngan's generator has none",
        ),
        (build_discriminator, "sngan", {**COMMON, "widths": (64, -1, 64, 64)}, "give 4 positive numbers"),
        (build_generator, "r3", {**COMMON, "widths": (8,) * 3}, "as in 128,96,64,32"),
        (build_generator, "r3", {**COMMON, "groups": 7}, "groups 7,7,7,7 do not divide"),
        (build_discriminator, "r3", {**COMMON, "groups": (1, 2)}, "groups 1,2 do not divide"),
        (build_discriminator, "r3", {**COMMON, "groups": 0}, "groups 0,0,0,0 do not divide"),
        (build_discriminator, "r3", {**COMMON, "blocks": 0}, "blocks and expansion of 1 or more"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(builder, net, arguments, says):
    with torch.device("meta"), pytest.raises(UserError, match=says) as refusal:
        builder(net, **arguments)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "spec", [{}, {"role": "classifier", "net": "cnn", "size": 8, "channels": 1}, {"role": "generator"}]
)
def test_rebuild_refuses_an_invalid_spec(spec):
    with pytest.raises(UserError, match="this is not the spec of a network"):
        rebuild(spec)
