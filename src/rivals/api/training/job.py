"""The runner of ``train``, ``classify``, ``harden`` and ``translate``: from a request to a run folder with a report."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from rivals.api.common import provenance
from rivals.api.common.resume import (
    TrainingInfo,
    blame_changes,
    check_images,
    check_same,
    info_to_resume,
    load_images,
    resolve_source,
    source_to_resume,
)
from rivals.base import devices, launcher
from rivals.base.duration import Duration
from rivals.base.errors import UserError
from rivals.base.numerics import numerics
from rivals.base.run_folder import Record, Resume, Run, resumes
from rivals.recipes import ClassifierConfig, Config, DataOptions, HardenConfig, RunOptions
from rivals.recipes.base import restored, split_settings
from rivals.recipes.translation import TranslateConfig

if TYPE_CHECKING:
    from torch import nn

    from rivals.data.imageset import ImageSet
    from rivals.game.callbacks import Callback, Progress
    from rivals.game.checkpoint import Checkpoints
    from rivals.game.game import Batches, Game

DEFAULT_DATA = "mnist5k"

C = TypeVar("C", Config, ClassifierConfig, HardenConfig, TranslateConfig)


@dataclass(frozen=True)
class Request:
    """The arguments of a training command; see :func:`rivals.train`."""

    data: str | None
    recipe: str | None
    out: str | Path | None
    resume: Resume
    seed: int | None
    device: str
    quiet: bool
    settings: Record


class TrainingJob(ABC, Generic[C]):
    """A training run: its options, data and game. :func:`~rivals.api.training.runner.run_job` does the work.

    Several processes, as ``torchrun`` starts them, each load the data and build the game. The first one decides
    whatever depends on its clock or its files, and writes the run.

    A subclass loads the data, builds the game and says which callbacks are called.

    Args:
        request: The arguments of the command.

    Attributes:
        stored: ``run.json`` of the run to resume; empty for a new one.
        recipe: Name of the recipe; None until the data decide.
        config: The settings; those of a new run are resolved by :meth:`resolve_config`.
        source: Name or path of the data.
        loaded: The images as loaded.
        images: Those to train on, without held-out ones.

    Raises:
        UserError: an option is unknown or cannot work, or differs from that of the run to resume.
    """

    command: ClassVar[str]
    network: ClassVar[str]
    """The player whose network is saved at the end."""
    recipes: ClassVar[Mapping[str, Callable[[], Any]]]
    default_config: ClassVar[Any]
    default_run_options: ClassVar[RunOptions] = RunOptions()
    stored_schema: ClassVar[type[Any]] = TrainingInfo
    """What ``run.json`` must hold to be resumed."""
    movable: ClassVar[tuple[str, ...]] = ("weights",)
    """Settings that name files, which may have moved when the run is resumed: their content is compared."""

    stored: Record
    loaded: ImageSet
    images: ImageSet
    game: Game
    batches: Batches
    folder: Path
    best: Checkpoints | None = None
    """Checkpoints of the best state, with which the run ends; without, it ends with the last state."""

    def __init__(self, request: Request) -> None:
        self.processes = launcher.current()
        self.processes.remedy = "start again"
        self.request = replace(request, quiet=request.quiet or not self.processes.first)
        self.resuming, self.stored = False, {}
        with self.processes.together():
            if self.processes.first and resumes(request.resume, request.out):
                self.resuming, self.stored = True, info_to_resume(self.command, request.out, self.stored_schema)
        self.resuming, self.stored = self.processes.share([self.resuming, self.stored])
        defaults = (self.default_config, DataOptions(), self.default_run_options)
        self.config_settings, data_settings, run_settings = split_settings(request.settings, *defaults)
        self.recipe: str | None = request.recipe
        self.config: C = self.default_config
        self.data_options = DataOptions().changed(**{**self.stored.get("data_options", {}), **data_settings})
        # The time limit of an earlier process was its own.
        stored_run_options = {**self.stored.get("run_options", {}), "time_limit": None}
        self.run_options = self.default_run_options.changed(**{**stored_run_options, **run_settings})
        self.seed = request.seed or 0
        self.source = resolve_source(DEFAULT_DATA if request.data is None else request.data)
        self.contents: dict[str, str] = {}
        with self.processes.together():
            if self.resuming:
                self._resume_options()
            elif request.out is not None and self.processes.first:
                Run.check_free(Path(request.out))  # before the images are read, which may take a while
            self.device = devices.pick(request.device)
        self.started = time.perf_counter()

    def _resume_options(self) -> None:
        """Take the options from the run; only ``until`` and the run options may change."""
        stored, request = self.stored, self.request
        moved = {name: self.config_settings.pop(name) for name in self.movable if name in self.config_settings}
        (before,) = restored(stored["config"], self.default_config)
        (read_before,) = restored(stored["data_options"], DataOptions())
        with blame_changes({**before.written(), "until": self.config_settings.get("until")}, self.config_settings):
            self.config = before.changed(**self.config_settings)
        check_same({**before.written(), "until": self.config.until}, self.config.written())
        check_same(read_before.written(), self.data_options.written())
        given = {"recipe": request.recipe, "seed": request.seed}
        check_same(stored, {name: value for name, value in given.items() if value is not None})
        self.recipe, self.seed = stored["recipe"], stored["seed"]
        self.source = source_to_resume("data", stored["source"]["data"], request.data)
        were = {name: place for name in self.movable if (place := getattr(before, name))}
        check_same(dict.fromkeys(self.movable, ""), {name: moved[name] for name in moved.keys() - were.keys()})
        places = {name: source_to_resume(name, place, moved.get(name)) for name, place in were.items()}
        self.config = self.config.changed(**places)
        if self.config.until != before.until and "step" in stored:
            names = ("images", "epochs", "seconds")
            passed = {**{name: stored.get(name, 0) for name in names}, "steps": stored["step"]}
            if Duration.parse(self.config.until).progress(**passed) > 1:
                raise UserError(
                    f"the run is at {passed['images']:,} images ({stored['step']:,} steps), past "
                    f"'{self.config.until}': give a longer --until"
                )

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step; 1 as long as ``auto`` is not resolved."""
        count = self.config.micro_batches
        return 1 if count == "auto" else count

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """The run's own, other than those of the best state."""
        from rivals.game.checkpoint import Checkpoints

        return Checkpoints(Run(self.folder).checkpoints)

    @property
    def until(self) -> Duration:
        """Length of the run."""
        return Duration.parse(self.config.until)

    @property
    def time_left(self) -> float:
        """Seconds until the time limit of this process."""
        limit = self.run_options.time_limit
        return math.inf if limit is None else self.started + 60 * Duration.parse(limit).amount - time.perf_counter()

    @property
    def numerics(self) -> Record:
        """What decides the last bits of the run, besides its settings."""
        precision = {"precision": self.config.precision, "reduction": self.run_options.reduction}
        return {**numerics(self.device), **precision}

    @property
    def white(self) -> int | None:
        """The white level of what the network sees, of gray images of more than 8 bits."""
        return self.data_options.white

    @property
    def rollback(self) -> bool:
        """Whether to return to a good checkpoint after a training failure."""
        return self.best is not None

    @abstractmethod
    def load_data(self) -> None:
        """Set ``loaded`` and ``images``."""

    @abstractmethod
    def resolve_config(self) -> None:
        """Set ``recipe`` and ``config`` of a new run, now that the data are known."""

    @abstractmethod
    def build_game(self) -> Game:
        """The game with its initial weights."""

    @abstractmethod
    def make_batches(self) -> Batches:
        """The batches to play on."""

    @abstractmethod
    def make_callbacks(self) -> Sequence[Callback]:
        """The callbacks, in order. May set ``best``."""

    def choices(self) -> Record:
        """What :meth:`resolve_config` chose, for the other processes."""
        return {"recipe": self.recipe, "config": self.config.written()}

    def take_choices(self, choices: Record) -> None:
        """Take the :meth:`choices` of the first process."""
        self.recipe, self.config = choices["recipe"], self.default_config.changed(**choices["config"])

    def note_content(self, name: str, source: str, content: str) -> None:
        """Note the hash of a file that a setting names.

        Raises:
            UserError: the run to resume began with other content.
        """
        if self.stored and self.stored["contents"].get(name) != content:
            raise UserError(f"--{name} '{source}' is not what the run began with: restore it, or name its place now")
        self.contents[name] = content

    def run_facts(self) -> Record:
        """Further entries of ``run.json`` of a new run."""
        return {}

    def changeable_facts(self) -> Record:
        """Further entries of ``run.json`` that may change when the run is resumed."""
        return {}

    def network_facts(self) -> Record:
        """Further entries of the .json beside the saved network."""
        return {}

    def net_of(self, player: str) -> str:
        """The architecture of a player."""
        return str(self.config.net)

    def shortfall(self, end: Progress) -> str | None:
        """What to say of a run that ended before it could learn; None if it did not."""
        return None

    def on_start(self) -> None:
        """Called once nothing can be refused any more, before the first round."""

    def on_trained(self, net: nn.Module, end: Progress) -> None:
        """Called with the network that was saved, unless the run was stopped, which may leave it seconds to end."""

    def final_evaluation(self, net: nn.Module) -> str | None:
        """Evaluate the saved network of a finished run. Returns a line to print."""
        return None

    def read_images(self, white: int | None) -> ImageSet:
        """The images to train on. All that are read later, in resumed runs too, have the same white level.

        Args:
            white: That of the start weights, if there are any.
        """
        self.data_options = self.data_options.with_default_white(white)
        images = load_images(self.source, self.data_options, quiet=self.request.quiet)
        self.data_options = self.data_options.with_default_white(images.white)
        return images

    def open_run(self) -> Run:
        """The run folder: that of the run to resume, or a new one."""
        if self.resuming:
            check_images(self.stored, self.loaded)
            return Run.open(self.folder)
        images = self.loaded
        return Run.create(
            self.folder,
            {
                **provenance.run_facts(self.command, self.device),
                "seed": self.seed,
                "recipe": self.recipe,
                "config": self.config.written(),
                "data_options": self.data_options.written(),
                "source": {"data": self.source},
                "data": {
                    "name": images.name,
                    "split": images.split,
                    "n": len(images),
                    "n_train": self.batches.n,
                    "size": images.size.written,
                    "channels": images.channels,
                    "classes": list(images.classes),
                    "hash": images.hash,
                    "white": images.white,
                },
                "players": {
                    name: {"net": self.net_of(name), "parameters": sum(w.numel() for w in player.net.parameters())}
                    for name, player in self.game.players.items()
                },
                "contents": self.contents,
                **self.run_facts(),
            },
        )
