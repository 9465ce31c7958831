"""The values of ``equilibrium``: how well the discriminator separates, and what either player could still gain."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rivals.api.common.model_zoo import find_model
from rivals.api.equilibrium.discriminator_eval import (
    ProbeSet,
    pixel_entropy,
    real_threshold,
)
from rivals.api.equilibrium.game_context import GameContext
from rivals.api.equilibrium.trained_alone import EVALUATIONS, EvalSet, game_of_one, split_held_out, train_alone
from rivals.attacks.frozen_model import freeze
from rivals.attacks.input_checks import ONE_LOGIT
from rivals.base import rng
from rivals.base.errors import UserError
from rivals.base.files import write_atomically
from rivals.base.run_folder import Record
from rivals.metrics import equilibrium as measure
from rivals.metrics.mode_coverage import label_entropy
from rivals.reports import image_grid
from rivals.reports.report import write_report

FILE = "equilibrium.json"


def estimate(context: GameContext, classifier: str | None, report: Callable[[str], None]) -> Record:
    """All values. Writes ``equilibrium.json`` into the run, and its report anew.

    Args:
        context: The GAN and the held-out images.
        classifier: A classifier of the data, for the entropy of classes, or None.
        report: Receives a line before each training.
    """
    # First of all: a classifier that does not fit must not cost the training.
    by_classes, history = ([], []) if classifier is None else _class_entropy(context, classifier, report)
    values = _as_trained(context)
    report(f"training a fresh discriminator for {context.steps} steps")
    values += _fresh_discriminator(context)
    report(f"training each player alone for {context.steps} steps")
    values.append(_duality_gap(context))
    values += _pixel_entropy(context) + by_classes
    run = context.run
    result: Record = {"run": str(run.folder), "images": context.clock.images, "values": values, "history": history}
    write_atomically(run.folder / FILE, json.dumps(result, indent=2).encode() + b"\n")
    write_report([run], run.report)
    return result


def _value(name: str, value: measure.ConfidenceInterval | float, protocol: Record, **facts: Any) -> Record:
    """A record of ``equilibrium.json``."""
    known = (
        value.as_dict()
        if isinstance(value, measure.ConfidenceInterval)
        else {"value": value, "low": None, "high": None}
    )
    return {"name": name, **known, **facts, **protocol}


def _as_trained(context: GameContext) -> list[Record]:
    """What the discriminator of the game says of the generator's images: no further training."""
    player, opponent = context.game.players["discriminator"], context.game.players["generator"]
    probe_set = ProbeSet(opponent.net, context.images, context.held_out, len(context.held_out), context.seed)
    train, real, fake = probe_set.logits(player.net, opponent.net)
    protocol = context.protocol(len(real), generator="as trained", discriminator="as trained", budget="")
    n_train = {"n_train": len(train)}
    values = []
    if context.loss.unit == "probability":
        values += [
            _value(
                "D's loss", measure.cross_entropy_loss(real, fake), protocol, unit="nats", equilibrium=2 * np.log(2)
            ),
            _value("JSD bound", measure.jsd_bound(real, fake), protocol, unit="nats", equilibrium=0.0),
        ]
    level = real_threshold(context.loss)
    if level is not None:
        found = measure.balanced_accuracy(real, fake, level)
        values += [
            _value("accuracy", found, protocol, unit="share", equilibrium=0.5),
            _value("TV bound", measure.tv_bound(found), protocol, unit="share", equilibrium=0.0),
            _value("r_t", measure.overfitting_rt(train, level), protocol | n_train, unit="", equilibrium=0.0),
        ]
    values.append(
        _value("r_v", measure.overfitting_rv(train, real, fake), protocol | n_train, unit="", equilibrium=None)
    )
    protocol |= {"discriminator": "as trained, calibrated by logistic regression"}
    return values + _bounds(*measure.calibrate(real, fake), protocol)


def _bounds(real: Tensor, fake: Tensor, protocol: Record) -> list[Record]:
    found = measure.balanced_accuracy(real, fake)
    return [
        _value("JSD bound", measure.jsd_bound(real, fake), protocol, unit="nats", equilibrium=0.0),
        _value("accuracy", found, protocol, unit="share", equilibrium=0.5),
        _value("TV bound", measure.tv_bound(found), protocol, unit="share", equilibrium=0.0),
    ]


def _fresh_discriminator(context: GameContext) -> list[Record]:
    """What a freshly initialized discriminator, trained on cross-entropy, reaches against the finished generator."""
    generator = context.finished
    plain: dict[str, Any] = {"loss": "nonsaturating", "label_smoothing": 0.0}
    plain |= dict.fromkeys(("r1", "r2", "gp", "fd_r1", "fd_r2"), 0)
    if getattr(context.game.players["discriminator"].net, "uses_batch_stats", False):
        plain["discriminator_norm"] = "none"  # images must not influence each other
    selection, test = split_held_out(context, generator)
    game = game_of_one(context, context.config.changed(**plain), "discriminator", generator, None)
    net = game.players["discriminator"].net
    train_alone(
        context, game, "discriminator", lambda: -measure.cross_entropy_loss(*selection.logits(net, generator)).value
    )
    budget = f"{context.steps} steps of {context.config.batch_size}, the best of {EVALUATIONS} evaluations"
    protocol = context.protocol(len(test.real), generator="finished", discriminator="fresh", budget=budget)
    return _bounds(*test.logits(net, generator), protocol)


def _duality_gap(context: GameContext) -> Record:
    """The duality gap: what the two players could gain in sum, if each were trained further alone."""
    player, opponent = (context.game.players[name].net for name in ("discriminator", "generator"))
    selection, test = split_held_out(context, opponent)

    def value(half: EvalSet, discriminator: nn.Module, generator: nn.Module) -> Tensor:
        return measure.game_value(context.loss.discriminator, *half.logits(discriminator, generator))

    game = game_of_one(context, context.config, "discriminator", opponent, player)
    discriminator = game.players["discriminator"].net
    train_alone(context, game, "discriminator", lambda: float(value(selection, discriminator, opponent).mean()))
    game = game_of_one(context, context.config, "generator", player, opponent)
    generator = game.players["generator"].net
    train_alone(context, game, "generator", lambda: -float(value(selection, player, generator).mean()))
    gap = measure.duality_gap(value(test, discriminator, opponent), value(test, player, generator))
    budget = f"{context.steps} steps of {context.config.batch_size} each, the best of {EVALUATIONS} evaluations"
    protocol = context.protocol(
        len(test.real), generator="trained further", discriminator="trained further", budget=budget
    )
    return _value("duality gap", gap, protocol, unit=f"D's loss ({context.config.loss})", equilibrium=0.0)


def _finished_images(context: GameContext) -> Tensor:
    """As many images as there are held-out ones, uint8, of the finished generator; classes in the same shares."""
    labels = context.held_out.labels if context.finished.classes else None
    images: Tensor = context.finished.sample(
        len(context.held_out), seed=rng.derive(context.seed, "entropy") % 2**31, labels=labels
    )
    return images


def _pixel_entropy(context: GameContext) -> list[Record]:
    """The entropy of pixel values, of the generator's images and of real ones."""
    protocol = context.protocol(len(context.held_out), generator="finished", discriminator="", budget="")
    data = pixel_entropy(torch.from_numpy(context.held_out.images[:]))
    return [
        _value("pixel entropy", pixel_entropy(_finished_images(context)), protocol, unit="bits", equilibrium=data),
        _value("pixel entropy of the data", data, protocol | {"generator": ""}, unit="bits", equilibrium=data),
    ]


def _class_entropy(
    context: GameContext, classifier: str, report: Callable[[str], None]
) -> tuple[list[Record], list[Record]]:
    """The entropy of classes: of generated images, of real ones, and of the sample grids along the run."""
    named, device = find_model(classifier), context.game.device
    size, channels = context.images.size, context.images.channels
    if (named.size or size) != size or (named.channels or channels) != channels:
        raise UserError(
            f"'{named.name}' takes images of {named.size or size} px and {named.channels or channels} channels, the "
            f"run's have {size} and {channels}: give a classifier of this data"
        )
    real = torch.from_numpy(context.held_out.images[:])
    model = named.model.to(device, torch.float32)
    with freeze(model, real[:2].to(device) / 255, fold=False, warn=False) as frozen:
        if frozen.one_logit:
            report(ONE_LOGIT)

        def found(images: Tensor) -> tuple[float, float]:
            said = torch.cat([frozen.logits(block.to(device) / 255).cpu() for block in torch.split(images, 500)])
            return label_entropy(said if frozen.probabilities else said.softmax(1))

        return _class_values(context, named.name, real, found), _class_history(context, found)


def _class_values(
    context: GameContext, classifier: str, real: Tensor, found: Callable[[Tensor], tuple[float, float]]
) -> list[Record]:
    """The entropy of classes of generated images and of real ones."""
    protocol = context.protocol(len(context.held_out), generator="finished", discriminator="", budget="")
    protocol |= {"classifier": classifier}
    (varied, unsure), (data_varied, data_unsure) = found(_finished_images(context)), found(real)
    return [
        _value("class entropy", varied, protocol, unit="nats", equilibrium=data_varied),
        _value(
            "class entropy of the data", data_varied, protocol | {"generator": ""}, unit="nats", equilibrium=data_varied
        ),
        _value("class entropy of an image", unsure, protocol, unit="nats", equilibrium=data_unsure),
        _value(
            "class entropy of a real image",
            data_unsure,
            protocol | {"generator": ""},
            unit="nats",
            equilibrium=data_unsure,
        ),
    ]


def _class_history(context: GameContext, found: Callable[[Tensor], tuple[float, float]]) -> list[Record]:
    """The entropy of classes of the sample grids."""
    history = []
    for record in context.run.records():
        path = context.run.folder / record.get("sample_grid", "")
        # The grid shows RGBA images over a checkerboard, so their pixels cannot be read back.
        if "sample_grid" in record and path.is_file() and context.images.channels != 4:
            tiles = torch.from_numpy(image_grid.split_grid(path, context.config.sample_grid, context.images.size))
            overall, single = found(tiles)
            history.append({"images": record["images"], "class_entropy": overall, "class_entropy_image": single})
    return history
