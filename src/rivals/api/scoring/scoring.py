"""``score``: how near generated images are to real ones, every value with all that it depends on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.networks import load
from rivals.base import devices
from rivals.base.errors import UserError
from rivals.base.files import write_atomically
from rivals.metrics.scorecard import Scores, Value
from rivals.reports.run import Record, Run

if TYPE_CHECKING:
    import torch

    from rivals.api.viewing import Show, Source
    from rivals.data.imageset import ImageSet
    from rivals.extractors.extractor import Extractor
    from rivals.metrics.fidelity import View
    from rivals.reports.passing import Passing

METRICS = "fd,kid,prdc"
NUMBERS, SHEET = "scores.json", "neighbours.png"
SHOWN, NEAREST = 10, 5  # generated images on the sheet, and real ones beside each


def score(
    subject: Any,
    data: Any = None,
    *,
    metrics: str = METRICS,
    extractor: str = "auto",
    n: int = 10_000,
    n_real: int | None = None,
    split: str = "train",
    size: int | None = None,
    crop: bool = False,
    skip_bad: bool = False,
    seed: int = 0,
    device: str = "auto",
    out: str | Path | None = None,
    quiet: bool = False,
) -> Scores:
    """Measure how near generated images are to real ones.

    Args:
        subject: A run, a generator.safetensors, a folder or zip of images, or a data set's name (its test images).
        data: The real images: a data set's name, a folder or a zip; what the run was trained on if none is given.
        metrics: A list as fd,kid,prdc; also fid, is, fd-infinity, fid-infinity, cmmd, authenticity.
        extractor: inception, lite0, dinov2, clip, vgg16, any with :PATH to its weights, or classifier:RUN.
        n: Images to draw, or to take of the folder.
        n_real: Real images to compare with; as many as --n if none is given.
        split: Which of the real images: train, test or another.
        size: Side to resize the real images to first, in pixels; as they are, or as the run had them, if none is given.
        crop: Crop rectangles to their central square.
        skip_bad: Leave unreadable images out instead of stopping.
        seed: Of the images that are drawn, and of all else that is random.
        device: cpu, cuda, mps or another of PyTorch's; auto takes the accelerator if there is one.
        out: Folder for scores.json and the sheet of nearest neighbours; the run's own if none is given.
        quiet: Print nothing on the way.

    Returns:
        Values with their protocols, and what could not be had; ``print`` shows them.

    Raises:
        UserError: something the user can fix, or no value could be had.
    """
    from rivals.metrics.fidelity import chosen
    from rivals.reports.passing import Passing

    wanted = chosen(metrics)
    if n < 2 or (n_real is not None and n_real < 2):
        name, value = ("-n", n) if n < 2 else ("--n-real", n_real)
        raise UserError(f"{name} {value} cannot work, as one image has no spread: give 2 or more")
    place = devices.pick(device)
    run = _run(subject)
    how = {"size": size, "crop": crop, "skip_bad": skip_bad}
    with Passing(quiet=quiet) as passing:
        judged, real = _subject(subject, n, seed, place, passing), _real(data, run, how, split, passing)
        hall = Hall(judged, real, n_real or n, seed, place, passing)
        _compare_sizes(hall)
        groups: Sequence[Group] = [lambda hall: fidelity(hall, wanted, extractor)]
        found = [group(hall) for group in groups]
    values = [value for each in found for value in each.values]
    missing = [line for each in found for line in each.missing]
    if not values:
        raise UserError(missing[0])
    folder = Path(out) if out is not None else run.folder if run is not None else None
    if folder is None:
        return Scores(values, missing)
    sheets = [each.sheet for each in found if each.sheet is not None]
    return _kept(folder, run, values, missing, sheets)


@dataclass(frozen=True, eq=False)
class Hall:
    """What is compared.

    Attributes:
        fake: The generated images.
        images: The real ones, all of them.
        n_real: How many of those to take.
        seed: Of everything random.
        device: Where to work.
        passing: Shows how far it has come.
    """

    fake: Source
    images: ImageSet
    n_real: int
    seed: int
    device: torch.device
    passing: Passing


@dataclass(frozen=True, eq=False)
class Found:
    """What a group of values came to: the values, what could not be had, and a picture to keep beside them."""

    values: Sequence[Value]
    missing: Sequence[str]
    sheet: Any = None


Group = Callable[[Hall], Found]
"""A group of values of what is compared. A further one joins in :func:`score`, where the list of groups is made."""


def fidelity(hall: Hall, wanted: Sequence[str], asked: str) -> Found:
    """The metrics of features, each through its own extractor or the one that was asked for.

    Each extractor passes once over either set, for all its metrics. One that has no weights here costs only its own.
    """
    from rivals.api.viewing import find_extractor, look, look_at_real, of_set, settled
    from rivals.metrics.fidelity import METRICS, Evidence, title

    values: dict[str, Value] = {}
    missing: list[str] = []
    sheet = None
    source = of_set(hall.images, hall.n_real)
    show: Show = hall.passing
    for name, names in _by_extractor(wanted, settled(asked)).items():
        try:
            extractor = find_extractor(name, hall.device)
            logits = any(METRICS[metric].logits for metric in names) and extractor.classes > 0
            real = look_at_real(extractor, source, what=f"{extractor.name} looks at real images", show=show)
            what = f"{extractor.name} looks at generated images"
            fake = look(extractor, hall.fake, logits=logits, what=what, show=show)
        except UserError as error:
            missing.append(f"{', '.join(names)}: {error}")
            continue
        evidence = Evidence(real, fake, extractor, hall.seed)
        protocol = _protocol(extractor, source, hall)
        for metric in names:
            try:
                value = METRICS[metric].measure(evidence)
            except UserError as error:
                missing.append(f"{metric}: {error}")
                continue
            values[metric] = dataclasses.replace(
                value, metric=metric, name=title(metric, extractor), says=METRICS[metric].says, protocol=protocol
            )
        if sheet is None:
            sheet = _sheet(real, fake, source, hall, extractor)
    return Found([values[metric] for metric in wanted if metric in values], missing, sheet)


def _by_extractor(wanted: Sequence[str], asked: str) -> dict[str, list[str]]:
    """Which metrics each extractor is asked for. That of inception stands for every metric if it is the one asked for.

    The one that was asked for comes first: the sheet of neighbours is by its eyes.
    """
    from rivals.metrics.fidelity import METRICS

    found: dict[str, list[str]] = {asked: []}
    for metric in wanted:
        own = METRICS[metric].extractor
        found.setdefault(asked if own is None or asked.partition(":")[0] == own else own, []).append(metric)
    return {name: names for name, names in found.items() if names}


def _protocol(extractor: Extractor, source: Source, hall: Hall) -> Record:
    """All that a value depends on beside the metric's own settings."""
    fake = hall.fake.about
    return {
        "extractor": extractor.name,
        "extractor_hash": extractor.hash,
        "resize": extractor.resize,
        "real": source.about["name"],
        "split": source.about["split"],
        "real_size": source.about["size"],
        "real_hash": source.about["hash"],
        "n_real": source.n,
        "real_of": source.about["of"],
        "fake": fake["name"],
        "fake_split": fake["split"],
        "fake_size": fake["size"],
        "fake_hash": fake["hash"],
        "n_fake": hall.fake.n,
        "seed": hall.seed,
    }


def _run(subject: Any) -> Run | None:
    """The run that is meant, if it is one."""
    if isinstance(subject, Run):
        return subject
    if isinstance(subject, str | Path) and (Path(subject).expanduser() / "run.json").exists():
        return Run.open(Path(subject).expanduser())
    return None


def _subject(subject: Any, n: int, seed: int, device: torch.device, passing: Passing) -> Source:
    """The images that are to be judged.

    Raises:
        UserError: there are none, or one only, or it is nothing of the kind.
    """
    import torch
    from torch import nn

    from rivals.api.viewing import of_generator, of_set, of_tensor
    from rivals.data.imageset import ImageSet
    from rivals.data.load import load as load_images
    from rivals.data.names import NAMES

    name = str(subject.folder if isinstance(subject, Run) else subject)
    run = _run(subject)
    if run is not None or (isinstance(subject, str | Path) and Path(subject).suffix == ".safetensors"):
        subject = load(name if run is None else run.folder, device=str(device))
        if not hasattr(subject, "sample"):
            raise UserError(
                f"the network at '{name}' is no generator, so it draws nothing: name a run of 'rivals train'"
            )
        return of_generator(subject, n, seed, name)
    if isinstance(subject, nn.Module) and hasattr(subject, "sample"):
        return of_generator(subject, n, seed, type(subject).__name__)  # type: ignore[arg-type]
    if isinstance(subject, str | Path):
        split = "test" if subject in NAMES and "test" in NAMES[str(subject)].counts else "train"
        subject = load_images(subject, split=split, on_note=passing.say)
    if isinstance(subject, ImageSet):
        source = of_set(subject, n)
    elif isinstance(subject, torch.Tensor):
        source = of_tensor(subject[:n])
    else:
        raise UserError(
            f"a {type(subject).__name__} cannot be scored: give a run, a generator, a folder, a zip or uint8 images"
        )
    if source.n < 2:
        raise UserError(f"'{source.about['name']}' has 1 image, which has no spread: give 2 or more")
    return source


def _real(data: Any, run: Run | None, how: Record, split: str, passing: Passing) -> ImageSet:
    """The real images: those that were named, or those of the run, as it had them.

    Raises:
        UserError: none were named and there is no run, or there is one only.
    """
    from rivals.data.imageset import ImageSet
    from rivals.data.load import load as load_images

    if isinstance(data, ImageSet):
        images = data
    else:
        if data is None:
            source = {} if run is None else run.about.get("data", {}).get("source", {})
            if "data" not in source:
                raise UserError("no real images were named to compare with: give a data set's name, a folder or a zip")
            data = source["data"]
            how = {name: asked or source.get(name) for name, asked in how.items()}
        images = load_images(data, split=split, on_note=passing.say, **how)
    if len(images) < 2:
        raise UserError(f"'{images.name}' has 1 image, which has no spread: give 2 or more")
    return images


def _compare_sizes(hall: Hall) -> None:
    """Say it where the sets differ in size: an extractor resizes both, and blur is not the generator's fault."""
    ours, theirs = hall.fake.about["size"], hall.images.size
    if ours != theirs:
        hall.passing.say(
            f"generated images have {ours} px and real ones {theirs}: the extractor resizes both; --size {ours} "
            "compares them at one size"
        )


def _sheet(real: View, fake: View, source: Source, hall: Hall, extractor: Extractor) -> Any:
    """The first generated images, each beside the real ones that lie closest to it."""
    import torch

    from rivals.metrics.neighbours import nearest
    from rivals.reports.neighbours import picture

    assert source.places is not None
    shown = min(SHOWN, fake.n)
    who, _ = nearest(real.features, fake.features[:shown], min(NEAREST, real.n))
    drawn = next(hall.fake.blocks())[:shown].numpy()
    places = source.places[who.cpu().flatten().numpy()]
    beside = hall.images.images[places].reshape(*who.shape, *hall.images.images.shape[1:])
    return picture(drawn, torch.from_numpy(beside).numpy())


def _kept(
    folder: Path, run: Run | None, values: Sequence[Value], missing: Sequence[str], sheets: Sequence[Any]
) -> Scores:
    """Write the values and the sheet into a folder, beside what an earlier score of the same images left there.

    Raises:
        UserError: they cannot be written.
    """
    from rivals.reports import sheet
    from rivals.reports.page import write_report

    if sheets:
        sheet.save_png(sheets[0], folder / SHEET)
    path = folder / NUMBERS
    fresh = [value.as_dict() for value in values]
    before = [each for each in _read(path) if not any(_same(each, value) for value in fresh)]
    judged = {value["fake_hash"] for value in fresh}
    rest = [each for each in before if each.get("fake_hash") in judged]
    content = {"format": 1, "values": [*rest, *fresh], "missing": list(missing), "sheet": SHEET if sheets else None}
    write_atomically(path, json.dumps(content, indent=2).encode() + b"\n")
    if run is not None:
        write_report([run], run.report)
    return Scores(values, missing, str(folder / SHEET) if sheets else None)


def _read(path: Path) -> list[Record]:
    try:
        found = json.loads(path.read_text())["values"]
        return [each for each in found if isinstance(each, dict)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _same(one: Record, other: Record) -> bool:
    """Whether two records are of one metric by one protocol, whatever they came to."""
    loose = {"value", "error", "notes", "says"}
    keys = (one.keys() | other.keys()) - loose
    return all(one.get(key) == other.get(key) for key in keys)
