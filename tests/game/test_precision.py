"""bf16: what is computed in it and what is not, when it is chosen, and that a classifier learns in it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rivals import Game, Player, Turn, UserError, adam, build_classifier
from rivals.attacks.inner import Inner
from rivals.base import devices
from rivals.base.balls import Linf
from rivals.game.lesson import Lesson
from rivals.losses.robust import madry, readings, trades
from rivals.recipes import HardenConfig


class Two:
    """Batches of two kinds of images that a classifier tells apart by their brightness."""

    n, batch, world = 64, 16, 1

    def draw(self, index: int, lane: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        y = torch.randint(2, (16,), generator=generator)
        noise = torch.randint(0, 60, (16, 1, 8, 8), generator=generator)
        return (noise + 150 * y.view(-1, 1, 1, 1)).to(torch.uint8), y


def game(precision: str, loss: object = None) -> Game:
    torch.manual_seed(0)
    net = build_classifier("resnet", size=8, channels=1, classes=2, widths=(4, 8))
    inner = Inner(2, 0.7)
    attack = partial(Lesson, attack=lambda net, x, y, images: inner(net, x, y, Linf(0.05)))
    turn = Turn("classifier", loss or madry(), readings=readings)  # type: ignore[arg-type]
    return Game({"classifier": Player(net, adam(5e-3))}, [turn], scene=attack, precision=precision)


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
    net(torch.rand(1, 1, 8, 8))  # a look, outside of a round
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize("loss", [madry(), trades(6.0)])
def test_a_classifier_learns_in_bf16_as_in_float32(loss: object) -> None:
    ends = {}
    for precision in ("fp32", "bf16"):
        played = game(precision, loss)
        values = [played.round(step, Two(), seed=0) for step in range(60)]
        ends[precision] = values[-1]["accuracy/attacked"].item()
        assert all(bool(each["loss/classifier"].isfinite()) for each in values)
    assert min(ends.values()) > 0.9


def test_double_precision_stays_double() -> None:
    net = build_classifier("cnn", size=8, channels=1, classes=2, widths=(4, 4)).double()
    assert net(torch.rand(1, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64


def test_auto_takes_bf16_only_where_it_is_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, wanted in (({"avx512_bf16": True}, "bf16"), ({"avx512_bf16": False}, "fp32"), ({}, "fp32")):
        found = SimpleNamespace(get_capabilities=lambda found=capabilities: found)
        monkeypatch.setattr(torch, "cpu", found)
        assert devices.precision(torch.device("cpu")) == wanted
    monkeypatch.setattr(torch, "cpu", SimpleNamespace())  # a PyTorch that cannot tell
    assert devices.precision(torch.device("cpu")) == "fp32"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="unknown precision 'bf61': did you mean bf16"):
        HardenConfig().changed(precision="bf61")
    with pytest.raises(UserError, match="unknown optimizer 'moon'"):
        HardenConfig().changed(optimizer="moon")
