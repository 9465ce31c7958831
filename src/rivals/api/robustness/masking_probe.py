"""Signs of gradient masking, looked for on a few images with small budgets before the attack begins."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rivals.api.robustness.attack_loop import AttackLoop
from rivals.api.robustness.attack_spec import is_gradient_free
from rivals.api.robustness.target import Notes
from rivals.attacks.attack_losses import cross_entropy
from rivals.attacks.autoattack import ATTACKS
from rivals.attacks.ensemble import Stage
from rivals.attacks.frozen_model import FrozenModel
from rivals.attacks.input_checks import NoGradientError
from rivals.attacks.model_rng import own_randomness
from rivals.base.devices import is_out_of_memory
from rivals.base.errors import UserError
from rivals.base.norm_balls import L0, Ball
from rivals.base.rng import derive, draw_per_image, streams
from rivals.base.run_folder import Record
from rivals.metrics import gradient_masking
from rivals.metrics.gradient_masking import Alarm, ProbeResult
from rivals.metrics.verification import predict

PROBES = 50  # images
STEPS, TRIALS, QUERIES, TARGETS = 20, 20, 100, 3  # budgets of PGD and APGD-DLR, noise, Square
SMOOTHED_STEPS, SMOOTHING = 40, 0.5  # steps of PGD on the smoothed model, and the noise it is smoothed by, in eps
POINTS, SMALL_STEPS = 8, (0.003, 0.3)  # random points per image to test the gradient at; how far to step there, in eps
ALONE = 16  # images judged one by one


def probe_masking(loop: AttackLoop, notes: Notes, probabilities: bool) -> Record:
    """What a few images tell of the model's input gradients, as the first record of an evaluation.

    Args:
        loop: The evaluation.
        notes: Receives what the user should know.
        probabilities: Whether the model seems to return probabilities instead of logits.

    Raises:
        UserError: the model fails on one image alone.
    """
    known, config, frozen = len(notes.texts), loop.config, loop.models.attacked
    forwards, backwards = frozen.forwards, frozen.backwards
    chunk = loop.read(0, min(PROBES, len(loop.target.data)))
    correct = (chunk.predicted == chunk.y).nonzero()[:, 0]
    x, y = chunk.x[correct], chunk.y[correct]
    targets = None if chunk.targets is None else chunk.targets[correct]
    record: Record = {"images": 0, "step": 0, "seconds": 0.0, "probe": {"n": len(x)}, "gradient": "usable"}
    alarms: list[Alarm] = []
    # First, because it refuses a model that fails on one image alone, which may be all that is left below.
    check_batches = config.alarms and config.batch_size > 1
    batch_alarms = _batch_alarms(loop, chunk.x[:ALONE], chunk.logits[:ALONE]) if check_batches else []
    gradient = _input_gradient(loop, x, y, targets) if len(x) else None
    if not len(x):
        notes("none of the first images is classified correctly, so gradient masking cannot be looked for")
    elif gradient is None:
        alarms.append(Alarm("no-gradient", "the model gives no gradient for its images at all"))
        record["gradient"] = "none"
    elif bool(gradient_masking.zero_gradient(gradient).all()):
        record["gradient"] = "zero"
    stages = stages_for(record["gradient"], loop.stages, loop.ball)
    names = ", ".join(stage.name for stage in stages if is_gradient_free(stage))
    if record["gradient"] == "none":
        notes(f"no image has a gradient to follow, so only gradient-free attacks are used: {names}")
    elif stages != loop.stages:
        notes(f"no image has a gradient to follow where attacks begin, so a gradient-free attack is added: {names}")
    alarms += batch_alarms
    if gradient is not None and config.alarms:
        result = _probe(loop, x, y, targets, gradient)
        record["probe"] = result.as_dict() | {"fooled_by_any": correct[result.fooled_by_any].tolist()}
        alarms += gradient_masking.find_alarms(result)
    if loop.models.votes > 1 and config.eot == 1:
        alarms.append(Alarm("randomized", "the model is randomized: two passes of one image differ"))
    if probabilities:
        alarms.append(Alarm("probabilities", "the model returns probabilities, not logits"))
    # What came up by itself counts even with --no-alarms: it costs nothing.
    record["alarms"] = [alarm.as_dict() for alarm in alarms]
    record["notes"] = notes.texts[known:]
    record["probe"] |= {"forwards": frozen.forwards - forwards, "backwards": frozen.backwards - backwards}
    return record


def stages_for(gradient: str, stages: Sequence[Stage], ball: Ball) -> tuple[Stage, ...]:
    """The stages of an ensemble that suit the model's gradient.

    Args:
        gradient: ``usable``; ``zero`` where attacks begin, which says nothing of where they pass: a gradient-free stage
            is added, if there is none; or ``none`` anywhere: only gradient-free stages are of use.
        stages: As asked for.
        ball: Its norm says which gradient-free attack there is.
    """
    free = tuple(stage for stage in stages if is_gradient_free(stage))
    if gradient == "usable" or (gradient == "zero" and free):
        return tuple(stages)
    name = _gradient_free(ball)
    added = Stage(name, ATTACKS[name])
    return (*stages, added) if gradient == "zero" else free or (added,)


def _gradient_free(ball: Ball) -> str:
    """The gradient-free attack in a norm."""
    return "sparse_rs" if isinstance(ball, L0) else "square"


def _input_gradient(loop: AttackLoop, x: Tensor, y: Tensor, targets: Tensor | None) -> Tensor | None:
    """Gradient of the cross-entropy with respect to the images; None if the model has none to give."""
    gradients = []
    try:
        with own_randomness(loop.config.seed, x.device):
            for some in torch.split(torch.arange(len(x), device=x.device), loop.config.batch_size):
                aims = None if targets is None else targets[some]
                gradients.append(_loss_and_gradient(loop.models.attacked, x[some], y[some], aims)[2])
    except NoGradientError:
        return None
    return torch.cat(gradients)


def _loss_and_gradient(
    frozen: FrozenModel, x: Tensor, y: Tensor, targets: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, the cross-entropy that an attack maximizes, and its input gradient."""
    leaf, logits = frozen.trace(x)
    with torch.enable_grad():
        values = cross_entropy(logits, y, targets)
    gradient = frozen.gradient(values, leaf)
    return logits.detach(), values.detach(), gradient


def _batch_alarms(loop: AttackLoop, x: Tensor, in_batch: Tensor) -> list[Alarm]:
    """An alarm if the logits of images (n, ...) depend on the rest of the batch that gave ``in_batch`` (n, K).

    Two passes of a randomized model differ anyway, so it is not tested.
    """
    if loop.models.votes > 1 or len(x) < 2:
        return []
    with own_randomness(derive(loop.config.seed, "judge", 0), x.device):
        try:
            alone = torch.cat([loop.models.exact.logits(image) for image in torch.split(x, 1)])
        except Exception as error:  # whatever the model's own forward raises; or its logits are not finite
            if is_out_of_memory(error):
                raise
            raise UserError(
                f"the model fails on one image alone ({type(error).__name__}: {error}), so its answers depend on the "
                "rest of the batch: let it normalize by fixed statistics"
            ) from error
    changed = int(gradient_masking.changed_by_batch(alone, in_batch).sum())
    if changed < 2:
        return []
    message = f"the rest of the batch changes the logits of {changed} of {len(x)} images"
    return [Alarm("batch-dependent", message)]


def _probe(loop: AttackLoop, x: Tensor, y: Tensor, targets: Tensor | None, gradient: Tensor) -> ProbeResult:
    seed, size, models = loop.config.seed, loop.config.batch_size, loop.models
    eps = torch.tensor(loop.radii[-1], dtype=x.dtype, device=x.device)
    ball = loop.ball.with_eps(eps)
    # Of the length of SMOOTHING eps in L2, L1 and, as if values changed by the full range, in L0; of that deviation in
    # Linf.
    sparse = isinstance(ball, L0)
    deviation = SMOOTHING * float(eps) * x[0].numel() ** (-1 / (ball.p or 1))
    frozen = models.attacked
    smoothed = FrozenModel(
        _Smoothed(frozen.run, deviation, ball.bounds), frozen.classes, folded=False, channels_last=frozen.channels_last
    )
    dlr: dict[str, Any] = {"steps": STEPS, "loss": "dlr"}
    if not sparse:
        dlr["n_targets"] = TARGETS if targets is None else 0
    budgets: dict[str, tuple[str, FrozenModel, dict[str, Any]]] = {
        gradient_masking.MULTI_STEP: ("pgd", frozen, {"steps": STEPS}),
        gradient_masking.ONE_STEP: ("fgsm", frozen, {}),
        gradient_masking.NOISE: ("noise", frozen, {"trials": TRIALS}),
        gradient_masking.GRADIENT_FREE: (_gradient_free(ball), frozen, {"queries": QUERIES}),
        gradient_masking.MARGIN: ("pgd", frozen, {"steps": STEPS, "loss": "margin"}),
        gradient_masking.DLR: ("pgd" if sparse else "apgd", frozen, dlr),
        gradient_masking.SMOOTHED: (
            "pgd",
            smoothed,
            {"steps": SMOOTHED_STEPS, "loss": "margin", "stop_when_fooled": False},
        ),
    }

    def attack(role: str, x: Tensor, y: Tensor, ball: Ball, targets: Tensor | None) -> Tensor:
        name, model, budget = budgets[role]
        x_adv: Tensor = ATTACKS[name](model, x, y, ball, **budget, targets=targets, seed=seed, batch_size=size)
        return x_adv

    def fools(x_adv: Tensor, labels: Tensor, targets: Tensor | None) -> Tensor:
        with own_randomness(derive(seed, "probe"), x.device):
            predicted, _ = predict(models.exact.logits, x_adv, batch_size=size, votes=models.votes)
        return predicted != labels if targets is None else predicted == targets

    attacks = {role: partial(attack, role) for role in budgets}
    loss_decreases = _loss_decreases(loop, x, y, targets, ball)
    result = gradient_masking.probe(x, y, targets, ball, attacks, fools, gradient, loss_decreases)
    frozen.forwards += smoothed.forwards
    frozen.backwards += smoothed.backwards
    return result


class _Smoothed(nn.Module):
    """The model with new noise on its images at each pass: along many steps, the gradient of a smoothed model.

    It sees the trend of staircases and ripples that are narrower than the noise.
    """

    def __init__(self, model: nn.Module, deviation: float, bounds: tuple[float, float]) -> None:
        super().__init__()
        self.model = model
        self.deviation = deviation
        self.bounds = bounds

    def forward(self, x: Tensor) -> Tensor:
        noisy = (x.detach() + self.deviation * torch.randn_like(x)).clamp(*self.bounds)
        logits: Tensor = self.model(x + (noisy - x).detach())  # the clipping has no part in the gradient
        return logits


def _loss_decreases(loop: AttackLoop, x: Tensor, y: Tensor, targets: Tensor | None, ball: Ball) -> Tensor:
    """For random points in the ball, whether a small step along the gradient lowers the cross-entropy (n, POINTS).

    The steps have random lengths. The points are not the images: there, units may rest at the kink of a ReLU. None
    decreases for a randomized model, whose loss goes up and down by itself.
    """
    frozen, size = loop.models.attacked, loop.config.batch_size
    loss_decreases = torch.zeros((len(x), POINTS), dtype=torch.bool, device=x.device)
    if loop.models.votes > 1:
        return loss_decreases
    for point in range(POINTS):
        for some in torch.split(torch.arange(len(x), device=x.device), size):
            images, labels, aims = x[some], y[some], None if targets is None else targets[some]
            generators = streams(images, [point] * len(some), loop.config.seed, "falls")
            at = ball.sample(images, generators)
            logits, before, gradient = _loss_and_gradient(frozen, at, labels, aims)
            # Of all orders: a ripple may be in step with any single length.
            least, most = SMALL_STEPS
            spread = draw_per_image(torch.rand, images, generators, size=())
            lengths = ball.radii(images) * least * (most / least) ** spread.to(images.dtype)
            after = cross_entropy(frozen.logits(ball.project(ball.step(at, gradient, lengths), images)), labels, aims)
            rounding = 16 * torch.finfo(logits.dtype).eps * logits.abs().amax(1)
            loss_decreases[some, point] = after < before - rounding
    return loss_decreases
