"""bf16: what is computed in it and what is not, when it is chosen, and that a classifier learns in it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rivals import Game, Player, Turn, UserError, adam, build_classifier
from rivals.attacks.training_attack import TrainingPGD
from rivals.base import devices
from rivals.base.norm_balls import Linf
from rivals.base.schedules import Clock, Schedule
from rivals.data.augment import ADA
from rivals.game.classifier_step import ClassifierStep
from rivals.game.gan_step import GanStep
from rivals.losses.adversarial import madry, readings, trades
from rivals.losses.gan import hinge
from rivals.losses.penalties import consistency
from rivals.nets.factory import build_discriminator
from rivals.nets.patchgan import PatchDiscriminator
from rivals.recipes import HardenConfig


class Two:
    """Batches of two kinds of images that a classifier tells apart by their brightness."""

    n, batch_size, micro_batches = 64, 16, 1

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        y = torch.randint(2, (16,), generator=generator)
        noise = torch.randint(0, 60, (16, 1, 8, 8), generator=generator)
        return (noise + 150 * y.view(-1, 1, 1, 1)).to(torch.uint8), y


class Unlabeled(Two):
    """As :class:`Two`, without labels."""

    def draw(self, index: int, stream: int = 0, part: int = 0) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return super().draw(index)[0], None


class Labeled(nn.Module):
    """A network that is given labels, and does not look at them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        logits: torch.Tensor = self.net(x)
        return logits


def game(precision: str, loss: object = None) -> Game:
    torch.manual_seed(0)
    net = build_classifier("resnet", size=8, channels=1, classes=2, widths=(4, 8))
    inner = TrainingPGD(2, 0.7)
    attack = partial(ClassifierStep, attack=lambda net, x, y, images: inner(net, x, y, Linf(0.05)))
    turn = Turn("classifier", loss or madry(), readings=readings)  # type: ignore[arg-type]
    return Game({"classifier": Player(net, adam(5e-3))}, [turn], make_step=attack, precision=precision)


def test_convolutions_run_in_bf16_and_logits_weights_and_losses_do_not() -> None:
    played = game("bf16")
    net = played.players["classifier"].net
    seen: list[torch.dtype] = []
    conv = next(part for part in net.modules() if isinstance(part, nn.Conv2d))
    conv.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    logits: list[torch.dtype] = []
    net.register_forward_hook(lambda module, inputs, output: logits.append(output.dtype))
    values = played.round(0, Two(), seed=0)
    assert set(seen) == {torch.bfloat16} and set(logits) == {torch.float32}
    assert values["loss/classifier"].dtype == torch.float32
    assert {weight.dtype for weight in net.parameters()} == {torch.float32}
    seen.clear()
    game("fp32").round(0, Two(), seed=0)
    net(torch.rand(1, 1, 8, 8))  # an evaluation, outside of a round
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("loss", [madry(), trades(6.0)])
def test_a_classifier_learns_in_bf16_as_in_float32(loss: object) -> None:
    ends = {}
    for precision in ("fp32", "bf16"):
        played = game(precision, loss)
        values = [played.round(step, Two(), seed=0) for step in range(60)]
        ends[precision] = values[-1]["accuracy/train_adversarial"].item()
        assert all(bool(each["loss/classifier"].isfinite()) for each in values)
    assert min(ends.values()) > 0.9


@pytest.mark.parametrize("size", [20, 33])
def test_ada_moves_pixels_by_the_same_coordinates_in_bf16_as_in_float32(size: int) -> None:
    """Pixels are counted row by row: beyond 256 of them, bf16 does not hold the index."""
    images = torch.rand(6, 1, size, size) * 2 - 1
    nets = {"generator": nn.Identity(), "discriminator": lambda x, labels: x.flatten(1)}
    seen = []
    for bf16 in (False, True):
        torch.manual_seed(0)
        step = GanStep(
            nets,  # type: ignore[arg-type]
            "generator",
            lambda: (images, None),
            batch_size=6,
            clock=Clock(0),
            augment=ADA(Schedule.parse(0.8)),
            needs_input_grad=False,
        )
        step.__dict__["labels"] = None
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            seen.append(step.critic(images))
    torch.testing.assert_close(seen[1], seen[0])


def test_consistency_compares_passes_of_one_precision() -> None:
    """With a transform that changes nothing the two logits are the same, whatever their precision."""
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 1), nn.Flatten(0))
    generator = nn.Identity()
    generator.classes, generator.latent_dim, generator.weight = 0, 64, nn.Parameter(torch.zeros(1))  # type: ignore[assignment]
    generator.forward = lambda z, labels: z.view(-1, 1, 8, 8).tanh()  # type: ignore[method-assign]
    critic = Labeled(net)
    turn = Turn("discriminator", hinge.discriminator, [consistency(10, lambda images, clock: images)])
    players = {"generator": Player(generator, adam(1e-3)), "discriminator": Player(critic, adam(1e-3))}
    values = Game(players, [turn], precision="bf16").round(0, Unlabeled(), seed=0)
    assert values["penalty/cr"].item() == 0


@pytest.mark.parametrize(("net", "stages"), [("dcgan", 2), ("sngan", 3), ("r3", 3), ("mlp", 2)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_discriminators_run_in_half_precision_with_logits_in_float32(net: str, stages: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    made = build_discriminator(net, size=16, channels=1, widths=(8,) * stages).eval()
    x = torch.rand(3, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        exact, found = made(x), made.to(dtype)(x.to(dtype))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=0.1, rtol=0.1)


def test_the_logits_of_patches_are_float32_under_autocast() -> None:
    net = PatchDiscriminator(1, (4, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.rand(2, 1, 16, 16)).dtype == torch.float32


def test_double_precision_stays_double() -> None:
    net = build_classifier("cnn", size=8, channels=1, classes=2, widths=(4, 4)).double()
    assert net(torch.rand(1, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64


def test_auto_takes_bf16_only_where_it_is_built_in_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    amd, intel = {"cpu_name": "AMD EPYC"}, {"cpu_name": "Intel Xeon"}
    cases: list[tuple[dict[str, object], str]] = [
        ({"avx512_bf16": True, **amd}, "bf16"),
        ({"avx512_bf16": False, **amd}, "fp32"),
        ({"avx512_bf16": True, "amx_bf16": False, **intel}, "fp32"),
        ({"avx512_bf16": True, "amx_bf16": True, **intel}, "bf16"),
        ({}, "fp32"),
    ]
    for capabilities, wanted in cases:
        found = SimpleNamespace(get_capabilities=lambda found=capabilities: found)
        monkeypatch.setattr(torch, "cpu", found)
        assert devices.fastest_precision(torch.device("cpu")) == wanted
    monkeypatch.setattr(torch, "cpu", SimpleNamespace())  # a PyTorch that cannot tell
    assert devices.fastest_precision(torch.device("cpu")) == "fp32"


def test_impossible_input_is_refused() -> None:
    with pytest.raises(UserError, match="unknown precision 'bf61': did you mean bf16"):
        HardenConfig().changed(precision="bf61")
    with pytest.raises(UserError, match="unknown optimizer 'moon'"):
        HardenConfig().changed(optimizer="moon")
