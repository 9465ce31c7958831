"""A classifier made ready to be attacked: evaluated, differentiated by its images only, and as fast as it can be had.

The only place that touches a model. ``freeze`` gives a :class:`Frozen`, which every attack takes in a model's stead, so
that several attacks share one preparation and one count of passes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from rivals.attacks.checks import check_logits, check_place, warn_of_probabilities
from rivals.attacks.folding import fold_batch_norm
from rivals.base.errors import UserError


class Frozen:
    """A model under attack. Made by :func:`freeze`.

    Attributes:
        run: The module that answers: the model, or what it was folded to.
        forwards: Images passed forward so far (the one or two that probed the model are not counted).
        backwards: Images passed backward so far.
        classes: How many classes the model tells apart.
        folded: Whether batch-norm was folded into the convolutions before it.
        channels_last: Whether images are handed over in that memory format.
    """

    def __init__(self, run: nn.Module, classes: int, *, folded: bool, channels_last: bool) -> None:
        self.run = run
        self.classes = classes
        self.folded = folded
        self.channels_last = channels_last
        self.forwards = 0
        self.backwards = 0

    def logits(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, ...), without a graph."""
        with torch.no_grad():
            return self._answer(x.detach())

    def trace(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A leaf with the values of ``x`` and its logits (n, classes), to be handed to :meth:`gradient`.

        Raises:
            UserError: the logits do not depend on the images by a graph.
        """
        leaf = self._laid_out(x.detach()).requires_grad_()
        with torch.enable_grad():
            logits = self._answer(leaf)
        if not logits.requires_grad:
            raise _no_gradient()
        return leaf, logits

    def gradient(self, values: Tensor, leaf: Tensor, *, again: bool = False) -> Tensor:
        """The gradient of each value (n,) by its own image, shaped like ``leaf``. Parameters get none.

        The values are summed, not averaged, so that an image's gradient does not depend on the size of the batch.

        Args:
            values: One number an image, made from the logits of :meth:`trace`.
            leaf: The leaf of :meth:`trace`.
            again: Whether the same graph will be asked again.
        """
        self.backwards += len(leaf)
        ones = torch.ones_like(values)
        (gradient,) = torch.autograd.grad(values, leaf, ones, retain_graph=again, allow_unused=True)
        if gradient is None:
            raise _no_gradient()
        return gradient

    def _laid_out(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def _answer(self, x: Tensor) -> Tensor:
        logits: Tensor = self.run(self._laid_out(x))
        check_logits(logits, x)
        self.forwards += len(x)
        return logits


def _no_gradient() -> UserError:
    return UserError(
        "the model gives no gradient for its images (its forward detaches them, rounds, or runs under no_grad): "
        "let it be differentiable, or take an attack that needs no gradient, as noise"
    )


@contextlib.contextmanager
def freeze(
    model: nn.Module | Frozen,
    x: Tensor,
    *,
    fold: bool = True,
    channels_last: bool | None = None,
    compiled: bool = False,
) -> Iterator[Frozen]:
    """Make ``model`` ready to be attacked on images like ``x``, and leave it afterwards as it was.

    Inside, the model is in evaluation mode and no parameter requires a gradient. Afterwards, also after an error, the
    mode of every module, ``requires_grad`` and the buffers are what they were; ``.grad`` is never touched. The model
    must not be trained inside.

    Args:
        model: Maps images (n, ...) to logits (n, classes). One that is frozen already is passed through.
        x: Images; the first two probe the model. If there are none, the model is neither asked nor touched.
        fold: Fold batch-norm into the convolutions before it where the model can be traced; the folded model is
            checked against the model on the probes, and dropped if it answers otherwise.
        channels_last: Hand the images over channels last, if the model takes them so. If not given, on the CPU, where
            it makes convolutions faster.
        compiled: Compile the model by ``torch.compile``, for any size of batch. It takes a minute or so once, and pays
            on an accelerator and in long attacks; on a CPU convolutions take most of the time either way.

    Raises:
        UserError: the model is no module, lives on another device, wants another dtype, or its answers are no logits.
    """
    if isinstance(model, Frozen):
        check_place(model.run, x)
        yield model
        return
    if not isinstance(model, nn.Module):
        raise UserError(f"the model is a {type(model).__name__}: give an nn.Module that maps images to logits")
    if not len(x):
        yield Frozen(model, 0, folded=False, channels_last=False)
        return
    check_place(model, x)
    with torch.inference_mode(False), _unchanged(model):
        probe = x[:2].detach().clone()
        with torch.no_grad():
            logits = model(probe)
            check_logits(logits, probe)
            warn_of_probabilities(logits)
            folded = fold_batch_norm(model, probe, logits) if fold else None
            run = model if folded is None else folded
            wanted = x.device.type == "cpu" if channels_last is None else channels_last
            last = wanted and _takes_channels_last(run, probe)
            if compiled:
                run = cast(nn.Module, torch.compile(run, dynamic=True))
        yield Frozen(run, logits.shape[1], folded=folded is not None, channels_last=last)


def _takes_channels_last(run: nn.Module, probe: Tensor) -> bool:
    """Whether ``run`` is of the images' kind and does without a view that needs contiguous ones."""
    if probe.ndim != 4:
        return False
    try:
        run(probe.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return False
    return True


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode without gradients by its parameters, and afterwards as it was."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        # Through eval() and train(), not the flags alone: a module may do more in them, as merging its weights.
        if model.training:
            model.eval()
        for module, _ in modes:
            if module.training:
                module.eval()
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        if modes[0][1]:
            model.train()
        for module, mode in modes:
            if module.training != mode:
                module.training = mode
        for parameter, want in wanted:
            parameter.requires_grad_(want)
        for buffer, before in buffers:
            # Written only if it differs: writing would break a graph the caller has open.
            if not torch.equal(buffer, before):
                buffer.detach().copy_(before)
