"""``train --recipe robgan``: one run ends with a generator, a robust classifier, and the report of both."""

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.commands import assert_refused
from rivals.base.schedules import Clock
from rivals.game.robgan_step import RobGanStep
from rivals.nets.factory import build_generator
from rivals.nets.two_heads import TwoHeadedDiscriminator


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("robgan")
    for i in range(60):
        path = home / "photos" / ("bright" if i % 2 else "dark") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 80, (8, 8), dtype=np.uint8) + (i % 2) * 150
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return home


TINY = ("--batch-size", "8", "--latent-dim", "4", "--generator-widths", "8", "--discriminator-widths", "4")


def test_a_run_ends_with_a_generator_a_robust_classifier_and_the_report_of_both(home, run_rivals):
    words = ("train", home / "photos", "--recipe", "robgan", "--eps", "0.1", "--robust-steps", "2", *TINY)
    result = run_rivals(*words, "--until", "120 steps", "--sample-grid", "4", "--out", home / "run", "--json")
    assert result.status == 0, result.err
    run = rivals.Run.open(home / "run")
    assert rivals.load(home / "run").sample(2, seed=0).shape == (2, 1, 8, 8)
    classifier = rivals.load(home / "run" / "classifier.safetensors")
    x = torch.tensor([0.15, 0.75]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    assert classifier(x).argmax(1).tolist() == [1, 0]  # bright, dark by name: 0, 1
    values = [record["accuracy/pgd"] for record in run.records() if "accuracy/pgd" in record]
    assert values[-1] > 0.8
    assert run.info["hardened"]["method"] == "robgan"
    # The losses include the classes', which has no level at the equilibrium.
    assert run.info["equilibrium"]["loss/discriminator"] is None is run.info["equilibrium"]["loss/generator"]
    assert "under PGD" in (home / "run" / "report.html").read_text()
    attacked = run_rivals(
        *("attack", home / "run", home / "photos", "--eps", "0.05", "--attack", "fgsm", "--no-alarms"),
        *("--save", "none", "--out", home / "attack"),
    )
    assert attacked.status == 0, attacked.err


def test_its_generator_alone_starts_another_gan(home, run_rivals):
    words = ("train", home / "photos", "--recipe", "robgan", "--eps", "0.1", "--robust-steps", "1", *TINY)
    assert run_rivals(*words, "--until", "2 steps", "--sample-grid", "4", "--out", home / "start").status == 0
    other = ("train", home / "photos", "--recipe", "quick", "--batch-size", "8", "--until", "1 steps")
    assert_refused(
        run_rivals(*other, "--weights", home / "start", "--out", home / "refused"),
        "is a run of Rob-GAN, whose discriminator classifies, too: name its generator",
    )
    given = home / "start" / "generator.safetensors"
    assert run_rivals(*other, "--weights", given, "--out", home / "tuned").status == 0


def test_only_the_discriminators_turn_is_attacked():
    torch.manual_seed(0)
    nets = {
        "generator": build_generator("mlp", size=8, channels=1, classes=2, latent_dim=3, widths=(4,)),
        "discriminator": TwoHeadedDiscriminator("cnn", size=8, channels=1, classes=2, widths=(4,)),
    }
    batch = torch.full((4, 1, 8, 8), 51, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])

    def step(mover):
        return RobGanStep(
            *(nets, mover, lambda: batch),
            attack=lambda net, x, y, clock: x + 0.1 * (y.view(-1, 1, 1, 1) + 1),
            batch_size=4,
            clock=Clock(0),
            augment=None,
            needs_input_grad=False,
        )

    attacked, plain = step("discriminator"), step("generator")
    assert torch.allclose(plain.real_images, torch.full((4, 1, 8, 8), -0.6), atol=1e-5)
    assert attacked.real_images[:, 0, 0, 0].tolist() == pytest.approx([-0.4, -0.2, -0.4, -0.2], abs=1e-5)
    assert not attacked.fake_images.requires_grad and plain.fake_images.requires_grad
    assert plain.fake_classes.shape == attacked.real_classes.shape == (4, 2)


def test_running_statistics_learn_from_attacked_real_images_alone():
    torch.manual_seed(0)
    nets = {
        "generator": build_generator("mlp", size=8, channels=3, classes=2, latent_dim=3, widths=(4,)),
        "discriminator": TwoHeadedDiscriminator("resnet", size=8, channels=3, classes=2, widths=(4, 8)),
    }
    statistics = nets["discriminator"].net.stem[1]
    batch = torch.full((4, 3, 8, 8), 51, dtype=torch.uint8), torch.tensor([0, 1, 0, 1])
    for mover, learns in (("generator", False), ("discriminator", True)):
        step = RobGanStep(
            *(nets, mover, lambda: batch),
            attack=lambda net, x, y, clock: x + 0.1,
            batch_size=4,
            clock=Clock(0),
            augment=None,
            needs_input_grad=False,
        )
        before = statistics.running_mean.clone()
        for logits in (step.fake, step.fake_classes, step.real, step.real_classes):
            assert logits.isfinite().all()
        assert bool((statistics.running_mean != before).any()) is learns
        if learns:  # one pass over one batch, at batch norm's momentum
            seen = nets["discriminator"].net.stem[0](torch.full((4, 3, 8, 8), -0.4)).mean((0, 2, 3))
            assert torch.allclose(statistics.running_mean, 0.9 * before + 0.1 * seen, atol=1e-5)


def test_eps_grows_over_a_share_of_the_run_whatever_its_length(home, run_rivals, tmp_path):
    for until, said in (("10 steps", "0 -> 1 in 32 images"), ("1 epochs", "0 -> 1 in 21.6 images")):
        words = ("train", home / "photos", "--recipe", "robgan", "--eps", "0.1", "--robust-steps", "1", *TINY)
        out = tmp_path / until.replace(" ", "-")
        assert run_rivals(*words, "--until", until, "--sample-grid", "4", "--out", out).status == 0
        assert rivals.Run.open(out).info["config"]["eps_ramp"] == said


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--robust-steps", "0"), "--robust-steps 0"),
        (("--no-conditional",), "Rob-GAN needs classes"),
        (("--augment", "diff"), "--augment has no meaning in Rob-GAN"),
        (("--r1", "0.1"), "--r1 has no meaning in Rob-GAN"),
        (("--eps-ramp", "0 -> 2 in 5k images"), "leaves 0 to 1"),
        (("--recipe", "quick", "--conditional", "--robust-steps", "2"), "add --recipe robgan"),
        (("--recipe", "quick", "--class-weight", "2"), "add --recipe robgan"),
        (("--eps", "0"), "eps of 0"),
    ],
)
def test_what_cannot_work_is_refused(home, run_rivals, monkeypatch, words, part):
    monkeypatch.chdir(home)
    assert_refused(run_rivals("train", "photos", "--recipe", "robgan", *TINY, *words, "--out", "refused"), part)
    assert not (home / "refused").exists()
