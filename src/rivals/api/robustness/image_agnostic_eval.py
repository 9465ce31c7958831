"""``--attack patch`` and ``--attack universal``: one picture for all images, learned on half of them, for the rest."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.robustness.attack_spec import read_options, rehearse
from rivals.api.robustness.target import Notes, Target
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Run
from rivals.metrics.proportion import Proportion
from rivals.recipes.options import AttackConfig

if TYPE_CHECKING:
    from torch import Tensor

    from rivals.attacks.patch import Placement
    from rivals.base.norm_balls import Ball

MM_PER_INCH = 25.4
Apply = Callable[["Tensor", "Tensor", int], "Tensor"]  # images, picture, number of the batch -> changed images


@dataclass(frozen=True)
class ImageAgnostic:
    """The result of a patch or a universal perturbation. ``print`` it, or take :meth:`as_dict`.

    Attributes:
        name: ``patch`` or ``universal``.
        clean: Clean accuracy on the images that it is evaluated on.
        attacked: Accuracy with the picture on them.
        control: Accuracy with a random one in its place: what any patch, or noise of that size, does.
        reached: In a targeted attack, how many are classified as the target; else None.
        learned_on: On how many other images it was learned.
        picture: The file it is saved in, if there is a run folder.
        notes: What the reader should know.
        protocol: How the numbers were made.
        seconds: Time spent.
        run: The run folder, if there is one.
    """

    name: str
    clean: Proportion
    attacked: Proportion
    control: Proportion
    reached: Proportion | None
    learned_on: int
    picture: str | None
    notes: tuple[str, ...]
    protocol: Record
    seconds: float
    run: str | None = None

    def as_dict(self) -> Record:
        """As plain values, as ``--json`` prints them and ``run.json`` stores them."""
        parts = {key: None if (each := getattr(self, key)) is None else each.as_dict() for key in _PARTS}
        rest = {key: value for key, value in asdict(self).items() if key not in _PARTS and key != "run"}
        return {**parts, **rest, "notes": list(self.notes), **({} if self.run is None else {"run": self.run})}

    def __str__(self) -> str:
        lines = [
            f"{self.protocol['attack']}, learned on {self.learned_on:,} images, evaluated on {self.clean.of:,} others",
            f"clean accuracy     {self.clean}",
            f"with a random one  {self.control}",
            f"attacked           {self.attacked}",
        ]
        lines += [] if self.reached is None else [f"seen as the target {self.reached}"]
        lines += [] if self.picture is None else [f"picture            {self.picture}"]
        lines += [f"note               {note}" for note in self.notes]
        return "\n".join(lines if self.run is None else [*lines, f"run                {self.run}"])


_PARTS = ("clean", "attacked", "control", "reached")


def _patch(
    *,
    steps: int = 200,
    step_size: float = 0.05,
    smallest: float = 0.25,
    largest: float = 0.4,
    turn: float = 20.0,
    side: int = 0,
    mm: float = 50.0,
) -> Tensor:
    """The options of ``patch`` on the command line."""
    raise NotImplementedError


def _universal(*, steps: int = 200, step_size: float = 0.1) -> Tensor:
    """The options of ``universal`` on the command line."""
    raise NotImplementedError


_OPTIONS: dict[str, Callable[..., Any]] = {"patch": _patch, "universal": _universal}


def spec_of(attack: str) -> tuple[str, dict[str, Any]] | None:
    """The name and the options if text asks for one of these attacks; None if it does not.

    Raises:
        UserError: it has no such option, or not with such a value.
    """
    match = re.fullmatch(r"\s*(patch|universal)\s*(?:\((.*)\))?\s*", attack)
    if not match:
        return None
    name = match[1]
    options = read_options(name, _OPTIONS[name], match[2]) if match[2] else {}
    if not options.get("mm", 1.0) > 0:
        raise UserError(f"mm of {options['mm']:g} cannot work: give the side of the printed patch, above 0")
    return name, options


def check_spec(spec: tuple[str, dict[str, Any]], ball: Ball) -> None:
    """Refuse options that cannot work, and norms that it has no algorithm for, before a run begins.

    Raises:
        UserError: there is one.
    """
    learn, _ = _learner(spec)
    if spec[0] == "universal":
        rehearse(learn, ball)
    else:
        rehearse(lambda model, x, y, ball, **options: learn(model, x, y, **options), ball)


def _learner(spec: tuple[str, dict[str, Any]]) -> tuple[Callable[..., Tensor], Placement]:
    """What learns the picture, with its options; and how a patch is put on images."""
    from functools import partial

    from rivals.attacks.patch import Placement, adversarial_patch
    from rivals.attacks.universal import universal_perturbation

    name, options = spec
    placement = Placement(**{key: options[key] for key in ("smallest", "largest", "turn") if key in options})
    if name == "universal":
        return partial(universal_perturbation, **options), placement
    rest = {key: value for key, value in options.items() if key in ("steps", "step_size")}
    return partial(adversarial_patch, placement=placement, side=options.get("side") or None, **rest), placement


def evaluate_image_agnostic(
    spec: tuple[str, dict[str, Any]], target: Target, ball: Ball, config: AttackConfig, notes: Notes, folder: Run | None
) -> ImageAgnostic:
    """Learn a picture on the first half of the images, and evaluate it on the others.

    Raises:
        UserError: the model and the images do not fit each other, or there are fewer than two images.
    """
    import torch

    from rivals.attacks.frozen_model import freeze
    from rivals.reports.report import write_report

    name, options = spec
    n, begun = len(target.data), time.perf_counter()
    if n < 2:
        raise UserError(f"{name} needs images to learn on and others: give 2 or more")
    half = n // 2
    x, y = target.images(0, half), torch.from_numpy(target.data.labels[:half]).to(target.device)
    targets = None
    if target.data.targets is not None:
        targets = torch.from_numpy(target.data.targets).to(target.device)
    learn: dict[str, Any] = {
        "targets": None if targets is None else targets[:half],
        "seed": config.seed,
        "batch_size": config.batch_size,
    }
    picture, control, apply = _make(spec, target, ball, x, y, learn)
    with freeze(target.model, x[:2], fold=False, warn=False) as frozen:
        target.check_classes(frozen.classes, notes)
        counts = {"clean": 0, "attacked": 0, "control": 0, "reached": 0}
        for number, start in enumerate(range(half, n, config.batch_size)):
            stop = min(start + config.batch_size, n)
            some = target.images(start, stop)
            labels = torch.from_numpy(target.data.labels[start:stop]).to(target.device)
            seen = {
                key: frozen.logits(each).argmax(1)
                for key, each in (
                    ("clean", some),
                    ("attacked", apply(some, picture, number)),
                    ("control", apply(some, control, number)),
                )
            }
            for key, predicted in seen.items():
                counts[key] += int((predicted == labels).sum())
            if targets is not None:
                counts["reached"] += int((seen["attacked"] == targets[start:stop]).sum())
    of = n - half
    saved = None if folder is None else _save(name, picture, ball, options.get("mm", 50.0), folder.folder)
    protocol = {"attack": config.attack, "target": config.target, "seed": config.seed, **target.protocol()}
    if name == "universal":
        protocol |= {"norm": type(ball).__name__, "eps": float(ball.eps)}
    report = ImageAgnostic(
        name=name,
        clean=Proportion(counts["clean"], of),
        attacked=Proportion(counts["attacked"], of),
        control=Proportion(counts["control"], of),
        reached=None if targets is None else Proportion(counts["reached"], of),
        learned_on=half,
        picture=None if saved is None else str(saved),
        notes=tuple(dict.fromkeys(notes.texts)),
        protocol=protocol,
        seconds=round(time.perf_counter() - begun, 3),
        run=None if folder is None else str(folder.folder),
    )
    if folder is not None:
        folder.append([{"step": 1, "images": n, "seconds": report.seconds, **counts, "n": of}])
        folder.update(state="finished", images=n, step=1, seconds=report.seconds, alarms=[], results=report.as_dict())
        write_report([folder], folder.report)
    return report


def _make(
    spec: tuple[str, dict[str, Any]], target: Target, ball: Ball, x: Tensor, y: Tensor, learn: dict[str, Any]
) -> tuple[Tensor, Tensor, Apply]:
    """The picture, a random one, and how to put either on images."""
    import torch

    from rivals.attacks.patch import apply_patch
    from rivals.attacks.universal import centered
    from rivals.base.rng import generator

    learner, placement = _learner(spec)
    seed = learn["seed"]
    if spec[0] == "universal":
        delta = learner(target.model, x, y, ball, **learn)
        random = centered(ball).sample_sphere(torch.zeros_like(delta), [generator(seed, "control")])
        return delta, random, lambda some, each, number: (some + each).clamp(*ball.bounds)
    patch = learner(target.model, x, y, **learn)
    noise = torch.rand(patch.shape, generator=generator(seed, "control"), dtype=patch.dtype).to(patch.device)

    def apply(some: Tensor, each: Tensor, number: int) -> Tensor:
        return apply_patch(some, each, placement, placement.draw(len(some), generator(seed, "place", number)))

    return patch, noise, apply


def _save(name: str, picture: Tensor, ball: Ball, mm: float, folder: Path) -> Path:
    """The picture as a PNG: a patch with the resolution that makes it ``mm`` wide in print; a perturbation enlarged."""
    import numpy as np
    from PIL import Image

    pixels = picture.detach().cpu().float()
    if name == "universal":  # from -max..max to 0..1: gray is no change
        pixels = pixels[0] / pixels.abs().max().clamp_min(1e-12) / 2 + 0.5
    image = (pixels * 255).round().clamp(0, 255).byte().numpy()
    made = Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))
    path = folder / f"{name}.png"
    dpi = made.width / (mm / MM_PER_INCH)
    options: dict[str, Any] = {"dpi": (dpi, dpi)} if name == "patch" else {}
    made.save(path, **options)
    return path
