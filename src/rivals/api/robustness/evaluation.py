"""``attack`` and ``evaluate``: the robust accuracy of a classifier, with everything needed to believe it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common.resume import reserve_folder, resolve_options, source_to_resume
from rivals.api.robustness import corruption_eval, image_agnostic_eval
from rivals.api.robustness.attack_spec import check_stages, named_stages, read_attack, read_radii, write_radii
from rivals.api.robustness.defense import defend
from rivals.api.robustness.target import Notes, Target
from rivals.base import launcher
from rivals.base.errors import UserError
from rivals.base.numerics import deterministic
from rivals.base.run_folder import Resume, Run, resumes
from rivals.recipes.options import AttackConfig, DataOptions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rivals.api.robustness.image_agnostic_eval import ImageAgnostic
    from rivals.attacks.ensemble import Stage
    from rivals.base.norm_balls import Ball
    from rivals.metrics.corruption_error import CorruptionRobustness
    from rivals.metrics.robust_accuracy import Robustness


def attack(
    model: str | None = None,
    data: str | None = None,
    *,
    out: str | Path | None = None,
    resume: Resume = False,
    device: str = "auto",
    quiet: bool = False,
    **settings: Any,
) -> Any:
    """Attack a classifier and report its robust accuracy.

    Args:
        model: A run folder or classifier.safetensors, torchvision:NAME[:WEIGHTS], timm:NAME, onnx:FILE or hf:NAME.
        data: A data set's name, a folder of images (subfolders are classes) or a zip.
        out: Run folder; by default the next free runs/DATA-attack-N.
        resume: Continue the run in --out where it stopped; auto starts it if it is not there yet.
        device: cpu, cuda, mps or another device of PyTorch; auto takes the accelerator if there is one.
        quiet: Print no progress.
        **settings: Any field of :class:`rivals.AttackConfig` and :class:`rivals.DataOptions`, such as ``eps="8/255"``.

    Returns:
        The report, as :func:`evaluate` gives it.

    Raises:
        UserError: bad input, in one line.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    from rivals.api.robustness.evaluator import Evaluator
    from rivals.base.norm_balls import ball_for

    if "eps" in settings:
        settings["eps"] = write_radii(read_radii(settings["eps"]))
    processes = launcher.current()
    with processes.together():
        resume = resumes(resume, out)
        stored, (config, options) = resolve_options("attack", out, resume, settings, AttackConfig(), DataOptions())
    if stored:
        source = stored["source"]
        model, data = (
            source_to_resume(name, source[name], given) for name, given in (("model", model), ("data", data))
        )
    if model is None:
        from rivals.api.common.model_zoo import HOW

        raise UserError(f"no model was named: {HOW}")
    if data is None:
        raise UserError("no data were named: give a data set's name, a folder, a zip or shards")
    corrupted, spec = config.attack.strip() == corruption_eval.NAME, image_agnostic_eval.spec_of(config.attack)
    if config.defense and (corrupted or spec is not None):
        raise UserError(f"--defense is judged by attacks on each image, which {config.attack} is not: leave one out")
    if corrupted:
        return _under_corruptions(model, data, config, options, (out, resume), device, Notes(quiet))
    radii = read_radii(config.eps)
    ball, notes = ball_for(config.norm, radii[-1], pixels=config.pixels), Notes(quiet or not processes.first)
    if spec is not None:
        image_agnostic_eval.check_spec(spec, ball)
        return _image_agnostic(spec, ball, model, data, (config, options), (out, resume), device, notes)
    stages = read_attack(config.attack, ball)
    with processes.one_per_node_first():
        target = Target.load(model, data, ball.bounds, config, options, device=device, notes=notes)
        ball = _masked(ball, config, target)
        _check_fit(config, ball, target)
        check_stages(stages, target, ball, radii)
        stages = _transferred(stages, config, target, notes)
        if config.defense:
            target, stages = defend(target, stages, ball, config)
    target.check_alike(processes, config, stages)
    with contextlib.ExitStack() as stack:
        stack.enter_context(deterministic(config.deterministic))
        run = None
        with processes.together():
            if processes.first:
                from rivals.data.load import source_name

                folder = stack.enter_context(reserve_folder(out, f"{source_name(data)}-attack"))
                run = target.open_run("attack", folder, resume, config, options, notes, stages)
        run = Run.shared(run, processes)
        with processes.outlast_first(patient=False):
            return Evaluator(target, ball, radii, stages, config, notes, run, processes).run()


def _image_agnostic(
    spec: tuple[str, dict[str, Any]],
    ball: Ball,
    model: Any,
    data: Any,
    settings: tuple[AttackConfig, DataOptions],
    place: tuple[str | Path | None, bool],
    device: str,
    notes: Notes,
) -> ImageAgnostic:
    """``--attack patch`` or ``universal``: a run of its own kind, on one process; resumed, it starts anew."""
    from rivals.data.load import source_name

    config, options = settings
    target = Target.load(model, data, ball.bounds, config, options, device=device, notes=notes)
    ball, (out, resume) = _masked(ball, config, target), place
    with reserve_folder(out, f"{source_name(str(data))}-{spec[0]}") as folder:
        run = target.open_run("attack", folder, resume, config, options, notes)
    return image_agnostic_eval.evaluate_image_agnostic(spec, target, ball, config, notes, run)


def _under_corruptions(
    model: Any,
    data: Any,
    config: AttackConfig,
    options: DataOptions,
    place: tuple[str | Path | None, bool],
    device: str,
    notes: Notes,
) -> CorruptionRobustness:
    """``--attack corruptions``: a run of its own kind, on one process."""
    from rivals.data.load import source_name

    files = corruption_eval.CorruptedFiles.open(data) if corruption_eval.has_corrupted_files(data) else None
    given = data if files is None else files.as_images()
    target = Target.load(model, given, (0.0, 1.0), config, options, device=device, notes=notes)
    if files is not None:
        target = dataclasses.replace(target, source={**target.source, "data": str(Path(data).absolute())})
    out, resume = place
    with reserve_folder(out, f"{source_name(str(data))}-corruptions") as folder:
        run = target.open_run("attack", folder, resume, config, options, notes)
    return corruption_eval.evaluate_corruptions(target, files, config, notes, run)


def evaluate(
    model: nn.Module | str | os.PathLike[str],
    data: Any,
    ball: Ball,
    *,
    attack: str | Callable[..., Tensor] = "autoattack",
    curve: Sequence[float] = (),
    out: str | Path | None = None,
    resume: Resume = False,
    device: str = "auto",
    quiet: bool = False,
    **settings: Any,
) -> Robustness:
    """Clean and robust accuracy of a classifier, with intervals, costs, and signs of gradient masking.

    Images are attacked in chunks of four batches. In each chunk every radius, in rising order, and at it every stage of
    the attack, runs on the images that are still classified correctly: what is misclassified in a smaller ball is so in
    a larger. A success counts if the model as it was given, with nothing folded, confirms it inside ball and box.

    Args:
        model: An ``nn.Module`` from images in [0, 1] to logits, or a name as for ``rivals attack``.
        data: A name, folder or zip; a :class:`rivals.ImageSet`; a ``Dataset`` or ``DataLoader`` of PyTorch, which is
            read into memory, of pairs or of dictionaries (see :mod:`rivals.api.robustness.torch_data`); or tensors
            (images, labels), with a third for targets (n,).
        ball: The norm and the largest radius: ``Linf(8 / 255)``, ``L2(0.5)``, ``L1(12.0)``, ``L0(10)``.
        attack: Names in order, as ``"autoattack"`` or ``"pgd(steps=100),square"``, or a function
            ``(model, x, y, ball, *, seed, batch_size, targets)``.
        curve: Smaller radii to report as well.
        out: Run folder for records, adversarial examples and the report; None writes nothing.
        resume: Continue the run in ``out``.
        device: Where to work. With ``auto`` a module stays where it is.
        quiet: Print nothing.
        **settings: Any field of :class:`rivals.AttackConfig` but norm and eps, and of :class:`rivals.DataOptions`.
            ``n`` is all images by default; of tensors it takes the first. ``target``, a class by name or number, makes
            the attack targeted.

    Returns:
        The report; ``print`` shows it.

    Raises:
        UserError: bad input, in one line.
        Interrupted: stopped after saving; only with ``out``.
    """
    from rivals.api.robustness.evaluator import Evaluator
    from rivals.base.norm_balls import L0

    radii = _radii(ball, curve)
    name, stages = named_stages(attack, ball)
    if settings.get("target") is not None:
        settings["target"] = str(settings["target"])
    given = {**settings, "norm": type(ball).__name__.lower(), "eps": write_radii(radii), "attack": name}
    given |= {"pixels": True} if isinstance(ball, L0) and ball.pixels else {}
    processes = launcher.current()
    with processes.together():
        resume = resumes(resume, out)
        _, (config, options) = resolve_options("attack", out, resume, given, AttackConfig(n=None), DataOptions())
    notes = Notes(quiet or not processes.first)
    with processes.one_per_node_first():
        target = Target.load(model, data, ball.bounds, config, options, device=device, notes=notes)
        ball = _masked(ball, config, target)
        _check_fit(config, ball, target)
        check_stages(stages, target, ball, radii)
        stages = _transferred(stages, config, target, notes)
        if config.defense:
            target, stages = defend(target, stages, ball, config)
    target.check_alike(processes, config, stages)
    with deterministic(config.deterministic):
        with processes.together():
            run = target.open_run("attack", out, resume, config, options, notes, stages) if processes.first else None
        run = Run.shared(run, processes)
        with processes.outlast_first(patient=False):
            return Evaluator(target, ball, radii, stages, config, notes, run, processes).run()


def _radii(ball: Ball, curve: Sequence[float]) -> list[float]:
    from rivals.base.norm_balls import Ball

    if not isinstance(ball, Ball):
        raise UserError(f"the ball is a {type(ball).__name__}: give Linf(8 / 255), L2(0.5) or L1(12.0)")
    if getattr(ball.eps, "ndim", 0):
        raise UserError(
            "the ball's eps is a tensor: give the largest radius as a number, and the smaller ones as curve"
        )
    most = float(ball.eps)
    if most == 0:
        raise UserError("an eps of 0 leaves nothing to attack: give one above 0, such as 8/255")
    wrong = next((eps for eps in curve if not 0 <= eps <= most), None)
    if wrong is not None:
        raise UserError(f"the curve holds {wrong:g}, and the ball ends at {most:g}: give radii from 0 to that")
    return sorted({*map(float, curve), most} - {0.0})


def _transferred(stages: tuple[Stage, ...], config: AttackConfig, target: Target, notes: Notes) -> tuple[Stage, ...]:
    """The stages on the models of ``--surrogate``, if there are any."""
    if not config.surrogate:
        return stages
    from rivals.api.robustness.surrogates import through_surrogates

    notes(f"attacked through {config.surrogate}: robust accuracy under transfer, which says nothing of other attacks")
    return through_surrogates(stages, config.surrogate, target)


def _masked(ball: Ball, config: AttackConfig, target: Target) -> Ball:
    """The ball in the mask of ``--mask``, if there is one; a mask of the ball's own is kept."""
    if not config.mask:
        return ball
    from rivals.api.robustness.mask_file import read_mask

    return ball.masked(read_mask(config.mask, target.data.shape).to(target.device))


def _check_fit(config: AttackConfig, ball: Ball, target: Target) -> None:
    """Refuse radii that are not for such images or span their range, and a way to save that does not suit them."""
    import torch

    from rivals.api.robustness.adv_store import check_save
    from rivals.base.eps import describe_eps
    from rivals.metrics.gradient_masking import full_range

    shape = target.data.shape
    check_save(config.save, shape)
    one = torch.empty(1, *shape, dtype=target.dtype, device=target.device)
    ball.radii(one)
    eps = float(ball.eps)
    full = full_range(ball, one)
    if eps > full * (1 + 1e-6):
        shown = eps / 255 <= full and ball.p > 0
        hint = f": did you mean {eps:g}/255?" if shown else f": take less than {full:.4g}"
        size = " x ".join(map(str, shape))
        norm = type(ball).__name__
        text = describe_eps(f"{eps:g}", ball.scale is not None)
        raise UserError(f"an {norm} eps of {text} is wider than all images of {size} ({norm} {full:.4g}){hint}")
