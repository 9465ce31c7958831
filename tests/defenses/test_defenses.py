"""Purifiers: what they compute, and that their gradients are what attacks need."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import rivals
from rivals.attacks import latent_pgd, pgd
from rivals.attacks.input_checks import NoGradientError
from rivals.base.errors import UserError
from rivals.base.norm_balls import Linf
from rivals.defenses import JPEG, BitDepth, DefenseGAN, GANInversion, PurifiedModel


class Line(nn.Module):
    """A generator whose images are gray: z in, tanh(z) everywhere."""

    latent_dim, classes, channels, size = 1, 0, 1, 4

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, z, labels=None):
        return torch.tanh(self.scale * z).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


class Mean(nn.Module):
    """The encoder that inverts it exactly."""

    latent_dim, channels, size = 1, 1, 4

    def forward(self, x):
        return torch.atanh(x.flatten(1).mean(1, keepdim=True))


class Brightness(nn.Module):
    """Class 1 if the mean is above a half."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        return 20 * torch.stack([0.5 - mean, mean - 0.5], 1)


@pytest.fixture
def labeled():
    """Dark and bright images, a little noisy, with their labels."""
    torch.manual_seed(0)
    y = torch.arange(20) % 2
    return (gray(*(0.4 + 0.2 * y.float()).tolist()) + 0.02 * torch.randn(20, 1, 4, 4)).clamp(0, 1), y


def gray(*values):
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()


@pytest.mark.parametrize("quality", [10, 50, 90])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_files_up_to_their_integer_arithmetic(quality, channels):
    torch.manual_seed(0)
    # Sums of bytes are often halfway between two steps, where arithmetic decides: so the mean over several images.
    smooth = nn.functional.interpolate(torch.rand(20, channels, 5, 5), size=(20, 20), mode="bicubic").clamp(0, 1)
    levels = (smooth * 255).round()
    wanted = []
    for pixels in levels.byte().permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(file, "JPEG", quality=quality, subsampling=0)
        wanted.append(torch.from_numpy(np.array(Image.open(file))).view(20, 20, channels).permute(2, 0, 1))
    found = JPEG(quality)(levels / 255) * 255
    assert (found - torch.stack(wanted)).abs().mean() < 0.6  # 0.8 and more if Y, Cb and Cr are not rounded to bytes
    assert (found - levels).abs().mean() > (0.2 if quality < 90 else 0)


def test_the_surrogate_of_jpeg_is_near_it_and_has_a_gradient():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 16, 16).requires_grad_()
    purifier = JPEG(50)
    near = purifier.surrogate(x)
    assert (near - purifier(x)).abs().mean() < 0.05
    near.square().sum().backward()
    assert (x.grad != 0).float().mean() > 0.9


def test_the_surrogate_of_jpeg_has_a_gradient_at_the_pixels_of_an_8_bit_image():
    x = (torch.arange(3 * 16 * 16).view(1, 3, 16, 16) * 7 % 256 / 255).requires_grad_()
    JPEG(50).surrogate(x).square().sum().backward()
    assert (x.grad != 0).float().mean() > 0.9


def test_bit_depth_keeps_so_many_levels():
    reduced = BitDepth(2)(torch.linspace(0, 1, 101))
    assert torch.allclose(reduced.unique(), torch.tensor([0, 1, 2, 3]) / 3)


def test_defense_gan_finds_the_nearest_generated_image():
    torch.manual_seed(0)
    x = gray(0.2, 0.5, 0.8) + 0.1 * torch.randn(3, 1, 4, 4)
    nearest = DefenseGAN(Line(), steps=60, restarts=2)(x.clamp(0, 1))
    assert torch.allclose(nearest.mean((1, 2, 3)), x.clamp(0, 1).mean((1, 2, 3)), atol=0.02)
    assert nearest.std((1, 2, 3)).max() < 1e-6


def test_its_unrolled_gradient_is_that_of_the_projection():
    """The nearest gray image is the mean, so each pixel has a gradient of 1/16 of the sum of the output, 1 in all."""
    torch.manual_seed(0)
    x = gray(0.4, 0.6).requires_grad_()
    DefenseGAN(Line(), steps=60, restarts=1, unrolled=60)(x).mean((1, 2, 3)).sum().backward()
    assert (x.grad.flatten(1).sum(1) > 0.05).all()


def test_deployed_a_purifier_leaves_no_gradient_and_bpda_gives_it_back():
    model = PurifiedModel(Brightness(), DefenseGAN(Line(), steps=60, restarts=2))
    x, y = gray(0.4, 0.6), torch.tensor([0, 1])
    with pytest.raises(NoGradientError):
        pgd(model, x, y, Linf(0.2), steps=5)
    x_adv = pgd(model.with_gradient("bpda"), x, y, Linf(0.2), steps=5)
    assert (model(x_adv).argmax(1) != y).all()


def test_gan_inversion_makes_the_image_of_the_encoders_latent_and_has_its_exact_gradient():
    torch.manual_seed(0)
    x = (gray(0.3, 0.6) + 0.05 * torch.randn(2, 1, 4, 4)).requires_grad_()
    purified = GANInversion(Line(), Mean())(x)
    torch.testing.assert_close(purified, x.mean((1, 2, 3), keepdim=True).expand_as(x))
    purified[:, 0, 0, 0].sum().backward()  # each of its pixels is the mean of 16
    torch.testing.assert_close(x.grad, torch.full_like(x, 1 / 16))


def test_gan_inversion_hides_no_gradient_from_a_plain_attack():
    model = PurifiedModel(Brightness(), GANInversion(Line(), Mean()))
    x, y = gray(0.4, 0.6), torch.tensor([0, 1])
    assert (model(x).argmax(1) == y).all()
    assert (model(pgd(model, x, y, Linf(0.2), steps=5)).argmax(1) != y).all()


@pytest.mark.parametrize("gradient", ["own", "bpda", "surrogate"])
def test_the_forward_pass_does_not_depend_on_the_gradient(gradient):
    model = PurifiedModel(Brightness(), JPEG(20))
    x = torch.rand(3, 1, 8, 8)
    assert torch.allclose(model.with_gradient(gradient)(x), model(x), atol=1e-5)


def test_the_latent_attack_stays_in_the_range_of_the_generator():
    torch.manual_seed(0)
    x, y = gray(0.4, 0.6), torch.tensor([0, 1])
    model = PurifiedModel(Brightness(), DefenseGAN(Line(), steps=40, restarts=1))
    x_adv = latent_pgd(model, x, y, Linf(0.2), generator=Line(), classifier=Brightness(), steps=60)
    assert Linf(0.2).contains(x_adv, x).all()
    assert (model(x_adv).argmax(1) != y).all()


def test_images_in_another_range_are_refused_or_converted():
    x = torch.rand(2, 1, 4, 4) * 2 - 1
    with pytest.raises(UserError, match=r"images in \[0, 1\], and these reach from -"):
        PurifiedModel(Brightness(), BitDepth(3))(x)
    seen = []
    inside = PurifiedModel(nn.Identity(), BitDepth(8), bounds=(-1.0, 1.0))
    inside.purifier.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    assert torch.allclose(inside(x), x, atol=1 / 127)
    assert seen[0].min() >= 0 and seen[0].max() <= 1


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: JPEG(0), "quality of 0"),
        (lambda: BitDepth(9), "depth of 9"),
        (lambda: DefenseGAN(Line(), steps=0), "steps=0"),
        (lambda: DefenseGAN(nn.Identity()), "not a Identity"),
        (lambda: DefenseGAN(Line())(torch.rand(1, 1, 8, 8)), "images of 1 x 4 x 4, and these are 1 x 8 x 8"),
        (lambda: GANInversion(nn.Identity(), Mean()), "not a Identity"),
        (lambda: GANInversion(Line(), nn.Identity()), r"latent of \? x \? x \?, and the generator for 1 x 4 x 1"),
        (lambda: GANInversion(Line(), Mean())(torch.rand(1, 1, 8, 8)), "and these are 1 x 8 x 8"),
        (lambda: JPEG()(torch.rand(1, 4, 8, 8)), "1 or 3 channels, not 4"),
    ],
)
def test_what_does_not_fit_is_refused(make, part):
    with pytest.raises(UserError, match=part) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_conditional_generator_needs_a_restart_for_each_class():
    generator = Line()
    generator.classes = 5
    with pytest.raises(UserError, match="without classes, not one of 5"):
        GANInversion(generator, Mean())
    with pytest.raises(UserError, match="restarts=4 leave out some of the generator's 5 classes"):
        DefenseGAN(generator, restarts=4)


@pytest.mark.parametrize(
    ("purifier", "alarm"),
    [(BitDepth(2), "zero-gradient"), (JPEG(30), "zero-gradient"), (DefenseGAN(Line(), 4, 1), "no-gradient")],
)
def test_a_purified_model_handed_to_a_plain_attack_raises_the_alarms(purifier, alarm, labeled):
    x, y = labeled
    model = PurifiedModel(Brightness(), purifier)
    report = rivals.evaluate(model, (x, y), Linf(0.2), attack="pgd(steps=3)", quiet=True)
    assert alarm in [each["alarm"] for each in report.alarms]
    assert "masking" in report.verdict


def test_one_that_hides_no_gradient_raises_none(labeled):
    x, y = labeled
    model = PurifiedModel(Brightness(), GANInversion(Line(), Mean()))
    report = rivals.evaluate(model, (x, y), Linf(0.2), attack="pgd(steps=3)", quiet=True)
    assert not {"no-gradient", "zero-gradient"} & {each["alarm"] for each in report.alarms}
    assert report.robust.count == 0


def test_a_purified_model_says_itself_that_images_reach_out_of_its_range(labeled):
    x, y = labeled
    model = PurifiedModel(Brightness(), BitDepth(2))
    with pytest.raises(UserError, match=r"^the purifier is for images in .*give PurifiedModel their bounds$"):
        rivals.evaluate(model, (2 * x - 1, y), Linf(0.2, bounds=(-1, 1)), attack="pgd(steps=3)", quiet=True)


def test_an_attack_that_asks_a_little_beyond_valid_images_reaches_a_purified_model():
    model, y = PurifiedModel(Brightness(), JPEG(20)), torch.tensor([0, 1])
    x = gray(0.0, 1.0)
    assert torch.equal(model(x - 0.1), model((x - 0.1).clamp(0, 1)))
    assert rivals.attacks.spsa(model, x, y, Linf(0.1), queries=20, samples=4).shape == x.shape
