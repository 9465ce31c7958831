"""A discriminator that is a classifier too (AC-GAN, Odena et al. 2017; Rob-GAN, Liu & Hsieh 2019)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from rivals.base.size import AnySize
from rivals.nets.classifier import Classifier
from rivals.nets.factory import build_classifier, rebuild


class TwoHeadedDiscriminator(nn.Module):
    """Images (B, C, H, W) in [-1, 1] to a logit of "real" (B,); and to logits of their classes (B, classes).

    It is one classifier with an output more, which is the logit of "real": the two heads are rows of the last layer.
    What the class says is not told to the other head, so labels are ignored.

    Args:
        net: Architecture of the classifier, cnn or resnet.
        size: Of the images.
        channels: 1, 3 or 4.
        classes: 2 or more.
        widths: Channels of the stages; the architecture's own by default.

    Attributes:
        uses_batch_stats: As of :class:`~rivals.nets.discriminator.Discriminator`.
        spec: The arguments as JSON.
    """

    def __init__(self, net: str, *, size: AnySize, channels: int, classes: int, widths: tuple[int, ...] = ()) -> None:
        super().__init__()
        half = (0.5,) * channels
        self.net = build_classifier(
            net, size=size, channels=channels, classes=classes + 1, widths=widths, mean=half, std=half
        )
        self.size, self.channels, self.classes = self.net.size, channels, classes
        self.uses_batch_stats = any(isinstance(part, nn.BatchNorm2d) for part in self.net.modules())
        self.spec: dict[str, Any] = {
            **self.net.spec,
            "role": "discriminator",
            "net": f"{net}-two-heads",
            "classes": classes,
        }

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] to logits of "real" (B,). Labels are ignored."""
        logits: Tensor = self.net((x + 1) / 2)[:, -1]
        return logits

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) in [-1, 1] to logits of "real" (B,) and of the classes (B, classes)."""
        logits: Tensor = self.net((x + 1) / 2)
        return logits[:, -1], logits[:, :-1]

    def heads_without_trace(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`heads`; batch norm's running statistics stay as they are."""
        buffers = {name: buffer.clone() for name, buffer in self.net.named_buffers()}
        logits: Tensor = functional_call(self.net, buffers, ((x + 1) / 2,))
        return logits[:, -1], logits[:, :-1]

    def class_logits(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits of the classes (B, classes)."""
        logits: Tensor = self.net(x)[:, :-1]
        return logits

    def classifier(self) -> Classifier:
        """The class head alone, as a classifier with its own copy of the weights."""
        alone: Any = rebuild({**self.net.spec, "classes": self.classes})
        like = next(self.parameters())
        wanted = alone.state_dict()
        alone.load_state_dict(
            {
                name: values[: len(wanted[name])] if wanted[name].ndim else values
                for name, values in self.net.state_dict().items()
            }
        )
        classifier: Classifier = alone.to(like.device)
        return classifier.train(self.training)


class ClassHead(nn.Module):
    """The class head of a two-headed discriminator in place: images in [0, 1] to logits, for an attack in training."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] to logits of the classes (B, classes)."""
        net: Any = self.discriminator
        logits: Tensor = net.class_logits(x)
        return logits
