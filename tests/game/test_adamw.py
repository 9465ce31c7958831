"""AdamW is that of torch."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from rivals.game.adamw import AdamW


@pytest.mark.parametrize("fused", [True, False])
def test_it_takes_the_steps_of_torchs_own_adamw(fused):
    shapes = [(3, 4), (5,), (2, 2, 3, 3)]
    values = torch.linspace(-1, 1, 36)
    ours, theirs = ([nn.Parameter(values[: torch.Size(s).numel()].view(s).clone()) for s in shapes] for _ in "ab")
    mine = AdamW(nn.ParameterList(ours), 1e-2, (0.5, 0.9), 1e-6, 0.1, fused)
    reference = torch.optim.AdamW(theirs, 1e-2, (0.5, 0.9), 1e-6, 0.1, fused=fused or None)
    source = torch.Generator().manual_seed(0)
    for step in range(4):
        mine.lr = reference.param_groups[0]["lr"] = 1e-2 / (step + 1)
        mine.betas = reference.param_groups[0]["betas"] = (0.5, 0.9 + 0.01 * step)
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if index != 1 or step == 2:  # the second weight has a gradient once only, as one that is frozen else
                a.grad = torch.randn(a.shape, generator=source)
                b.grad = a.grad.clone()
        for optimizer in (mine, reference):
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)  # the same kernels on the same numbers
        assert int(mine.state[a]["step"]) == int(reference.state[b]["step"])


def test_learning_does_not_import_the_compiler():
    code = (
        "import sys, torch\n"
        "from rivals.base.schedules import Clock\n"
        "from rivals.game.player import Player, adam\n"
        "player = Player(torch.nn.Linear(2, 2), adam(0.1), ema=10)\n"
        "player.net(torch.ones(1, 2)).sum().backward()\n"
        "player.step(Clock(0, 0.0), 1.0)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
