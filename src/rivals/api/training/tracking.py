"""Tracking: the records of a run, and its sample grids, in TensorBoard, trackio, Weights & Biases or MLflow."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from rivals.base.files import make_folder
from rivals.base.run_folder import Record, Run
from rivals.game.callbacks import Callback, Progress

PROJECT = "rivals"
SECONDS_BETWEEN_STEPS = 0.25  # of records of steps; all others are passed on
STEP = "training_step"
MLFLOW_URI = "MLFLOW_TRACKING_URI"
IDENTITY = "rivals_run"  # a tag of MLflow's runs
PLACE_KEYS = ("step", "images", "seconds")


class Tracker(Protocol):
    """Where records go."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Take scalars of a step."""

    def image(self, path: Path, step: int) -> None:
        """Take a sample grid, a PNG."""

    def rewind(self, step: int) -> None:
        """Forget what came after a step, if that is possible: the run plays it again."""

    def close(self) -> None:
        """Write what is left."""


class _TensorBoard:
    """Event files in the run's ``tensorboard/``: ``tensorboard --logdir RUN``."""

    def __init__(self, run: Run) -> None:
        self.folder = run.folder / "tensorboard"
        self._open(None)

    def _open(self, purge_step: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer: Any = SummaryWriter(str(self.folder), purge_step=purge_step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def image(self, path: Path, step: int) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self.writer.add_image("samples", pixels, step, dataformats="HWC")

    def rewind(self, step: int) -> None:
        self.writer.close()
        self._open(step + 1)

    def close(self) -> None:
        self.writer.close()


class _WandbLike:
    """Weights & Biases, and trackio, which has the same interface; both take their own environment variables."""

    def __init__(self, run: Run, module: Any, **options: Any) -> None:
        self.module = module
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        module.init(project=project, config=_config(run), resume="allow", **options)

    def log(self, values: Mapping[str, float], step: int) -> None:
        # Their own step may never fall, and a run that goes back to a checkpoint plays some steps again.
        self.module.log({**values, STEP: step})

    def image(self, path: Path, step: int) -> None:
        self.module.log({"samples": self.module.Image(str(path)), STEP: step})

    def rewind(self, step: int) -> None:
        pass

    def close(self) -> None:
        self.module.finish()


def _identity(run: Run) -> str:
    """One of theirs for one of ours, also when it is resumed; another one for a run of the same name."""
    name = f"{run.folder.name}-{run.info['created']}"
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _wandb(run: Run) -> Tracker:
    import wandb

    tracker = _WandbLike(run, wandb, name=run.folder.name, dir=str(run.folder), id=_identity(run))
    wandb.define_metric("*", step_metric=STEP)
    return tracker


def _trackio(run: Run) -> Tracker:
    import trackio

    return _WandbLike(run, trackio, name=_identity(run))  # a run is known by its name there


class _MLflow:
    """MLflow, at MLFLOW_TRACKING_URI or, without that, in the run's ``mlflow/``."""

    def __init__(self, run: Run) -> None:
        import mlflow

        self.mlflow: Any = mlflow
        self.own = MLFLOW_URI not in os.environ
        if self.own:
            folder = run.folder.resolve() / "mlflow"
            make_folder(folder)
            mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")  # sets the variable, too
            if mlflow.get_experiment_by_name(PROJECT) is None:
                mlflow.create_experiment(PROJECT, artifact_location=(folder / "artifacts").as_uri())
        try:
            self._begin(run)
        except Exception:
            self.close()
            raise

    def _begin(self, run: Run) -> None:
        """Start its run, or go on with the one that an earlier session began."""
        mlflow, identity = self.mlflow, _identity(run)
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        before = mlflow.search_runs(filter_string=f"tags.{IDENTITY} = '{identity}'", output_format="list")
        if before:
            mlflow.start_run(run_id=before[0].info.run_id)
            return  # parameters never change there
        mlflow.start_run(run_name=run.folder.name, tags={IDENTITY: identity})
        mlflow.log_params({key: str(value)[:500] for key, value in _config(run).items()})

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.mlflow.log_metrics(dict(values), step=step)

    def image(self, path: Path, step: int) -> None:
        self.mlflow.log_artifact(str(path), "samples")

    def rewind(self, step: int) -> None:
        pass

    def close(self) -> None:
        self.mlflow.end_run()
        if self.own:  # the next run of this process has a folder of its own
            self.mlflow.set_tracking_uri("")
            os.environ.pop(MLFLOW_URI, None)


TRACKERS: dict[str, Callable[[Run], Tracker]] = {
    "tensorboard": _TensorBoard,
    "trackio": _trackio,
    "wandb": _wandb,
    "mlflow": _MLflow,
}


class Tracking(Callback):
    """Passes every record on to trackers, with sample grids as images and alarms as 1 (raised) and 0 (over).

    A tracker that is not installed, or fails, is told of on standard error and left out: training goes on.

    Args:
        names: Of the trackers.
        run: The run, in whose folder they write by default.
    """

    def __init__(self, names: Iterable[str], run: Run) -> None:
        self.run = run
        self.names = []
        self.trackers: dict[str, Tracker] | None = None  # begun with the first record, when the folder is there
        self.restored: int | None = None  # the step that the run went back to
        self.last = -SECONDS_BETWEEN_STEPS
        for name in names:
            if find_spec(name) is None:
                _tell(f"{name} is not installed, so nothing is tracked by it: pip install 'rivals[{name}]'")
            else:
                self.names.append(name)

    def on_log(self, record: Record) -> None:
        """Pass the record on."""
        values, is_step = scalars(record), "images_per_second" in record
        if is_step and record["seconds"] - self.last < SECONDS_BETWEEN_STEPS:
            return
        if is_step:
            self.last = record["seconds"]
        if self.trackers is None:
            self.trackers = {}
            for name in self.names:
                self._try(name, partial(self._begin, name))
        grid = record.get("sample_grid")
        for name, tracker in [*self.trackers.items()]:
            self._try(name, partial(tracker.log, values, record["step"]))
            if grid is not None and name in self.trackers:
                self._try(name, partial(tracker.image, self.run.folder / grid, record["step"]))

    def on_restore(self, past: Iterable[Record], progress: Progress) -> None:
        """Tell the trackers to forget later steps."""
        self.restored, self.last = progress.step, -SECONDS_BETWEEN_STEPS
        for name, tracker in [*(self.trackers or {}).items()]:
            self._try(name, partial(tracker.rewind, progress.step))

    def close(self) -> None:
        """Let the trackers write what is left."""
        trackers, self.trackers = self.trackers or {}, {}
        for name, tracker in trackers.items():
            self._try(name, tracker.close)

    def _begin(self, name: str) -> None:
        assert self.trackers is not None
        tracker = self.trackers[name] = TRACKERS[name](self.run)
        if self.restored is not None:  # what an earlier process wrote after that step
            tracker.rewind(self.restored)

    def _try(self, name: str, act: Callable[[], None]) -> None:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # ours is for the result, as with --json
                act()
        except Exception as error:  # whatever others' code raises must not end a training
            assert self.trackers is not None
            if tracker := self.trackers.pop(name, None):
                # Or the next run of this process would go on in its place.
                with contextlib.suppress(Exception), contextlib.redirect_stdout(sys.stderr):
                    tracker.close()
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            _tell(f"{name} failed ({reason}), so nothing more is tracked by it")


def scalars(record: Record) -> dict[str, float]:
    """The numbers of a record, by name; an alarm as ``alarm/NAME``."""
    if "alarm" in record:
        return {f"alarm/{record['alarm']}": float(record["raised"])}
    numbers = {key: float(value) for key, value in record.items() if isinstance(value, (int, float))}
    return {key: value for key, value in numbers.items() if key not in PLACE_KEYS or key == "images"}


def _config(run: Run) -> dict[str, Any]:
    info = run.info
    return {**info["config"], "command": info["command"], "recipe": info["recipe"], "seed": info["seed"]}


def _tell(line: str) -> None:
    print(f"{line}; training goes on", file=sys.stderr)
