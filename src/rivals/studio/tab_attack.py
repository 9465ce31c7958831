"""The tab of attacks: an image, what an attack makes of it, and what classifiers say of both."""

from __future__ import annotations

import io
import threading
import time
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from rivals.base.errors import UserError
from rivals.reports.markup import Html, join, tag
from rivals.studio.pictures import calm, shown, spoken, uri
from rivals.studio.shelf import Shelf

if TYPE_CHECKING:
    from torch import Tensor

    from rivals.base.balls import Ball
    from rivals.data.imageset import ImageSet

NORMS = {"Linf": (128, 8, 1, "eps in 1/255"), "L2": (5.0, 0.5, 0.05, "eps"), "L1": (50.0, 5.0, 0.5, "eps")}
STEPS = 20
SIDE = 196  # pixels that a picture has on the page, about
LEADERS = 5  # classes whose probability is shown
PIXELS = 40_000_000  # of an upload
BYTES = 25_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
USUAL = "mnist5k"

_one_at_a_time = threading.Lock()  # an attack turns the gradients of a network's weights off and on


class Chosen(NamedTuple):
    """An image in [0, 1] (1, C, S, S) and its class; -1 where nobody knows it."""

    x: Tensor
    label: int
    says: str


def radius(norm: str, slid: float) -> float:
    """The radius at a place of the slider, in the unit of images in [0, 1]."""
    if norm not in NORMS:
        raise UserError(f"'{norm}' is no norm: choose {', '.join(NORMS)}")
    return slid / 255 if norm == "Linf" else slid


def partner(shelf: Shelf, model: str | None) -> str | None:
    """A classifier to show beside another: of the same data, hardened rather than not."""
    if not model:
        return None
    told = {name: shelf.network(name, "classifier").about for name in shelf.networks("classifier")}
    if model not in told:
        return None
    hard = "hardened" in told[model]
    alike = [name for name in told if name != model and told[name].get("data") == told[model].get("data")]
    return next((name for name in alike if ("hardened" in told[name]) != hard), alike[0] if alike else None)


@spoken
def fooled(
    shelf: Shelf,
    model: str | None,
    beside: str | None,
    data: str | None,
    index: float,
    upload: str | None,
    norm: str,
    slid: float,
) -> Html:
    """An image under attack: as it is, the change magnified, the outcome, and what is made of both.

    Args:
        shelf: Where the classifiers are.
        model: The classifier to attack.
        beside: Another, attacked at the same image and radius; nothing for none.
        data: Where the image is from; the data that the classifier learnt from if nothing.
        index: Which of its test images.
        upload: A picture's file, instead.
        norm: Linf, L2 or L1.
        slid: Where the slider is: eps, for Linf in 1/255.
    """
    names = [name for name in dict.fromkeys((model, beside)) if name]
    if not names:
        return calm("There is no finished classifier here yet: a run of 'classify' or 'harden' leaves one as it ends.")
    parts = []
    for name in names:
        net = shelf.network(name, "classifier")
        chosen = uploaded(net, upload) if upload else from_data(net, data, index)
        parts.append(tag("section", tag("h4", name), _one(net, chosen, norm, radius(norm, slid))))
    return tag("div", *parts, class_="abreast")


def _one(net: Any, chosen: Chosen, norm: str, eps: float) -> Html:
    import torch

    began = time.perf_counter()
    with torch.no_grad():
        clean = net(chosen.x).softmax(1)[0]
    label = chosen.label if chosen.label >= 0 else int(clean.argmax())
    x_adv = attacked(net, chosen.x, label, norm, eps)
    with torch.no_grad():
        after = net(x_adv).softmax(1)[0]
    spent = 1000 * (time.perf_counter() - began)
    change = x_adv - chosen.x
    most = float(change.abs().max())
    magnified = 0.5 + change / (2 * most) if most else torch.full_like(change, 0.5)
    names = net.about.get("classes") or [str(i) for i in range(net.classes)]
    pictures = [
        _picture(chosen.x, "the image", chosen.says),
        _picture(magnified, "the change", f"The change, {1 / (2 * most):.0f} times as strong" if most else "No change"),
        _picture(x_adv, "the attacked image", "The image after the attack"),
    ]
    told, standing = int(after.argmax()), int(after.argmax()) == label
    verdict = (
        f"It stands: still {names[label]}."
        if standing
        else f"Fooled: it takes the {names[label]} for {names[told]}."
        if int(clean.argmax()) == label
        else f"It is wrong already without an attack: it takes the {names[label]} for {names[int(clean.argmax())]}."
    )
    how = f"PGD, {STEPS} steps, {norm} eps {eps:.4g}; {spent:.0f} ms."
    return join(
        tag("div", *pictures, class_="trio"),
        tag("p", tag("b", verdict), " ", tag("span", how, class_="quiet"), class_="stands" if standing else "falls"),
        _bars(names, clean, after),
    )


def attacked(net: Any, x: Tensor, label: int, norm: str, eps: float) -> Tensor:
    """The image after PGD within the ball; itself where eps is 0."""
    import torch

    from rivals.attacks import pgd
    from rivals.base.balls import L1, L2, Linf

    if not eps:
        return x
    kinds: dict[str, type[Ball]] = {"Linf": Linf, "L2": L2, "L1": L1}
    with _one_at_a_time:
        # To the last step, so that the picture changes evenly with eps.
        return pgd(net, x, torch.tensor([label]), kinds[norm](eps), steps=STEPS, stop_when_fooled=False)


def _picture(x: Tensor, alt: str, caption: str) -> Html:
    from rivals.reports import sheet

    pixels = (x * 255).round().clamp(0, 255).byte().numpy()
    return shown(uri(sheet.grid(pixels, scale=max(1, SIDE // x.shape[-1]))), alt, caption)


def _bars(names: list[str], clean: Tensor, after: Tensor) -> Html:
    """Probabilities before and after, for the classes that lead in either."""
    import torch

    leaders = torch.maximum(clean, after).topk(min(LEADERS, len(clean))).indices.tolist()
    rows = []
    for which in leaders:
        cells = [tag("th", names[which], scope="row")]
        for share, kind in ((float(clean[which]), "before"), (float(after[which]), "after")):
            bar = tag("i", style=f"width: {100 * share:.1f}%", class_=kind)
            cells.append(tag("td", tag("span", bar, class_="track"), tag("span", f"{100 * share:.1f} %")))
        rows.append(tag("tr", *cells))
    head = tag("tr", tag("th", "class"), tag("th", "before"), tag("th", "after"))
    return tag("table", tag("thead", head), tag("tbody", *rows), class_="bars")


def from_data(net: Any, data: str | None, index: float) -> Chosen:
    """A test image of the data, at the size and in the colours that the classifier takes."""
    import torch

    images = _images(str(data or net.about.get("data") or USUAL).strip(), net.size)
    if index is None or index != int(index) or not 0 <= index < len(images):
        raise UserError(f"there is no image {index:g}: '{images.name}' has {len(images)} in '{images.split}'")
    at = int(index)
    x = fitting(torch.from_numpy(images.images[at : at + 1]) / 255, net.channels)
    label = -1
    if images.labels is not None and (name := images.classes[int(images.labels[at])]) in (
        net.about.get("classes") or ()
    ):
        label = net.about["classes"].index(name)
    return Chosen(x, label, f"{images.name}, {images.split} image {at}")


@lru_cache(maxsize=4)
def _images(data: str, size: int) -> ImageSet:
    from rivals.data.load import load

    try:
        return load(data, split="test", size=size, crop=True, on_note=lambda note: None)
    except UserError as first:
        try:
            return load(data, split="all", size=size, crop=True, on_note=lambda note: None)
        except UserError:
            raise first from None


def uploaded(net: Any, path: str) -> Chosen:
    """A picture from a file, at the size and in the colours that the classifier takes.

    Raises:
        UserError: it is no picture, or larger than a page should take.
    """
    import torch

    file = Path(path)
    kinds = f"upload a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture"
    content = file.read_bytes() if file.stat().st_size <= BYTES else b""
    if not content:
        raise UserError(f"the upload has {file.stat().st_size / 1e6:.0f} MB: give a file of 1 byte to 25 MB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                width, height = opened.size  # known before a pixel is decoded
                if width * height > PIXELS:
                    raise UserError(
                        f"the upload has {width * height / 1e6:.0f} million pixels: give one of 40 million or fewer"
                    )
                opened.draft("RGB", (2 * net.size, 2 * net.size))
                picture = ImageOps.exif_transpose(opened).convert("RGB")
    except UserError:
        raise
    except Exception as error:  # foreign bytes make decoders raise nearly anything there is
        reason = "it is no such picture" if isinstance(error, OSError) else type(error).__name__
        raise UserError(f"the upload cannot be read ({reason}): {kinds}") from None
    picture = ImageOps.fit(picture, (net.size, net.size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    return Chosen(fitting(pixels, net.channels), -1, "The upload; its class is what the classifier says")


def fitting(x: Tensor, channels: int) -> Tensor:
    """An image (1, C, S, S) with so many channels: grey by Rec. 601's weights, colour by repetition, alpha opaque."""
    import torch

    if channels == 1 and x.shape[1] >= 3:
        return (x[:, :3] * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True).clamp(0, 1)
    if channels >= 3 and x.shape[1] == 1:
        x = x.repeat(1, 3, 1, 1)
    if channels == 4 and x.shape[1] == 3:
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    return x[:, :channels]
