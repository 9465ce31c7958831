"""The tab of attacks: an image, its adversarial example, and the predictions for both."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.data.classes import find_classes
from rivals.reports.html import Html, join, tag
from rivals.studio.data_sources import DataSources
from rivals.studio.html_parts import errors_as_notices, notice, picture_figure, png_uri
from rivals.studio.run_store import RunStore

if TYPE_CHECKING:
    from torch import Tensor

    from rivals.data.imageset import ImageSet

# The slider of eps for each norm: largest value, default, step, label.
NORMS = {"Linf": (128, 8, 1, "eps in 1/255"), "L2": (5.0, 0.5, 0.05, "eps"), "L1": (50.0, 5.0, 0.5, "eps")}
STEPS = 20  # of PGD
MAX_GENERATORS = 2  # beside PGD
SIDE = 196  # pixels of a picture on the page, about
TOP_CLASSES = 5  # whose probability is shown
MAX_PIXELS = 40_000_000  # of an upload
MAX_BYTES = 25_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
DEFAULT_DATA = "mnist5k"


class InputImage(NamedTuple):
    """An image in [0, 1] (1, C, S, S), its class, -1 if unknown, and a caption."""

    x: Tensor
    label: int
    caption: str


@dataclass(frozen=True)
class AttackControls:
    """The state of the tab.

    Attributes:
        model: The classifier to attack.
        other: Another, attacked at the same image and eps; nothing for none.
        data: The data of the image; those that the classifier was trained on if empty.
        index: Of the test image.
        upload: A picture's file, in place of a test image.
        norm: Linf, L2 or L1.
        slider: Value of the slider: eps, for Linf in 1/255.
    """

    model: str | None
    other: str | None
    data: str | None
    index: float
    upload: str | None
    norm: str
    slider: float


def slider_eps(norm: str, value: float) -> float:
    """The eps of a slider value, in the unit of images in [0, 1].

    Raises:
        UserError: there is no such norm.
    """
    if norm not in NORMS:
        raise UserError(f"unknown norm '{norm}': choose {', '.join(NORMS)}")
    return value / 255 if norm == "Linf" else value


def matching_classifier(store: RunStore, model: str | None) -> str | None:
    """A classifier of the same data to compare with: adversarially trained if the first is not, else the reverse."""
    if not model:
        return None
    found = {name: store.network(name, "classifier").about for name in store.networks("classifier")}
    if model not in found:
        return None
    is_hardened = "hardened" in found[model]
    others = [name for name in found if name != model and found[name].get("data") == found[model].get("data")]
    return next((name for name in others if ("hardened" in found[name]) != is_hardened), next(iter(others), None))


@errors_as_notices
def attack_results(store: RunStore, sources: DataSources, controls: AttackControls) -> Html:
    """An image under attack, by PGD and by the generators that fit: clean, the change, attacked, and the predictions.

    Args:
        store: Where the classifiers are.
        sources: The data that may be read.
        controls: The state of the tab.
    """
    norm, upload = controls.norm, controls.upload
    names = [name for name in dict.fromkeys((controls.model, controls.other)) if name]
    if not names:
        return notice("There is no finished classifier yet: runs of 'classify' and 'harden' write one when they end.")
    parts = []
    for name in names:
        net = store.network(name, "classifier")
        image = uploaded_image(net, upload) if upload else test_image(net, sources, controls.data, controls.index)
        eps = slider_eps(norm, controls.slider)
        parts.append(tag("section", tag("h4", name), _result(net, image, norm, eps)))
        for found, generator in matching_generators(store, net):
            title = tag("h4", f"{name}, by {found}")
            parts.append(tag("section", title, _result(net, image, norm, eps, generator)))
    return tag("div", *parts, class_="columns")


def matching_generators(store: RunStore, net: Any) -> list[tuple[str, Any]]:
    """The generators of ``rivals train --against`` that perturb images of a classifier, with their names: a few."""
    found = ((name, store.network(name, "perturber")) for name in store.networks("perturber"))
    shape = (net.size, net.channels)
    fit = [(n, g) for n, g in found if (g.size, g.channels) == shape and g.classes in (0, net.classes)]
    return fit[:MAX_GENERATORS]


def _result(net: Any, image: InputImage, norm: str, eps: float, generator: Any = None) -> Html:
    import torch

    start = time.perf_counter()
    with torch.no_grad():
        clean = net(image.x).softmax(1)[0]
    prediction = int(clean.argmax())
    label = image.label if image.label >= 0 else prediction
    x_adv = run_attack(net, image.x, label, norm, eps, generator)
    with torch.no_grad():
        attacked = net(x_adv).softmax(1)[0]
    milliseconds = 1000 * (time.perf_counter() - start)
    prediction_adv = int(attacked.argmax())

    change = x_adv - image.x
    largest = float(change.abs().max())
    magnified = 0.5 + change / (2 * largest) if largest else torch.full_like(change, 0.5)
    factor = f"The change × {1 / (2 * largest):.0f}" if largest else "No change"
    pictures = [
        _picture(image.x, "the image", image.caption),
        _picture(magnified, "the change", factor),
        _picture(x_adv, "the attacked image", "The attacked image"),
    ]
    names = net.about.get("classes") or [str(i) for i in range(net.classes)]
    is_robust = prediction_adv == label
    if is_robust:
        verdict = f"Robust: still classified as {names[label]}."
    elif prediction == label:
        verdict = f"Fooled: the {names[label]} is classified as {names[prediction_adv]}."
    else:
        verdict = f"Misclassified without an attack: the {names[label]} is classified as {names[prediction]}."
    attack = f"PGD, {STEPS} steps" if generator is None else "Its generator, one forward pass"
    protocol = tag("span", f"{attack}, {norm} eps {eps:.4g}; {milliseconds:.0f} ms.", class_="muted")
    return join(
        tag("div", *pictures, class_="trio"),
        tag("p", tag("b", verdict), " ", protocol, class_="robust" if is_robust else "fooled"),
        _probability_table(names, clean, attacked),
    )


def run_attack(net: Any, x: Tensor, label: int, norm: str, eps: float, generator: Any = None) -> Tensor:
    """The image after PGD within the ball, or perturbed by a generator; unchanged if eps is 0."""
    import torch

    from rivals.attacks import advgan, pgd
    from rivals.base.norm_balls import ball_for

    if not eps:
        return x
    if generator is not None:
        y = torch.tensor([label])
        return advgan(net, x, y, ball_for(norm.lower(), eps), generator=generator, stop_when_fooled=False)
    # All steps, so that the picture changes evenly with eps.
    return pgd(net, x, torch.tensor([label]), ball_for(norm.lower(), eps), steps=STEPS, stop_when_fooled=False)


def _picture(x: Tensor, alt: str, caption: str) -> Html:
    from rivals.reports import image_grid

    pixels = (x * 255).round().clamp(0, 255).byte().numpy()
    grid = image_grid.make_grid(pixels, scale=max(1, SIDE // max(x.shape[-2:])))
    return picture_figure(png_uri(grid), alt, caption)


def _probability_table(names: list[str], clean: Tensor, attacked: Tensor) -> Html:
    """Probabilities of the most probable classes, clean and attacked."""
    import torch

    top = torch.maximum(clean, attacked).topk(min(TOP_CLASSES, len(clean))).indices.tolist()
    rows = []
    for label in top:
        cells = [tag("th", names[label], scope="row")]
        for percent, kind in ((100 * float(clean[label]), "clean"), (100 * float(attacked[label]), "attacked")):
            bar = tag("i", style=f"width: {percent:.1f}%", class_=kind)
            cells.append(tag("td", tag("span", bar, class_="track"), tag("span", f"{percent:.1f}%")))
        rows.append(tag("tr", *cells))
    head = tag("tr", tag("th", "class"), tag("th", "clean"), tag("th", "attacked"))
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="bars")


def test_image(net: Any, sources: DataSources, data: str | None, index: float) -> InputImage:
    """A test image of the data, at the size and with the channels of the classifier.

    Raises:
        UserError: the data cannot or may not be read, or have no such image.
    """
    import torch

    chosen = sources.check(data or sources.find(str(net.about.get("data") or DEFAULT_DATA)))
    images = _images(chosen, net.size, net.about.get("white"))
    if index is None or index != int(index) or not 0 <= index < len(images):
        raise UserError(f"there is no image {index:g}: '{images.name}' has {len(images)} in '{images.split}'")
    i = int(index)
    x = match_channels(torch.from_numpy(images.images[i : i + 1]) / 255, net.channels)
    label, names = -1, net.about.get("classes")
    if images.labels is not None and names:
        with contextlib.suppress(UserError):  # data of other classes are shown without a label
            name = images.classes[int(images.labels[i])]
            (label,) = find_classes([name], names, images.name, "the classifier", lambda note: None)
    return InputImage(x, label, f"{images.name}, {images.split} image {i}")


@lru_cache(maxsize=4)
def _images(data: str, size: Size, white: int | None) -> ImageSet:
    from rivals.data.load import load

    try:
        return load(data, split="test", size=size, crop=True, white=white, on_note=lambda note: None)
    except UserError as first:
        try:
            return load(data, split="all", size=size, crop=True, white=white, on_note=lambda note: None)
        except UserError:
            raise first from None


def uploaded_image(net: Any, path: str) -> InputImage:
    """A picture from a file, at the size and with the channels of the classifier.

    Raises:
        UserError: it is not a picture, or too large.
    """
    import torch

    size: Size = net.size
    picture = read_upload(path, 2 * size.longer)
    picture = ImageOps.fit(picture, (size.width, size.height), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    return InputImage(match_channels(pixels, net.channels), -1, "The upload; its label is the clean prediction")


def read_upload(path: str, side: int | None = None) -> Image.Image:
    """A picture from a file, in RGB and upright.

    Args:
        path: The file.
        side: Pixels that are needed: a JPEG may be decoded at a fraction of its size; None for all.

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
                return ImageOps.exif_transpose(opened).convert("RGB")
    except UserError:
        raise
    except Exception as error:  # decoders raise nearly anything on arbitrary bytes
        reason = "it is not a picture" if isinstance(error, OSError) else type(error).__name__
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
