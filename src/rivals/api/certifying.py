"""``certify``: what can be proven of a classifier under noise, and what an attack can break."""

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.evaluation import is_module, whereabouts
from rivals.api.examination import Examination
from rivals.api.sources import found, free
from rivals.base import devices
from rivals.base.errors import UserError
from rivals.base.fractions import radius as read_radius
from rivals.reports.run import Run

if TYPE_CHECKING:
    from torch import nn

    from rivals.api.models import Named
    from rivals.metrics.bracket import Bracket

    Model = nn.Module | str | os.PathLike[str] | None
    Data = Any
    Radii = str | Sequence[float]
else:
    Model = Data = str | None  # as the command line, which evaluates the signature, may name them
    Radii = str
    Bracket = Any

WIDEST = 10.0  # of sigma: images run from 0 to 1
NEAR = 1.25  # factor by which another noise may differ from sigma before it is worth a word
HOW = "name a run folder, a classifier.safetensors, torchvision:NAME or timm:NAME"


def certify(
    model: Model = None,
    data: Data = None,
    sigma: float = 0.25,
    *,
    n: int = 500,
    samples: int = 1000,
    guesses: int = 100,
    alpha: float = 0.001,
    radii: Radii = "0,0.25,0.5,0.75",
    upper: bool = True,
    draws: int = 16,
    steps: int = 20,
    split: str | None = None,
    size: int | None = None,
    crop: bool = False,
    skip_bad: bool = False,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    seed: int = 0,
    batch_size: int = 128,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Bracket:
    """Certify a classifier by randomised smoothing, and bracket what is true from above by an attack.

    The classifier is asked about each image under normal noise, again and again; what it says most often is the answer
    of the smoothed classifier, and how often it says so proves a radius in L2 within which no change can alter that
    answer (Cohen et al. 2019). Images that are not certified at a radius are attacked there (Salman et al. 2019).

    Args:
        model: A run folder or classifier.safetensors, torchvision:NAME[:WEIGHTS] or timm:NAME; in Python also a module.
        data: A data set's name, a folder of images (sub-folders are classes) or a zip; in Python also an ImageSet or
            tensors (images, labels).
        sigma: Deviation of the noise, in the unit of images in [0, 1]. It should be that of the model's training.
        n: Images to certify, drawn evenly from the data by a rule that is always the same; fewer if there are no more.
        samples: Draws of noise that bound each image's radius. More give larger radii.
        guesses: Draws that choose its class.
        alpha: Probability with which a certificate, or a fall, may be wrong.
        radii: Radii in L2 to tell of, as 0,0.25,0.5; 0 is always among them.
        upper: Attack the images that are not certified, so that the truth is known from above too.
        draws: Draws of noise that the attack sees, at each step.
        steps: Steps of the attack at each radius.
        split: train, test or all; test if none is given, or all of data that have no test split.
        size: Side to resize the images to, in pixels; what the model takes if none is given.
        crop: Crop rectangles to their central square.
        skip_bad: Leave unreadable images out instead of stopping.
        mean: What the model's normalisation takes from each channel; the model's own if none is given.
        std: What the model's normalisation divides each channel by; the model's own if none is given.
        seed: What all randomness follows from.
        batch_size: The most images in one pass; a step of the attack takes one image and all its draws.
        device: cpu, cuda, mps or another of PyTorch's; auto takes the accelerator if there is one.
        out: Folder of the run; the next free runs/DATA-certify-N if none is given, and none for a module in Python.
        resume: Go on with the run in --out where it stopped.
        quiet: Print nothing on the way.

    Returns:
        The bracket: certified accuracy and accuracy under attack at each radius. print shows it.

    Raises:
        UserError: something the user can fix.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    from rivals.api.models import find_model
    from rivals.api.pool import fill
    from rivals.api.smoothing import Certification
    from rivals.base.balls import L2
    from rivals.metrics.certification import radius as greatest_radius

    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        if not quiet:
            print(text, file=sys.stderr)

    if model is None:
        raise UserError(f"no model was named: {HOW}")
    if data is None:
        raise UserError("no data were named: give a data set's name, a folder or a zip")
    _check(sigma, alpha, {"samples": samples, "guesses": guesses, "draws": draws, "steps": steps}, batch_size)
    where = _radii(radii)
    if resume and out is None:
        raise UserError("--resume needs the run to go on with: add --out RUN")
    named_data = isinstance(data, str | Path)
    if out is None and named_data and not is_module(model):
        out = free(Path("runs"), f"{Path(data).stem}-certify")
    if out is not None and not resume:
        Run.check_free(Path(out))  # before the images are read, which may take a while
    named = find_model(model, mean=mean, std=std)
    ball = L2(where[-1])
    pool = fill(data, ball, named, n, split=split, size=size, crop=crop, skip_bad=skip_bad, note=note)
    config = {
        "model": named.name if is_module(model) else found(str(model)),
        "data": found(str(data)) if named_data else pool.about["name"],
        "sigma": float(sigma),
        "n": len(pool),
        "samples": samples,
        "guesses": guesses,
        "alpha": alpha,
        "radii": ",".join(repr(each).removesuffix(".0") for each in where),
        "upper": upper,
        "draws": draws,
        "steps": steps,
        "split": split,
        "size": size,
        "crop": crop,
        "skip_bad": skip_bad,
        "mean": list(mean),
        "std": list(std),
        "seed": seed,
        "batch_size": batch_size,
    }
    own = whereabouts(named.model) if is_module(model) else None
    place = own if own is not None and device == "auto" else devices.pick(device)
    # The caller's own model stays where it is.
    net = named.model if own == place else (named.model if own is None else copy.deepcopy(named.model)).to(place)
    _warn(named, sigma, math.prod(pool.shape), note)
    largest = greatest_radius(samples, samples, sigma, alpha)
    if where[-1] > largest:
        note(
            f"{samples:,} samples certify no radius above {largest:.4g}, whatever the model: take more for larger ones"
        )
    asked = Examination(net, named, pool, ball, where, (), config, notes, note, quiet, "certify")
    if out is None:
        return Certification(asked, None, place).play()
    run = asked.resumed(Path(out)) if resume else Run.create(out, asked.about(place))
    with run.alone():
        return Certification(asked, run, place).play()


def _check(sigma: float, alpha: float, counts: dict[str, int], batch_size: int) -> None:
    """Refuse numbers that certify nothing."""
    from rivals.metrics.certification import needed

    if not 0 < sigma <= WIDEST:
        raise UserError(
            f"a sigma of {sigma:g} cannot be: give the noise's deviation for images in [0, 1], above 0 and at most "
            f"{WIDEST:g}, as 0.25"
        )
    if not 0 < alpha < 0.5:
        raise UserError(f"an alpha of {alpha:g} certifies nothing: take a small probability, as 0.001")
    for name, count in {**counts, "batch size": batch_size}.items():
        if count < 1:
            raise UserError(f"{name} of {count} cannot work: take 1 or more")
    least = needed(alpha)
    if counts["samples"] < least:
        raise UserError(
            f"{counts['samples']} samples certify nothing at alpha {alpha:g}, even if all agree: take {least} or more "
            "(1,000 for usual radii)"
        )


def _radii(asked: str | Sequence[float]) -> list[float]:
    """The radii, rising, with 0 before them."""
    words = asked.split(",") if isinstance(asked, str) else [str(each) for each in asked]
    return sorted({0.0, *(read_radius(word, "--radii") for word in words)})


def _warn(named: Named, sigma: float, size: int, note: Callable[[str], None]) -> None:
    """Say so if the model's own file tells that it was trained under other noise, or under none."""
    from rivals.nets.wrapped import Normalised

    inside = named.model.model if isinstance(named.model, Normalised) else named.model
    about = getattr(inside, "about", None)
    if not isinstance(about, dict):
        return  # nobody knows
    hardened = about.get("hardened") or {}
    trained = about.get("sigma") or hardened.get("sigma")
    if trained:
        if not math.isclose(trained, sigma, rel_tol=1e-6):
            note(f"the model was trained under noise of sigma {trained:g}, not {sigma:g}: its radii may be small")
    elif hardened.get("method") == "noise":
        eps, norm = float(hardened["eps"]), str(hardened.get("norm"))
        spread = {"linf": eps / math.sqrt(3), "l2": eps / math.sqrt(size + 2)}.get(norm)
        if spread is None or not 1 / NEAR < spread / sigma < NEAR:
            like = "" if spread is None else f", whose deviation is {spread:.3g}"
            noise = f"even noise in {norm} {eps:.4g}{like}"
            note(f"the model was hardened by {noise}, not noise of sigma {sigma:g}: its radii may be small")
    else:
        how = f"was hardened by {hardened['method']}" if hardened.get("method") else "was trained plainly"
        note(f"the model {how}, not under noise of sigma {sigma:g}: its radii may be near 0")
