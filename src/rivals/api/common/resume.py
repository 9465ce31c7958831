"""Where a command reads its images and writes its run, and what a resumed run may change.

What a run had reached is restored elsewhere: networks, optimizers and records of training in :mod:`rivals.game.loop`,
an attack's records in ``api/robustness/evaluator.py``, those of a certification in
``api/certification/image_loop.py``.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from rivals.base.errors import UserError
from rivals.base.files import expand_user, explain_os_errors
from rivals.base.run_folder import Record, Run, wrong_command
from rivals.base.run_schema import Count, Seconds
from rivals.recipes.base import Settings, distribute, restored
from rivals.recipes.options import DataOptions

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet


class Hashed(TypedDict):
    """Something that is recognized by its content."""

    hash: str


class TrainingSource(TypedDict):
    """Where the images of a training are."""

    data: str


class EvaluationSource(TypedDict):
    """Where the model and the images of an evaluation are."""

    model: str
    data: str


class TrainingImages(Hashed):
    """The images of a training."""

    classes: list[str]
    size: Count | str
    channels: Count


class TrainingInfo(TypedDict):
    """What ``run.json`` must hold to resume a training, or to take its networks."""

    config: dict[str, Any]
    data_options: dict[str, Any]
    recipe: str | None
    seed: int
    source: TrainingSource
    data: TrainingImages
    contents: dict[str, str]
    images: NotRequired[Count]
    step: NotRequired[Count]
    epochs: NotRequired[Seconds]
    seconds: NotRequired[Seconds]


class EvaluationInfo(TypedDict):
    """What ``run.json`` must hold to resume an attack or a certification."""

    config: dict[str, Any]
    data_options: dict[str, Any]
    source: EvaluationSource
    data: Hashed
    model: Hashed


@contextlib.contextmanager
def reserve_folder(out: str | Path | None, name: str) -> Iterator[Path]:
    """The folder of a run: ``out``, or the first of runs/NAME-1, runs/NAME-2, ... that is not there yet.

    Such a one is made at once, so that no other process takes the same name. If it is empty at the end, it is removed.

    Raises:
        UserError: it cannot be made.
    """
    if out is not None:
        yield Path(out)
        return
    for number in itertools.count(1):
        folder = Path("runs", f"{name}-{number}")
        with explain_os_errors(folder):
            try:
                folder.mkdir(parents=True)
                break
            except FileExistsError:
                if not folder.parent.is_dir():  # but a link to nothing, below which no number will be free
                    raise
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def resolve_source(data: str) -> str:
    """A data set's name as it is, a path made absolute, so that a run can be resumed from another folder.

    Raises:
        UserError: the path begins with a user that this machine does not know.
    """
    from rivals.data.builtin import DATASETS
    from rivals.data.remote import is_url
    from rivals.data.shards import is_pattern

    path = expand_user(data)
    return data if data in DATASETS or is_url(data) or not (path.exists() or is_pattern(data)) else str(path.resolve())


def source_to_resume(what: str, before: str, given: str | None) -> str:
    """What a resumed run reads: what is given now, wherever it is, or else what it read before.

    The run is identified by the content of its data, not by their place: whoever loads them compares their hash.

    Raises:
        UserError: nothing is given, and what the run read is not there any more.
    """
    if given is not None:
        return resolve_source(given)
    from rivals.data.shards import is_pattern

    if Path(before).is_absolute() and not (Path(before).exists() or is_pattern(before)):
        raise UserError(f"'{before}', the {what} of the run, is not there: name its place now")
    return before


def load_images(source: str, options: DataOptions, *, quiet: bool, split: str = "train") -> ImageSet:
    """The images of a data set, with notes about them on standard error unless ``quiet``."""
    from rivals.data.load import load

    return load(source, split=split, **vars(options), on_note=note_printer(quiet))


def note_printer(quiet: bool) -> Callable[[str], None]:
    """What prints a note to standard error, or drops it if ``quiet``."""
    from rivals.data.load import to_stderr

    return (lambda note: None) if quiet else to_stderr


def info_to_resume(command: str, out: str | Path | None, schema: type[Any]) -> Record:
    """``run.json`` of the run that is to be resumed.

    Raises:
        UserError: no run was named, another command made it, or something is missing of what ``schema`` declares.
    """
    if out is None:
        raise UserError("--resume needs the run to continue: add --out RUN")
    run = Run.open(out)
    if run.info.get("command") != command:
        raise wrong_command(out, command)
    return {**run.read_info(schema)}


def check_same(stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse to resume with other settings than the run began with.

    Raises:
        UserError: a value in ``given`` differs from that in ``stored``.
    """
    for name, value in given.items():
        if value != stored[name]:
            raise UserError(
                f"cannot resume with another {name}: it was {stored[name]}, now {value}: leave it out, or start a new "
                "run"
            )


@contextlib.contextmanager
def blame_changes(stored: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[None]:
    """Within it, what cannot work is blamed on the first value given that is not the run's own, if there is one.

    Raises:
        UserError: as it was raised within, or as :func:`check_same` says.
    """
    try:
        yield
    except UserError:
        check_same(stored, {name: value for name, value in given.items() if name in stored})
        raise


def check_images(info: Record, images: ImageSet) -> None:
    """Refuse to resume on other images or classes than the run began with.

    Raises:
        UserError: their hash or the names of their classes have changed.
    """
    if info["data"]["classes"] != list(images.classes):
        before, now = (", ".join(names) or "none" for names in (info["data"]["classes"], images.classes))
        raise UserError(
            f"the classes of '{images.name}' are not those that the run began with: they were {before}, now {now}: "
            "restore them to resume"
        )
    if info["data"]["hash"] != images.hash:
        raise UserError(
            f"the images of '{images.name}' are not those that the run began with: restore them, or name their place "
            "now, to resume"
        )


def resolve_options(
    command: str, out: str | Path | None, resume: bool, given: Mapping[str, Any], *plain: Settings
) -> tuple[Record, list[Any]]:
    """The options of an evaluation: the defaults in ``plain``, or what the resumed run has, changed by what is given.

    Args:
        command: The command that is called.
        out: Its run folder, if it has one.
        resume: Whether it continues the run there.
        given: The settings that were given, by name.
        plain: Options objects with the defaults.

    Returns:
        ``run.json`` of the run to resume, empty for a new one; and the options objects.

    Raises:
        UserError: a setting is unknown or cannot work; the folder is not free; or a setting differs from the run's.
    """
    from rivals.data.classes import write_class_names

    if given.get("classes"):
        given = {**given, "classes": write_class_names(given["classes"])}
    if not resume:
        options = distribute(given, *plain)
        if out is not None:
            Run.check_free(Path(out))  # before the images are read, which may take a while
        return {}, options
    info = info_to_resume(command, out, EvaluationInfo)
    written = {**info["config"], **info["data_options"]}
    if written.get("classes"):
        written["classes"] = write_class_names(written["classes"])
    options = restored(written, *plain)
    with blame_changes(written, given):
        given_options = distribute(given, *options)
    for stored, changed in zip(options, given_options, strict=True):
        check_same(vars(stored), vars(changed))
    return info, options
