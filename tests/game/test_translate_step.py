"""What turns see where images are translated."""

import torch
from torch import nn

from rivals.base.schedules import Clock
from rivals.game.translate_step import TranslateStep, cycle_step

X, Y = torch.full((2, 1, 4, 4), 51, dtype=torch.uint8), torch.full((2, 1, 4, 4), 204, dtype=torch.uint8)


class Times(nn.Module):
    """Multiplies by a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(factor)))

    def forward(self, x, labels=None):
        return x * self.factor


def unstacked(batch):
    return batch[:, :1], batch[:, 1:]


def seen(mover, make=TranslateStep, nets=None, **options):
    nets = nets or {"generator": Times(2), "discriminator": Times(3)}
    draw = lambda: (torch.cat([X, Y], 1), None)  # noqa: E731
    common = {"batch_size": 2, "clock": Clock(0), "augment": None, "needs_input_grad": False}
    return make(nets, mover, draw, split=unstacked, **common, **options)


def test_inputs_are_translated_with_a_graph_in_the_translators_turn_alone():
    step = seen("generator")
    assert torch.allclose(step.x, torch.tensor(0.2)) and torch.allclose(step.y, torch.tensor(0.8))
    assert torch.allclose(step.output, torch.tensor(0.4)) and step.output.requires_grad
    assert torch.allclose(step.unchanged, torch.tensor(1.6))
    assert not seen("discriminator").output.requires_grad


def test_the_discriminator_sees_images_alone_or_beside_what_they_came_from():
    assert torch.allclose(seen("discriminator").real, torch.tensor(3 * (2 * 0.8 - 1)))
    step = seen("discriminator", condition=lambda x: x)
    assert step.fake_images.shape == (2, 2, 4, 4)
    assert torch.allclose(step.fake_images[:, 0], torch.tensor(2 * 0.2 - 1))
    assert torch.allclose(step.fake_images[:, 1], torch.tensor(2 * 0.4 - 1))


def test_the_way_back_is_the_same_game_with_both_sides_exchanged():
    nets = {"generator": Times(2), "inverse": Times(0.25), "discriminator": Times(3), "inverse_discriminator": Times(5)}
    there, back = (seen(mover, cycle_step, nets) for mover in ("generator", "inverse"))
    assert torch.allclose(there.there_and_back, torch.tensor(0.2 * 2 * 0.25))
    assert torch.allclose(there.back_and_there, torch.tensor(0.8 * 0.25 * 2))
    assert torch.allclose(back.output, torch.tensor(0.8 * 0.25)) and back.output.requires_grad
    assert torch.allclose(back.there_and_back, torch.tensor(0.8 * 0.25 * 2))
    judge = seen("inverse_discriminator", cycle_step, nets)
    assert torch.allclose(judge.real, torch.tensor(5 * (2 * 0.2 - 1)))
    assert torch.allclose(judge.fake, torch.tensor(5 * (2 * 0.2 - 1)))
    judge.fake.sum().backward()
    assert nets["inverse_discriminator"].factor.grad is not None
    assert nets["inverse"].factor.grad is None
