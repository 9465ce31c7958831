"""The tab of attacks: an image, its adversarial example, and the predictions for both."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rivals.base.errors import UserError
from rivals.reports.html import Html, join, tag
from rivals.studio.classifier_sources import PREFIX, ClassifierSources
from rivals.studio.data_sources import DataSources
from rivals.studio.html_parts import errors_as_notices, notice, picture_figure
from rivals.studio.input_images import InputImage, input_image, uploaded_image
from rivals.studio.run_store import RunStore

if TYPE_CHECKING:
    from torch import Tensor

    from rivals.api.common.model_zoo import NamedModel

# The slider of eps for each norm: largest value, default, step, label.
NORMS = {"Linf": (128, 8, 1, "eps in 1/255"), "L2": (5.0, 0.5, 0.05, "eps"), "L1": (50.0, 5.0, 0.5, "eps")}
STEPS = 20  # of PGD
MAX_GENERATORS = 2  # beside PGD
EXAMPLE = "torchvision:resnet18"  # of a model by name
TOP_CLASSES = 5  # whose probability is shown


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


@errors_as_notices
def attack_results(classifiers: ClassifierSources, sources: DataSources, controls: AttackControls) -> Html:
    """An image under attack, by PGD and by the generators that fit: clean, the change, attacked, and the predictions.

    Args:
        classifiers: Those that may be attacked.
        sources: The data that may be read.
        controls: The state of the tab.
    """
    norm, upload = controls.norm, controls.upload
    names = [name for name in dict.fromkeys((controls.model, controls.other)) if name]
    if not names:
        return notice("Choose a classifier, or load a model of torchvision or timm by its name.")
    parts = []
    for name in names:
        net = classifiers.load(name)
        image = uploaded_image(net, upload) if upload else input_image(net, sources, controls.data, controls.index)
        eps = slider_eps(norm, controls.slider)
        parts.append(tag("section", tag("h4", name.removeprefix(PREFIX)), _result(net, image, norm, eps)))
        for found, generator in matching_generators(classifiers.store, net):
            title = tag("h4", f"{name}, by {found}")
            parts.append(tag("section", title, _result(net, image, norm, eps, generator)))
    return tag("div", *parts, class_="columns")


def matching_generators(store: RunStore, net: NamedModel) -> list[tuple[str, Any]]:
    """The generators of ``rivals train --against`` that perturb images of a classifier, with their names: a few."""
    found = ((name, store.network(name, "perturber")) for name in store.networks("perturber"))
    shape, classes = (net.size, net.channels), getattr(net.model, "classes", len(net.classes))
    fit = [(n, g) for n, g in found if (g.size, g.channels) == shape and g.classes in (0, classes)]
    return fit[:MAX_GENERATORS]


def _result(named: NamedModel, image: InputImage, norm: str, eps: float, generator: Any = None) -> Html:
    import torch

    net, start = named.model, time.perf_counter()
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
    factor = f"The change × {1 / (2 * largest):.2g}" if largest else "No change"
    pictures = [
        _picture(image.x, "the image", image.caption),
        _picture(magnified, "the change", factor),
        _picture(x_adv, "the attacked image", "The attacked image"),
    ]
    names = list(named.classes) if len(named.classes) == len(clean) else [str(i) for i in range(len(clean))]
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
        tag("div", *pictures, class_="trio", style=f"--w: {image.x.shape[-1]}"),
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
    return picture_figure(image_grid.make_grid(pixels, scale=1), alt, caption)


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
