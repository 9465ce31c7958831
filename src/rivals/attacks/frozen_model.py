"""A classifier made ready to be attacked: in evaluation mode, with gradients for its images only.

The only place that touches a model. Every attack takes the :class:`FrozenModel` that ``freeze`` makes in place of a
model, so that several attacks share one preparation and one count of passes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from rivals.attacks.bn_folding import fold_batch_norm
from rivals.attacks.eval_mode import eval_mode
from rivals.attacks.input_checks import (
    NoGradientError,
    are_probabilities,
    check_logits,
    check_place,
    warn_of_one_logit,
    warn_of_probabilities,
)
from rivals.attacks.model_outputs import LogitsModel, steps_to_logits, two_logits
from rivals.base.devices import autocast, is_out_of_memory
from rivals.base.errors import UserError


class FrozenModel:
    """A model under attack. Made by :func:`freeze`.

    Attributes:
        run: The module from images to logits (n, classes) whose forward pass is run: the model, where its output has
            to be read in a :class:`LogitsModel`, or a folded copy.
        forwards: Images passed forward so far (the one or two that probed the model are not counted).
        backwards: Images passed backward so far.
        classes: Number of classes.
        folded: Whether batch-norm was folded into the convolutions before it.
        channels_last: Whether images are passed in that memory format.
        probabilities: Whether the outputs look like probabilities instead of logits.
        one_logit: Whether the model returns one logit per image, read as two classes.
        queries_needed: Of the last attack, if it counts queries: how many each image (n,) took until one was
            adversarial in ball and box, -1 where none was.
        passes: Forward passes of a randomized model, over which logits and :meth:`mean_loss` are averaged; 1 at first.
        bf16: Whether :meth:`trace`, and so the gradient, computes in bf16; :meth:`logits` does not, and decides what is
            adversarial. False at first.
    """

    def __init__(self, run: nn.Module, classes: int, *, folded: bool, channels_last: bool) -> None:
        self.run = run
        self.classes = classes
        self.probabilities = False
        self.one_logit = False
        self.folded = folded
        self.channels_last = channels_last
        self.forwards = 0
        self.backwards = 0
        self.passes = 1
        self.bf16 = False
        self.queries_needed: Tensor | None = None
        self._mask: Tensor | None = None
        self._traced: tuple[Tensor | None, list[Tensor]] = (None, [])

    def logits(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of images (n, ...), without a graph."""
        with torch.no_grad():
            return _mean([self._counted(self.run(self._own_copy(x.detach())), x) for _ in range(self.passes)])

    def trace(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A leaf with the values of ``x`` and its logits (n, classes), to be handed to :meth:`gradient`.

        Raises:
            UserError: the logits do not depend on the images by a graph.
        """
        leaf = self._to_memory_format(x.detach()).requires_grad_()
        with torch.enable_grad():
            passes = [self._counted(self._run_to_search(self._own_copy(leaf)), leaf) for _ in range(self.passes)]
            logits = _mean(passes)
        if not logits.requires_grad:
            raise _no_gradient()
        self._traced = (logits, passes) if self.passes > 1 else (None, [])
        return leaf, logits

    def _run_to_search(self, x: Tensor) -> Tensor:
        if not self.bf16:  # nor is autocast of the caller's changed
            return self.run(x)  # type: ignore[no-any-return]
        with autocast(x.device, enabled=True):
            logits: Tensor = self.run(x)
        return logits.to(x.dtype)

    def mean_loss(self, loss: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
        """The loss (n,) of logits; of those of the last trace, the mean of the losses of its passes.

        Its gradient is the mean of the passes' gradients, as in EOT (Athalye et al. 2018, eq. 1) and in AutoAttack's
        version for randomized models. Logits that were averaged first would give the gradient of another function.
        """
        traced, passes = self._traced
        return _mean([loss(each) for each in passes]) if logits is traced else loss(logits)

    def gradient(self, values: Tensor, leaf: Tensor, *, retain_graph: bool = False) -> Tensor:
        """The gradient of each value (n,) by its own image, shaped like ``leaf``. Parameters get none.

        The values are summed, not averaged, so that an image's gradient does not depend on the size of the batch.

        Args:
            values: One number an image, made from the logits of :meth:`trace`.
            leaf: The leaf of :meth:`trace`.
            retain_graph: Whether another backward pass through the same graph follows.
        """
        self.backwards += len(leaf)
        ones = torch.ones_like(values)
        (gradient,) = torch.autograd.grad(values, leaf, ones, retain_graph=retain_graph, allow_unused=True)
        if gradient is None:
            raise _no_gradient()
        return gradient if self._mask is None else gradient * self._mask

    def forget_queries(self) -> None:
        """Before an attack that may not count them."""
        self.queries_needed = None

    @contextlib.contextmanager
    def masked(self, mask: Tensor | None) -> Iterator[None]:
        """Inside, gradients are 0 outside the mask, which broadcasts with one image, so that attacks stay inside."""
        self._mask, before = mask, self._mask
        try:
            yield
        finally:
            self._mask = before

    def _to_memory_format(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x

    def _own_copy(self, x: Tensor) -> Tensor:
        """A copy for the model, which may write on its input: neither the caller's images nor a leaf may change."""
        formatted = self._to_memory_format(x)
        return x.clone() if formatted is x and not isinstance(self.run, _CompiledModel) else formatted

    def _counted(self, logits: Tensor, x: Tensor) -> Tensor:
        check_logits(logits, x)
        self.forwards += len(x)
        return logits


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(0)


class _CompiledModel(nn.Module):
    """A model made by ``torch.compile``, which copies its input inside: a compiler wants to be given a leaf."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.run = torch.compile(lambda x: model(x.clone()), dynamic=True)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.run(x)
        return logits


def _no_gradient() -> NoGradientError:
    return NoGradientError(
        "the model gives no gradient for its images (its forward detaches them, rounds, or runs under no_grad): "
        "let it be differentiable, or take an attack that needs no gradient, as noise"
    )


def _forward_failed(error: Exception, probe: Tensor) -> UserError:
    reason = (str(error).strip() or "no reason given").splitlines()[0]
    shape = " x ".join(map(str, probe.shape[1:]))
    return UserError(
        f"the model fails on images of {shape} ({type(error).__name__}: {reason}): give images of the size and "
        "channels it was made for, as by --size, or fix its forward"
    )


@contextlib.contextmanager
def freeze(
    model: nn.Module | FrozenModel,
    x: Tensor,
    *,
    fold: bool = True,
    channels_last: bool | None = None,
    compiled: bool = False,
    bf16: bool = False,
    warn: bool = True,
) -> Iterator[FrozenModel]:
    """Make ``model`` ready to be attacked on images like ``x``, and leave it afterward as it was.

    Inside, the model is in evaluation mode and no parameter requires a gradient. Afterward, also after an error, the
    mode of every module, ``requires_grad`` and the buffers are what they were; ``.grad`` is never touched. Several
    threads may freeze one model at once: the last one restores it. The model must not be trained inside.

    Args:
        model: Maps images (n, ...) to logits (n, classes), or to what :func:`steps_to_logits` finds them in. One that
            is frozen already is passed through.
        x: Images; the first two probe the model. If there are none, the model is not used.
        fold: Fold batch-norm into the convolutions before it where the model can be traced; the folded model is
            checked against the model on the probes, and dropped if its logits differ.
        channels_last: Pass the images channels last, if the model takes them so. By default on the CPU, where
            it makes convolutions faster.
        compiled: Compile the model by ``torch.compile``, for any size of batch. It takes a minute or so once, and pays
            on an accelerator and in long attacks; on a CPU convolutions take most of the time either way.
        bf16: Take gradients in bf16, twice as fast where the processor has it. Whatever seems adversarial then is
            decided by a pass in the model's own precision.
        warn: Warn if the model seems to return probabilities, or returns one logit per image.

    Raises:
        UserError: the model is not a module, lives on another device, has another dtype, or does not return logits.
    """
    if isinstance(model, FrozenModel):
        check_place(model.run, x)
        yield model
        return
    if not isinstance(model, nn.Module):
        raise UserError(f"the model is a {type(model).__name__}: give an nn.Module that maps images to logits")
    if not len(x):
        yield FrozenModel(model, 0, folded=False, channels_last=False)
        return
    check_place(model, x)
    with torch.inference_mode(False), eval_mode(model):
        probe = x[:2].detach().clone()
        with torch.no_grad():
            try:
                output = model(probe.clone())
            except UserError:  # of a module of ours, such as a purifier, which says best what is wrong
                raise
            except Exception as error:  # whatever the model's own forward raises
                if is_out_of_memory(error):
                    raise
                raise _forward_failed(error, probe) from error
            steps = steps_to_logits(output, len(probe))
            one_logit = two_logits in steps
            if steps:
                model = LogitsModel(model, steps)
                for step in steps:
                    output = step(output)
            logits: Tensor = output
            check_logits(logits, probe)
            if one_logit and warn:
                warn_of_one_logit()
            probabilities = are_probabilities(logits)
            if probabilities and warn:
                warn_of_probabilities()
            folded = fold_batch_norm(model, probe, logits) if fold else None
            run = model if folded is None else folded
            wanted = x.device.type == "cpu" if channels_last is None else channels_last
            last = wanted and _takes_channels_last(run, probe)
            if compiled:
                run = _CompiledModel(run)
        frozen = FrozenModel(run, logits.shape[1], folded=folded is not None, channels_last=last)
        frozen.probabilities, frozen.one_logit, frozen.bf16 = probabilities, one_logit, bf16
        yield frozen


def _takes_channels_last(run: nn.Module, probe: Tensor) -> bool:
    """Whether ``run`` is of the images' kind and does without a view that needs contiguous ones."""
    if probe.ndim != 4:
        return False
    try:
        run(probe.clone(memory_format=torch.channels_last))
    except RuntimeError:
        return False
    return True
