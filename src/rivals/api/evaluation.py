"""``evaluate`` and ``attack``: how a classifier fares under attack, with everything needed to believe the number."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rivals.api.orders import named_parts, read_radii, write_radii
from rivals.api.sources import found, free
from rivals.base import devices
from rivals.base.errors import UserError
from rivals.base.registry import unknown
from rivals.reports.run import Run

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from rivals.base.balls import Ball
    from rivals.metrics.robustness import Robustness

SAVES = ("npz", "png", "none")


def attack(
    model: str | None = None,
    data: str | None = None,
    *,
    norm: Literal["linf", "l2", "l1"] = "linf",
    eps: str = "8/255",
    attack: str = "autoattack",
    n: int = 1000,
    split: str | None = None,
    size: int | None = None,
    crop: bool = False,
    skip_bad: bool = False,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    eot: int = 1,
    alarms: bool = True,
    compiled: bool = False,
    save: Literal["npz", "png", "none"] = "npz",
    seed: int = 0,
    batch_size: int = 128,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Any:
    """Attack a classifier, and say how many images stand.

    Args:
        model: A run folder or classifier.safetensors, torchvision:NAME[:WEIGHTS] or timm:NAME.
        data: A data set's name, a folder of images (sub-folders are classes) or a zip.
        norm: Norm of the ball around each image.
        eps: Radius in the unit of images in [0, 1], as 8/255; several, as 0,1/255,2/255, trace a curve.
        attack: One or several in order, as fgsm, pgd(steps=100,restarts=5) or apgd,square; autoattack is the standard.
        n: Images to attack, drawn evenly from the data by a rule that is always the same; fewer if there are no more.
        split: train, test or all; test if none is given, or all of data that have no test split.
        size: Side to resize the images to, in pixels; what the model takes if none is given.
        crop: Crop rectangles to their central square.
        skip_bad: Leave unreadable images out instead of stopping.
        mean: What the model's normalisation takes from each channel; the model's own if none is given.
        std: What the model's normalisation divides each channel by; the model's own if none is given.
        eot: Draws to average a randomised model over.
        alarms: Look for signs of gradient masking first.
        compiled: Compile the model first, which pays on an accelerator and in long attacks.
        save: Keep adversarial images as one npz file, as png pictures, or none.
        seed: What all randomness follows from.
        batch_size: The most images in one pass.
        device: cpu, cuda, mps or another of PyTorch's; auto takes the accelerator if there is one.
        out: Folder of the run; the next free runs/DATA-attack-N if none is given.
        resume: Go on with the run in --out where it stopped.
        quiet: Print nothing on the way.

    Returns:
        The report, as :func:`evaluate` gives it.

    Raises:
        UserError: something the user can fix.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    from rivals.base.balls import L1, L2, Linf

    if model is None:
        raise UserError(
            "no model was named: give a run folder, a classifier.safetensors, torchvision:NAME or timm:NAME"
        )
    if data is None:
        raise UserError("no data were named: give a data set's name, a folder or a zip")
    kinds: dict[str, type[Ball]] = {"linf": Linf, "l2": L2, "l1": L1}
    if norm not in kinds:
        raise unknown("norm", norm, kinds)
    radii = read_radii(eps)
    if out is None and not resume:
        out = free(Path("runs"), f"{Path(data).stem}-attack")
    return evaluate(
        *(model, data, kinds[norm](radii[-1])),
        attack=attack,
        curve=radii[:-1],
        n=n,
        split=split,
        size=size,
        crop=crop,
        skip_bad=skip_bad,
        mean=mean,
        std=std,
        eot=eot,
        alarms=alarms,
        compiled=compiled,
        save=save,
        seed=seed,
        batch_size=batch_size,
        device=device,
        out=out,
        resume=resume,
        quiet=quiet,
    )


def evaluate(
    model: nn.Module | str | os.PathLike[str],
    data: Any,
    ball: Ball,
    *,
    attack: str | Callable[..., Tensor] = "autoattack",
    curve: Sequence[float] = (),
    n: int | None = None,
    split: str | None = None,
    size: int | None = None,
    crop: bool = False,
    skip_bad: bool = False,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    eot: int = 1,
    alarms: bool = True,
    compiled: bool = False,
    save: Literal["npz", "png", "none"] = "npz",
    seed: int = 0,
    batch_size: int = 128,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Robustness:
    """Clean and robust accuracy of a classifier, with intervals, costs, and signs that they mislead.

    Images are worked through in chunks of four batches. In each chunk every radius, in rising order, and at it every
    part of the attack, is faced by the images still standing only: one that fell to a smaller ball has fallen to a
    larger. What an attack claims counts if the model as it was given, unfolded, confirms it inside ball and box.

    Args:
        model: An ``nn.Module`` from images in [0, 1] to logits, or a name: see :func:`~rivals.api.models.find_model`.
        data: A name, folder or zip; a :class:`~rivals.data.imageset.ImageSet`; or tensors (images, labels).
        ball: The norm and the largest radius: ``Linf(8 / 255)``, ``L2(0.5)``, ``L1(12.0)``.
        attack: Names in order, as ``"autoattack"`` or ``"pgd(steps=100),square"``, or a function
            ``(model, x, y, ball, *, seed, batch_size, targets)``.
        curve: Smaller radii to tell of on the way.
        n: How many images; all if None. Of named data and image sets it takes the first of one fixed permutation,
            whatever the seed; of tensors the first.
        split: train, test or all; if None test, or all of data that have no test split.
        size: Side to resize images to; what the model takes if None.
        crop: Crop rectangles to their central square.
        skip_bad: Leave unreadable images out.
        mean: What to take from each channel before the model; the model's own if empty.
        std: What to divide each channel by; the model's own if empty.
        eot: Average the logits of a randomised model over this many draws.
        alarms: Look for signs of gradient masking, on 50 images with small budgets.
        compiled: Attack a model made by ``torch.compile``; the judge asks the one that was given.
        save: What to keep of adversarial images in the run folder.
        seed: Of everything random.
        batch_size: The most images in one pass.
        device: Where to work. A module stays where it is if ``auto``.
        out: Run folder for records, adversarial images and the page; None keeps nothing.
        resume: Go on with the run in ``out``.
        quiet: Print nothing.

    Returns:
        The report; ``print`` shows it.

    Raises:
        UserError: bad input, in one line.
        Interrupted: stopped after saving; only with ``out``.
    """
    from rivals.api.examination import Examination
    from rivals.api.models import find_model
    from rivals.api.pool import fill
    from rivals.api.trophies import check_save

    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if not quiet:
            print(text, file=sys.stderr)

    radii = _radii(ball, curve)
    name, parts = named_parts(attack, ball)
    if eot < 1 or batch_size < 1:
        what, value = ("--eot", eot) if eot < 1 else ("a batch size", batch_size)
        raise UserError(f"{what} of {value} cannot work: take 1 or more")
    if save not in SAVES:
        raise unknown("way to save", save, SAVES)
    if resume and out is None:
        raise UserError("--resume needs the run to go on with: add --out RUN")
    if out is not None and not resume:
        Run.check_free(Path(out))  # before the images are read, which may take a while
    named = find_model(model, mean=mean, std=std)
    pool = fill(data, ball, named, n, split=split, size=size, crop=crop, skip_bad=skip_bad, note=note)
    check_save(save, pool.shape)
    _check_size(ball, radii[-1], pool.shape)
    config = {
        "model": named.name if is_module(model) else found(str(model)),
        "data": found(str(data)) if isinstance(data, str | Path) else pool.about["name"],
        "norm": type(ball).__name__.lower(),
        "eps": write_radii(radii),
        "attack": name,
        "n": len(pool),
        "split": split,
        "size": size,
        "crop": crop,
        "skip_bad": skip_bad,
        "mean": list(mean),
        "std": list(std),
        "eot": eot,
        "alarms": alarms,
        "compiled": compiled,
        "save": save,
        "seed": seed,
        "batch_size": batch_size,
    }
    own = whereabouts(named.model) if is_module(model) else None
    place = own if own is not None and device == "auto" else devices.pick(device)
    # The caller's own model stays where it is.
    net = named.model if own == place else (named.model if own is None else copy.deepcopy(named.model)).to(place)
    examination = Examination(net, named, pool, ball, radii, parts, config, notes, note, quiet)
    if out is None:
        return examination.run(None, place)
    run = examination.resumed(Path(out)) if resume else Run.create(out, examination.about(place))
    with run.alone():
        return examination.run(run, place)


def _radii(ball: Ball, curve: Sequence[float]) -> list[float]:
    from rivals.base.balls import Ball

    if not isinstance(ball, Ball):
        raise UserError(f"the ball is a {type(ball).__name__}: give Linf(8 / 255), L2(0.5) or L1(12.0)")
    if getattr(ball.eps, "ndim", 0):
        raise UserError(
            "the ball's eps is a tensor: give the largest radius as a number, and the smaller ones as curve"
        )
    most = float(ball.eps)
    if most == 0:
        raise UserError("an eps of 0 leaves nothing to attack: give one above 0, as 8/255")
    wrong = next((eps for eps in curve if not 0 <= eps <= most), None)
    if wrong is not None:
        raise UserError(f"the curve holds {wrong:g}, and the ball ends at {most:g}: give radii from 0 to that")
    return sorted({*map(float, curve), most} - {0.0})


def _check_size(ball: Ball, eps: float, shape: tuple[int, ...]) -> None:
    """Refuse a radius that reaches across the whole range of images."""
    import torch

    from rivals.metrics.masking import whole_range

    whole = whole_range(ball, torch.empty(1, *shape))
    if eps > whole * (1 + 1e-6):
        hint = f": did you mean {eps:g}/255?" if eps / 255 <= whole else f": take less than {whole:.4g}"
        size = " x ".join(map(str, shape))
        norm = type(ball).__name__
        raise UserError(f"an {norm} eps of {eps:g} is wider than all images of {size} ({norm} {whole:.4g}){hint}")


def is_module(model: Any) -> bool:
    """Whether it is a module that was given, not the name of one."""
    return not isinstance(model, str | os.PathLike)


def whereabouts(model: nn.Module) -> torch.device:
    """Where a model lives."""
    import torch

    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
