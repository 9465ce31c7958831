"""A trained GAN with held-out images: what every value of ``equilibrium`` is computed from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rivals import recipes
from rivals.api.common.game_factory import build_game
from rivals.api.common.network_io import load
from rivals.api.common.resume import TrainingInfo, check_images, load_images, note_printer, source_to_resume
from rivals.api.equilibrium.discriminator_eval import MIN_IMAGES, held_out_images
from rivals.base import devices, rng
from rivals.base.errors import UserError
from rivals.base.run_folder import Record, Run
from rivals.base.schedules import Clock
from rivals.data.classes import match_classes
from rivals.data.load import evaluation_split
from rivals.data.splits import subset
from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Game
from rivals.losses.gan import GanLoss, make_loss
from rivals.recipes.base import restored
from rivals.recipes.options import EquilibriumConfig

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet

BLOCK = 1000  # images hashed at a time


@dataclass(frozen=True)
class GameContext:
    """A GAN at its last checkpoint, the generator that the run saved, and held-out images.

    Attributes:
        run: Its folder.
        config: Its settings.
        loss: Its loss.
        game: The players at the last checkpoint.
        finished: The generator that the run saved.
        images: The training images.
        held_out: Images that the players were not trained on.
        left_out: How many images were not taken, since the players were trained on them.
        seed: Of everything random.
        steps: Training budget of a player that is trained alone.
    """

    run: Run
    config: recipes.Config
    loss: GanLoss
    game: Game
    finished: Any
    images: ImageSet
    held_out: ImageSet
    left_out: int
    seed: int
    steps: int

    @property
    def clock(self) -> Clock:
        """How far the run has come."""
        info = self.run.info
        return Clock(int(info.get("images", 0)), float(info.get("seconds", 0)))

    def protocol(self, n: int, **facts: Any) -> Record:
        """The protocol of a value."""
        return {
            "n_real": n,
            "n_fake": n,
            "split": f"{self.held_out.name} {self.held_out.split}",
            "seed": self.seed,
            **({"left_out": self.left_out} if self.left_out else {}),
            **facts,
        }


def load_context(
    run: Run, settings: EquilibriumConfig, real: recipes.DataOptions, device: str, *, quiet: bool
) -> GameContext:
    """The GAN of a run at its last checkpoint, and held-out images.

    Args:
        run: The run.
        settings: What is measured, on what.
        real: How the images of ``settings.real`` are read, where it differs from how the run reads its own.
        device: Where to work.
        quiet: Print no notes.

    Raises:
        UserError: it is not a run of ``rivals train``, or there are no held-out images that fit.
    """
    if run.info.get("command") != "train":
        raise UserError(f"'{run.folder}' is not a run of 'rivals train': name one that is")
    about: Record = {**run.read_info(TrainingInfo)}
    (config,) = restored(about["config"], recipes.Config())
    if config.against or config.invert:
        raise UserError(f"'{run.folder}' is no run of a GAN alone, which has an equilibrium: name one that is")
    source = source_to_resume("data", about["source"]["data"], settings.data)
    (options,) = restored(about["data_options"], recipes.DataOptions())
    whole = load_images(source, options, quiet=quiet)
    if config.conditional:  # a run with --weights has the order of their classes
        whole = match_classes(whole, about["data"]["classes"], "the run", note_printer(quiet))
    check_images(about, whole)
    images, held_out = held_out_images(whole, source, options, config.hold_out, seed=about["seed"], quiet=quiet)
    left_out = 0
    if settings.real is not None:
        split = evaluation_split(settings.real) or "train"
        held_out = load_images(settings.real, options.changed(**real.differences()), quiet=quiet, split=split)
        held_out, left_out = _not_trained_on(held_out, images, settings.real)
        if left_out:
            note_printer(quiet)(
                f"note: the run was trained on {left_out:,} images of --real {settings.real}, which prove nothing and "
                "are left out"
            )
    if held_out is None:
        raise UserError(
            f"all images of '{images.name}' were trained on, and those prove nothing: name others by --real, or train "
            "with --hold-out 500"
        )
    shapes = held_out.images.shape[1:], images.images.shape[1:]
    if shapes[0] != shapes[1]:
        raise UserError(f"the images of '{held_out.name}' are {shapes[0]}, the run's {shapes[1]}: give such images")
    if len(held_out) < MIN_IMAGES:
        raise UserError(f"'{held_out.name}' has {len(held_out)} held-out images, too few: give {MIN_IMAGES} or more")
    if config.conditional:
        held_out = match_classes(held_out, images.classes, "the run", note_printer(quiet))
    order = np.random.default_rng(rng.derive(settings.seed, "judge by")).permutation(len(held_out))
    held_out = subset(held_out, order[: settings.n])  # shuffled, so that its halves are alike
    shape: dict[str, Any] = {"size": images.size, "channels": images.channels, "classes": len(images.classes)}
    game = build_game(config, **shape, device=devices.pick(device), seed=about["seed"])
    tensors, _ = Checkpoints(run.checkpoints).load()
    game.restore(tensors)
    loss = make_loss(config.loss, config.label_smoothing)
    # The saved one may be earlier, if it scored best; a run that was killed has saved none yet.
    saved = (run.folder / "generator.safetensors").exists()
    finished = load(run.folder, device=str(game.device)) if saved else game.players["generator"].eval_net
    return GameContext(run, config, loss, game, finished, images, held_out, left_out, settings.seed, settings.steps)


def _not_trained_on(given: ImageSet, images: ImageSet, source: str) -> tuple[ImageSet, int]:
    """Those of the images given that are not among the training images, and how many are.

    Raises:
        UserError: too few are left.
    """
    known = set(_hashes(images))
    new = np.array([each not in known for each in _hashes(given)], bool)
    seen = len(given) - int(new.sum())
    if seen and len(given) - seen < MIN_IMAGES:
        raise UserError(
            f"the run was trained on {seen:,} of the {len(given):,} images of --real {source}, which prove nothing, "
            f"and {len(given) - seen} others are too few: name {MIN_IMAGES} or more others"
        )
    return subset(given, np.flatnonzero(new)) if seen else given, seen


def _hashes(images: ImageSet) -> Iterator[int]:
    """A hash of each image's pixels."""
    for start in range(0, len(images), BLOCK):
        yield from (hash(image.tobytes()) for image in np.asarray(images.images[start : start + BLOCK]))
