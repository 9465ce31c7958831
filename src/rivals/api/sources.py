"""Where a verb's images come from and its results go, and what may differ when a run is resumed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rivals.base.errors import UserError
from rivals.base.spans import Span
from rivals.recipes import ClassifierConfig, Config, HardenConfig
from rivals.reports.run import Record

if TYPE_CHECKING:
    from rivals.data.imageset import ImageSet

C = TypeVar("C", Config, ClassifierConfig, HardenConfig)


def free(home: Path, name: str) -> Path:
    """The first of NAME-1, NAME-2, ... that does not exist in ``home``."""
    number = 1
    while (home / f"{name}-{number}").exists():
        number += 1
    return home / f"{name}-{number}"


def found(data: str) -> str:
    """A name as it is, a path made absolute, so that a run may be resumed from another folder."""
    from rivals.data.names import NAMES

    try:
        path = Path(data).expanduser()
    except RuntimeError:
        raise UserError(f"'{data}' names a user that this machine does not know: write the path in full") from None
    return data if data in NAMES or not path.exists() else str(path.resolve())


def as_before(verb: str, plain: C, kept: Record, asked: Record, settings: Record) -> tuple[str, C, Record, int]:
    """Recipe, configuration, source and seed of a run that is resumed.

    Args:
        verb: What made it.
        plain: A configuration of its kind.
        kept: Its ``run.json``.
        asked: What is asked of data and seed now; None is as before.
        settings: What is asked of the configuration now.

    Raises:
        UserError: what is asked now differs from it (only ``until`` may), or another verb made the run.
    """
    if kept.get("verb") != verb:
        raise UserError(f"this is not a run of 'rivals {verb}', so it cannot be resumed by it: choose another --out")
    config = plain.changed(**kept["config"])
    changed = config.changed(**settings)
    source = kept["data"]["source"]
    before = {**config.written(), **source, "recipe": kept["recipe"], "seed": kept["seed"]}
    now = {
        **changed.written(),
        **{name: value for name, value in asked.items() if value is not None},
        "until": config.until,
    }
    for name, value in now.items():
        if value != before[name]:
            raise UserError(
                f"cannot resume with another {name}: it was {before[name]}, now {value}: leave it out, or start anew"
            )
    if changed.until != config.until and "step" in kept:
        come = Span.parse(changed.until).progress(
            images=kept["images"], epochs=kept["epochs"], steps=kept["step"], seconds=kept["seconds"]
        )
        if come > 1:
            raise UserError(
                f"the run has come to {kept['images']:,} images ({kept['step']:,} steps), past '{changed.until}': "
                "give a longer --until"
            )
    return kept["recipe"], changed, source, kept["seed"]


def images_of(source: Record, quiet: bool, split: str = "train") -> ImageSet:
    """The images of a source: ``data``, ``size``, ``crop`` and ``skip_bad``."""
    from rivals.data.load import load, to_stderr

    return load(
        source["data"],
        split=split,
        size=source["size"],
        crop=source["crop"],
        skip_bad=source["skip_bad"],
        on_note=(lambda note: None) if quiet else to_stderr,
    )


def unchanged(kept: Record, images: ImageSet) -> None:
    """Refuse to resume on other images than the run began with.

    Raises:
        UserError: they have changed.
    """
    if kept["data"]["hash"] != images.hash:
        source = kept["data"]["source"]["data"]
        raise UserError(f"the images of '{source}' have changed since: restore them to resume")
