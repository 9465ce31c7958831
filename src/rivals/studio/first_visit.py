"""What a page with no runs offers: runs of one minute, each by one click."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from rivals.studio.data_sources import DataSources
from rivals.studio.input_images import is_ready
from rivals.studio.processes import RunProcesses, RunRequest
from rivals.studio.run_store import RunStore

LENGTH = "1 minutes"
DATA = ("mnist5k", "mnist", "fashion-mnist", "cifar10")  # in this order, whichever needs no download


@dataclass(frozen=True)
class MinuteRun:
    """A run that one click starts.

    Attributes:
        label: Of its button.
        command: What it runs.
        stem: Of the run's name.
        promise: What it leads to.
    """

    label: str
    command: str
    stem: str
    promise: str


GAN = MinuteRun("Train a GAN for one minute", "train", "gan", "Latent and Equilibrium show its generator")
CLASSIFIER = MinuteRun("Train a classifier for one minute", "classify", "classifier", "Attack shows it")
ENLARGER = MinuteRun("Train an enlarger for one minute", "translate", "enlarger", "Translate shows it")


def start_minute_run(store: RunStore, processes: RunProcesses, sources: DataSources, run: MinuteRun) -> tuple[str, str]:
    """Start a run under the next free name; a message about it, and the name.

    Raises:
        UserError: it cannot be started.
    """
    taken = {folder.name for folder in processes.alive()}
    name = next(name for n in count(1) if (name := f"{run.stem}-{n}") not in taken and not (store.root / name).exists())
    said = processes.start(store.root, RunRequest(run.command, choose_data(sources), "", LENGTH, "", name))
    return f"{said} {run.promise} as soon as it has ended, in a minute or two.", name


def choose_data(sources: DataSources) -> str:
    """Data for a first run: small, and without a download if there are any."""
    ready = [name for name in DATA if is_ready(name, "train")]
    return next(iter((*ready, *sources.paths)), DATA[0])
