"""What describes a network in JSON."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from rivals.base.typed_json import Between


class Spec(TypedDict):
    """A network's ``spec`` in JSON: the arguments that build it. Their bounds are those of its class."""

    role: Literal["generator", "classifier", "perturber", "encoder", "translator"]
    net: str
    size: int | str
    channels: int
    classes: int
    widths: list[int]
    latent_dim: NotRequired[int]
    groups: NotRequired[list[int]]
    blocks: NotRequired[int]
    expansion: NotRequired[int]
    mean: NotRequired[list[Annotated[float, Between(-1e6, 1e6)]]]
    std: NotRequired[list[Annotated[float, Between(1e-6, 1e6)]]]
    flip_tta: NotRequired[bool]
    norm: NotRequired[str]
    upsample: NotRequired[str]
    eps: NotRequired[Annotated[float, Between(1e-9, 1e6)]]
    condition: NotRequired[str]
    target: NotRequired[int | None]
    universal: NotRequired[bool]
    in_channels: NotRequired[int]
    scale: NotRequired[int]
