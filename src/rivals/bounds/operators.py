"""The operations that networks are made of, as bounds need them: affine maps, monotone functions, sums."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from rivals.bounds.rounding import gamma, smallest


@dataclass(eq=False)
class Affine(ABC):
    """``y = W x + b``. Its tensors are those of the model, so that bounds can be differentiated by them.

    Attributes:
        name: Of the layer, for messages.
    """

    name: str

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """``W x + b``."""

    @abstractmethod
    def absolute(self, x: Tensor) -> Tensor:
        """``|W| x``, elementwise absolute values."""

    def width(self, r: Tensor, error: float) -> Tensor:
        """Twice the radius of an interval: ``2 ((1 + 3 error) |W| r + 3 error |b|)``, and the error of underflow."""
        spread = self.absolute(r).mul_(2 + 6 * error)
        if self.bias_size is not None:
            spread.add_(self.bias_size, alpha=6 * error)
        return spread.add_(2 * smallest(self.fan_in, r.dtype))

    @abstractmethod
    def squared(self, x: Tensor) -> Tensor:
        """``W^2 x``, elementwise squares."""

    @abstractmethod
    def adjoint(self, g: Tensor, shape: torch.Size) -> Tensor:
        """``W^T g`` for an input of ``shape``, without the batch."""

    @property
    @abstractmethod
    def fan_in(self) -> int:
        """Products in the sum of an output; 0 for one that is copied."""

    @property
    @abstractmethod
    def fan_out(self) -> int:
        """Products in the sum of an entry of ``W^T g``."""

    @property
    def bias(self) -> Tensor | None:
        """b, to be broadcast with a batch of outputs."""
        return None

    @property
    def bias_size(self) -> Tensor | None:
        """``|b|``; where b was itself summed, the sum of the absolute values of its terms."""
        return None if self.bias is None else self.bias.abs()


@dataclass(eq=False)
class Linear(Affine):
    """A fully connected layer: ``weight`` (m, n), ``offset`` (m,)."""

    weight: Tensor
    offset: Tensor | None = None
    offset_size: Tensor | None = None
    _absolute: Tensor | None = field(default=None, repr=False)
    _spread: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.offset)

    def width(self, r: Tensor, error: float) -> Tensor:
        return super().width(r, error) if self._spread is None else F.linear(r, *self._spread)

    def absolute(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.abs() if self._absolute is None else self._absolute)

    def squared(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.square())

    def adjoint(self, g: Tensor, shape: torch.Size) -> Tensor:
        return g @ self.weight

    @property
    def fan_in(self) -> int:
        return self.weight.shape[1] + 1

    @property
    def fan_out(self) -> int:
        return self.weight.shape[0]

    @property
    def bias(self) -> Tensor | None:
        return self.offset

    @property
    def bias_size(self) -> Tensor | None:
        return super().bias_size if self.offset_size is None else self.offset_size

    def frozen(self) -> Linear:
        """A copy with ``|W|`` at hand."""
        return replace(self, _absolute=self.weight.clone().abs_(), _spread=_spread(self))

    def scaled(self, scale: Tensor, shift: Tensor, shift_size: Tensor) -> Linear:
        """This layer followed by ``scale * y + shift``, each (m,)."""
        offset, size = _scaled_bias(self, scale.flatten(), shift.flatten(), shift_size.flatten())
        return Linear(self.name, self.weight * scale.view(-1, 1), offset, size)


@dataclass(eq=False)
class Conv2d(Affine):
    """A convolution: ``weight`` (m, n / groups, h, w), ``offset`` (m,); zeros are padded."""

    weight: Tensor
    offset: Tensor | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    offset_size: Tensor | None = None
    _absolute: Tensor | None = field(default=None, repr=False)
    _spread: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    def width(self, r: Tensor, error: float) -> Tensor:
        return super().width(r, error) if self._spread is None else self._convolve(r, *self._spread)

    def _convolve(self, x: Tensor, weight: Tensor, offset: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, offset, self.stride, self.padding, self.dilation, self.groups)

    def __call__(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight, self.offset)

    def absolute(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight.abs() if self._absolute is None else self._absolute)

    def squared(self, x: Tensor) -> Tensor:
        return self._convolve(x, self.weight.square())

    def adjoint(self, g: Tensor, shape: torch.Size) -> Tensor:
        # Pixels at the right and lower edge that no window reaches are not in the transposed convolution's output.
        sizes = zip(
            g.shape[-2:], shape[-2:], self.stride, self.padding, self.dilation, self.weight.shape[2:], strict=True
        )
        missing = [size - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for n, size, s, p, d, k in sizes]
        return F.conv_transpose2d(
            g, self.weight, None, self.stride, self.padding, tuple(missing), self.groups, self.dilation
        )

    @property
    def fan_in(self) -> int:
        return math.prod(self.weight.shape[1:]) + 1

    @property
    def fan_out(self) -> int:
        return self.weight.shape[0] // self.groups * math.prod(self.weight.shape[2:])

    @property
    def bias(self) -> Tensor | None:
        return None if self.offset is None else self.offset.view(-1, 1, 1)

    @property
    def bias_size(self) -> Tensor | None:
        return super().bias_size if self.offset_size is None else self.offset_size.view(-1, 1, 1)

    def frozen(self) -> Conv2d:
        """A copy with ``|W|`` at hand."""
        return replace(self, _absolute=self.weight.clone().abs_(), _spread=_spread(self))

    def scaled(self, scale: Tensor, shift: Tensor, shift_size: Tensor) -> Conv2d:
        """This layer followed by ``scale * y + shift``, each with one number per channel."""
        offset, size = _scaled_bias(self, scale.flatten(), shift.flatten(), shift_size.flatten())
        return replace(self, weight=self.weight * scale.view(-1, 1, 1, 1), offset=offset, offset_size=size)


def _spread(op: Linear | Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of :meth:`Affine.width`, so that it is one operation."""
    dtype = op.weight.dtype
    error = 3 * gamma(op.fan_in, dtype)
    size = op.weight.new_zeros(len(op.weight)) if op.bias_size is None else op.bias_size.flatten()
    # Its strides are those of the weight, even where one input channel leaves them open: so are those of the results.
    return op.weight.clone().abs_().mul_(2 + 2 * error), 2 * size * error + 2 * smallest(op.fan_in, dtype)


def _scaled_bias(op: Linear | Conv2d, scale: Tensor, shift: Tensor, shift_size: Tensor) -> tuple[Tensor, Tensor]:
    if op.offset is None:
        return shift, shift_size
    size = op.offset.abs() if op.offset_size is None else op.offset_size
    return scale * op.offset + shift, scale.abs() * size + shift_size


@dataclass(eq=False)
class Scale(Affine):
    """``scale * x + shift``, elementwise; both are broadcast with a batch, as (C, 1, 1).

    ``shift_size`` is at least the sum of the absolute values that are added up to ``shift``.
    """

    scale: Tensor
    shift: Tensor
    shift_size: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)

    def absolute(self, x: Tensor) -> Tensor:
        return x * self.scale.abs()

    def squared(self, x: Tensor) -> Tensor:
        return x * self.scale.square()

    def adjoint(self, g: Tensor, shape: torch.Size) -> Tensor:
        return g * self.scale

    @property
    def fan_in(self) -> int:
        return 8  # in torch's batch norm: shift, divide by a root, multiply, shift

    @property
    def fan_out(self) -> int:
        return 1

    @property
    def bias(self) -> Tensor | None:
        return self.shift

    @property
    def bias_size(self) -> Tensor | None:
        return self.shift_size


@dataclass(eq=False)
class BatchNorm(Affine):
    """Batch norm over the channels: with the running statistics, or with those of a batch by :meth:`at`."""

    weight: Tensor | None
    offset: Tensor | None
    mean: Tensor
    variance: Tensor
    eps: float
    momentum: float
    dims: int
    """Of its input, with the batch: 2 or 4."""

    def at(self, mean: Tensor, variance: Tensor) -> Scale:
        """The affine map for this mean and variance of each channel."""
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        size = shift.abs()
        if self.offset is not None:
            shift, size = shift + self.offset, size + self.offset.abs()
        shape = (-1, *[1] * (self.dims - 2))
        return Scale(self.name, scale.view(shape), shift.view(shape), size.view(shape))

    def of_batch(self, x: Tensor) -> Scale:
        """The affine map for the statistics of a batch, with which the running ones are updated."""
        rows = x.to(self.mean.dtype).movedim(1, -1).reshape(-1, x.shape[1])
        mean = rows.mean(0)
        # Several times faster than torch.var_mean, which is slow over all axes but the last.
        variance = (rows - mean).square().mean(0)
        with torch.no_grad():
            n = x.numel() / x.shape[1]
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(variance * (n / (n - 1)), self.momentum)
        return self.at(mean, variance)

    @property
    def running(self) -> Scale:
        """The affine map for the running statistics."""
        return self.at(self.mean, self.variance)

    def __call__(self, x: Tensor) -> Tensor:
        return self.running(x)

    def absolute(self, x: Tensor) -> Tensor:
        return self.running.absolute(x)

    def squared(self, x: Tensor) -> Tensor:
        return self.running.squared(x)

    def adjoint(self, g: Tensor, shape: torch.Size) -> Tensor:
        return self.running.adjoint(g, shape)

    @property
    def fan_in(self) -> int:
        return self.running.fan_in

    @property
    def fan_out(self) -> int:
        return 1

    @property
    def bias(self) -> Tensor | None:
        return self.running.bias

    @property
    def bias_size(self) -> Tensor | None:
        return self.running.bias_size


@dataclass(eq=False)
class Average(Affine):
    """A linear map without negative weights: average pooling, a mean, or a new order or shape of the entries.

    Attributes:
        function: The map, for any batch.
        terms: Entries that are averaged; 0 where they are only moved.
    """

    function: Callable[[Tensor], Tensor]
    terms: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)

    def absolute(self, x: Tensor) -> Tensor:
        return self.function(x)

    def squared(self, x: Tensor) -> Tensor:
        # The weights are 1 / terms or 0, at the edge of pooling up to 1: at most W x.
        return self.function(x)

    def adjoint(self, g: Tensor, shape: torch.Size) -> Tensor:
        with torch.enable_grad():
            x = g.new_zeros((len(g), *shape)).requires_grad_()
            (product,) = torch.autograd.grad(self.function(x), x, g, create_graph=g.requires_grad)
        return product

    @property
    def fan_in(self) -> int:
        return self.terms + 1 if self.terms else 0

    @property
    def fan_out(self) -> int:
        return self.terms


@dataclass(eq=False)
class ReLU:
    """``max(x, slope * x)``: ReLU where ``slope`` is 0, leaky ReLU where it is between 0 and 1."""

    name: str
    slope: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)


@dataclass(eq=False)
class MaxPool2d:
    """The maximum of each window."""

    name: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, self.stride, self.padding, self.dilation)

    def windows(self, x: Tensor) -> Tensor:
        """The entries of each window: (B, C, H, W) to (B, C, entries, H' W'); those of the padding are -inf."""
        down, right = self.padding
        padded = F.pad(x, (right, right, down, down), value=-torch.inf)
        columns = F.unfold(padded, self.kernel, self.dilation, 0, self.stride)
        return columns.view(len(x), x.shape[1], math.prod(self.kernel), columns.shape[-1])

    def places(self, x: Tensor) -> Tensor:
        """Where in the plane of its channel each maximum is, (B, C, H' W')."""
        _, places = F.max_pool2d(x, self.kernel, self.stride, self.padding, self.dilation, return_indices=True)
        return places.flatten(2)


@dataclass(eq=False)
class Sum:
    """``a + b``, or ``a - b`` where ``sign`` is -1, of two values of one shape."""

    name: str
    sign: int = 1

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b if self.sign > 0 else a - b


Monotone = ReLU | MaxPool2d
Operator = Affine | Monotone | Sum
