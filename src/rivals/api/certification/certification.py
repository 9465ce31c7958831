"""``certify``: randomized smoothing or bounds certify images, and an attack bounds robust accuracy from above."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common.resume import reserve_folder, resolve_options, source_to_resume
from rivals.api.robustness.target import Notes, Target
from rivals.base import launcher
from rivals.base.eps import parse_eps
from rivals.base.errors import UserError
from rivals.base.numerics import deterministic
from rivals.base.run_folder import Resume, Run, resumes
from rivals.recipes.base import flag
from rivals.recipes.options import CERTIFICATES, CertifyConfig, DataOptions

if TYPE_CHECKING:
    from torch import nn

    from rivals.api.certification.image_loop import ImageLoop
    from rivals.api.common.model_zoo import NamedModel
    from rivals.base.norm_balls import Ball
    from rivals.base.process_group import ProcessGroup
    from rivals.metrics.bracket import Bracket
    from rivals.metrics.certified_curve import CertifiedRobustness
    from rivals.metrics.property_result import PropertyResult

    Model = nn.Module | str | os.PathLike[str] | None
    Data = Any
else:
    Model = Data = str | None  # as the command line, which evaluates the signature, may name them
    CertifiedRobustness = Bracket = Ball = PropertyResult = Any

NEAR = 1.25  # factor by which the training noise may differ from sigma without a note


def certify(
    model: Model = None,
    data: Data = None,
    ball: Ball | None = None,
    *,
    out: str | Path | None = None,
    resume: Resume = False,
    device: str = "auto",
    quiet: bool = False,
    **settings: Any,
) -> CertifiedRobustness | Bracket | PropertyResult:
    """Certify a classifier by randomized smoothing or by bounds, with an upper bound by an attack.

    By bounds (``--method`` ibp, crown-ibp, crown, alpha-crown or beta-crown): each image whose logits provably keep
    their order in the whole ball is certified, and the others are attacked. So each is certified, broken or open.

    By smoothing: the classifier is evaluated on many noisy copies of each image. The class that most of them get is the
    prediction of the smoothed classifier, and how often they get it gives an L2 radius within which no perturbation can
    change that prediction (Cohen et al. 2019). Images that are not certified at a radius are attacked there (Salman et
    al. 2019).

    Args:
        model: A run folder or classifier.safetensors, torchvision:NAME[:WEIGHTS], timm:NAME, onnx:FILE or hf:NAME; in
            Python also a module. Or, as FILE.onnx, an ONNX file of which the property in a .vnnlib file, named as the
            data, is checked: sat with a counterexample, unsat or unknown.
        data: A data set's name, a folder of images (subfolders are classes) or a zip; in Python also an ImageSet or
            tensors (images, labels).
        ball: The ball of bounds, such as Linf(8 / 255), in Python; it replaces the settings norm and eps.
        out: Run folder; by default the next free runs/DATA-certify-N, and none for a module in Python.
        resume: Continue the run in --out where it stopped; auto starts it if it is not there yet.
        device: cpu, cuda, mps or another device of PyTorch; auto takes the accelerator if there is one.
        quiet: Print no progress.
        **settings: Any field of :class:`rivals.CertifyConfig` and :class:`rivals.DataOptions`, such as ``sigma=0.5``.

    Returns:
        Certified accuracy and accuracy under attack, for smoothing at each radius; ``print`` shows it.

    Raises:
        UserError: bad input, in one line.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    if not isinstance(settings.get("radii", ""), str):  # in Python also numbers
        settings["radii"] = ",".join(map(str, settings["radii"]))
    if ball is not None:
        from rivals.api.common.ball_settings import ball_settings

        settings |= ball_settings(ball, "certificates")
    elif isinstance(settings.get("eps", ""), int | float):
        settings["eps"] = repr(float(settings["eps"]))
    if _names_property(model):
        return _check_property(str(model), data, out, settings)
    processes = launcher.current()
    with processes.together():
        resume = resumes(resume, out)
        stored, (config, options) = resolve_options("certify", out, resume, settings, CertifyConfig(), DataOptions())
    if stored and model is None:
        model = source_to_resume("model", stored["source"]["model"], None)
    if stored and data is None:
        data = source_to_resume("data", stored["source"]["data"], None)
    if model is None:
        from rivals.api.common.model_zoo import HOW

        raise UserError(f"no model was named: {HOW}")
    if data is None:
        raise UserError("no data were named: give a data set's name, a folder, a zip or shards")
    plan = (_Smoothing if config.method == "smoothing" else _Bounds)(config)
    notes = Notes(quiet or not processes.first)
    with processes.one_per_node_first():
        target = Target.load(model, data, plan.ball.bounds, config, options, device=device, notes=notes)
    target.check_alike(processes, config)
    plan.warn(target, notes)
    with contextlib.ExitStack() as stack:
        stack.enter_context(deterministic(config.deterministic))
        run = None
        with processes.together():
            if processes.first:
                if out is None and isinstance(data, str | Path) and isinstance(model, str | os.PathLike):
                    from rivals.data.load import source_name

                    out = stack.enter_context(reserve_folder(None, f"{source_name(data)}-certify"))
                run = target.open_run("certify", out, resume, config, options, notes)
        run = Run.shared(run, processes)
        with processes.outlast_first(patient=False):
            result: CertifiedRobustness | Bracket = plan.loop(target, notes, run, processes).run()
            return result


def _names_property(model: Any) -> bool:
    """Whether an ONNX file is named, of which properties can be checked; ``onnx:FILE`` names a classifier."""
    from rivals.api.certification.properties import is_onnx

    return isinstance(model, str | os.PathLike) and is_onnx(model) and not str(model).startswith("onnx:")


def _check_property(network: str, data: Any, out: Any, settings: Mapping[str, Any]) -> PropertyResult:
    """Check one property of an ONNX file.

    Raises:
        UserError: there is none, or a setting has no meaning for it.
    """
    from rivals.api.certification.properties import check_property

    if not isinstance(data, str | os.PathLike) or not str(data).endswith((".vnnlib", ".vnnlib.gz")):
        raise UserError(f"'{network}' is an ONNX file, of which a property can be proven: name a .vnnlib file after it")
    config = CertifyConfig(method="alpha-crown").changed(**{"method": "alpha-crown", **settings})
    for name in ("out", *settings):
        if name not in ("method", "seed", "out") or (name == "out" and out is not None):
            raise UserError(f"{flag(name)} has no meaning for a property, which names its inputs: leave it out")
    if config.method == "smoothing":
        bounds = ", ".join(method for method in CERTIFICATES if method != "smoothing")
        raise UserError(f"smoothing certifies no property: take a --method of {bounds}")
    return check_property(network, str(data), config.method, config.seed)


class _Smoothing:
    """Randomized smoothing.

    Raises:
        UserError: the samples certify nothing.
    """

    def __init__(self, config: CertifyConfig) -> None:
        from rivals.base.norm_balls import L2

        _check_samples(config)
        self.config, self.radii = config, _radii(config.radii)
        self.ball: Ball = L2(self.radii[-1])

    def warn(self, target: Target, notes: Notes) -> None:
        """Note what makes the radii small."""
        from rivals.metrics.randomized_smoothing import certified_radius

        config = self.config
        _warn(target.named, config.sigma, math.prod(target.data.shape), notes)
        largest = certified_radius(config.samples, config.samples, config.sigma, config.alpha)
        if self.radii[-1] > largest:
            notes(
                f"{config.samples:,} samples certify no radius above {largest:.4g}, whatever the model: take more for "
                "larger ones"
            )

    def loop(self, target: Target, notes: Notes, run: Run | None, processes: ProcessGroup) -> ImageLoop[Any]:
        """The loop over the images."""
        from rivals.api.certification.smoothing_loop import SmoothingLoop

        return SmoothingLoop(target, self.ball, self.config, notes, run, processes, self.radii)


class _Bounds:
    """Bounds through the network.

    Raises:
        UserError: no radius was given, or the attack cannot work.
    """

    def __init__(self, config: CertifyConfig) -> None:
        from rivals.api.robustness.attack_spec import read_attack
        from rivals.base.norm_balls import ball_for

        if not config.eps:
            raise UserError(f"--method {config.method} needs a radius: add --eps, in the unit of images in [0, 1]")
        self.config = config
        self.ball: Ball = ball_for(config.norm, parse_eps(config.eps))
        self.stages = read_attack(config.attack, self.ball) if config.upper else ()

    def warn(self, target: Target, notes: Notes) -> None:
        """Nothing: bounds show by themselves whether they are loose."""

    def loop(self, target: Target, notes: Notes, run: Run | None, processes: ProcessGroup) -> ImageLoop[Any]:
        """The loop over the images."""
        from rivals.api.certification.bounds_loop import BoundsLoop

        return BoundsLoop(target, self.ball, self.config, notes, run, processes, self.stages)


def _check_samples(config: CertifyConfig) -> None:
    """Refuse numbers of samples that certify nothing."""
    from rivals.metrics.randomized_smoothing import min_samples

    least = min_samples(config.alpha)
    if config.samples < least:
        raise UserError(
            f"{config.samples} samples certify nothing at alpha {config.alpha:g}, even if all agree: take {least} or "
            "more (1,000 for usual radii)"
        )


def _radii(text: str) -> list[float]:
    """The radii, rising, with 0 before them."""
    return sorted({0.0, *(parse_eps(word, "--radii") for word in text.split(","))})


def _warn(named: NamedModel, sigma: float, size: int, note: Callable[[str], None]) -> None:
    """Say so if the model's own file tells that it was trained under other noise, or under none."""
    from rivals.nets.wrappers import NormalizedModel

    inside = named.model.model if isinstance(named.model, NormalizedModel) else named.model
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
