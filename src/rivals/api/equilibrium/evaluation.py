"""``equilibrium``: how far a trained GAN is from the equilibrium of its game."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rivals.api.equilibrium.result import Equilibrium
from rivals.base.run_folder import Run
from rivals.recipes.base import distribute
from rivals.recipes.options import DataOptions, EquilibriumConfig


def equilibrium(run: str | Path, *, device: str = "auto", quiet: bool = False, **settings: Any) -> Equilibrium:
    """Measure how far a GAN is from its equilibrium, and which player is ahead.

    Args:
        run: Folder of a run of rivals train.
        device: cpu, cuda, mps or another device of PyTorch; auto takes the accelerator if there is one.
        quiet: Print no progress.
        **settings: Any field of :class:`rivals.recipes.EquilibriumConfig`, such as ``steps=300``; and of
            :class:`rivals.DataOptions`, for ``real``, which is otherwise read as the run reads its data.

    Returns:
        Every value with its protocol; ``print`` shows them. The same is written to ``equilibrium.json`` in the run, and
        shown in its report.

    Raises:
        UserError: it is not such a run, there are no held-out images, or they do not fit.
    """
    config, options = distribute(settings, EquilibriumConfig(), DataOptions())

    from rivals.api.equilibrium.estimation import estimate
    from rivals.api.equilibrium.game_context import load_context
    from rivals.data.load import to_stderr

    context = load_context(Run.open(run), config, options, device, quiet=quiet)
    return Equilibrium(**estimate(context, config.classifier, (lambda text: None) if quiet else to_stderr))
