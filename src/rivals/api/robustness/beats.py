"""Signs of life of a process that evaluates a model, so that the others go on waiting for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from rivals.base.process_group import ProcessGroup
    from rivals.base.run_folder import Run


def remedy(folder: Run | None) -> str:
    """What to do after a process was lost during an evaluation."""
    return "start again" if folder is None else f"what was done is kept: continue with {folder.command_to_resume}"


@contextlib.contextmanager
def beat_on_forward(processes: ProcessGroup, *models: nn.Module) -> Iterator[None]:
    """Within it each forward pass of a model tells the other processes that this one makes progress.

    An attack on a chunk may take hours. A process that hangs makes no forward passes.
    """

    def beat(model: nn.Module, inputs: Any) -> None:
        processes.beat()

    heard = models if processes.size > 1 else ()
    handles = [model.register_forward_pre_hook(beat) for model in dict.fromkeys(heard)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
