"""``score``: how close generated images are to real ones, every value with its protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.api.common.alike import check_alike
from rivals.api.common.network_io import load
from rivals.api.scoring.score_file import GroupResult, finish, shared
from rivals.base import devices, launcher
from rivals.base.errors import UserError
from rivals.base.files import expand_user
from rivals.base.numerics import deterministic, numerics
from rivals.base.run_folder import Record, Run
from rivals.base.size import Size, resizing
from rivals.metrics.results import Scores, Value
from rivals.recipes.base import distribute
from rivals.recipes.options import DataOptions, ScoreConfig

if TYPE_CHECKING:
    import torch

    from rivals.api.scoring.feature_passes import Show, Source
    from rivals.base.process_group import ProcessGroup
    from rivals.console.bars import PassProgress
    from rivals.data.imageset import ImageSet
    from rivals.extractors.base import Extractor
    from rivals.metrics.feature_set import FeatureSet

SHOWN, NEAREST = 10, 5  # generated images on the grid, and the nearest training images next to each


def score(
    subject: Any,
    data: Any = None,
    *,
    out: str | Path | None = None,
    device: str = "auto",
    quiet: bool = False,
    **settings: Any,
) -> Scores:
    """Measure how close generated images are to real ones; with --equilibrium, how far a GAN is from its equilibrium.

    Args:
        subject: A run, a generator.safetensors, a folder or zip of images, or a data set's name (its test images).
        data: The real images: a data set's name, a folder, a zip or shards; by default what the run was trained on.
        out: Folder for scores.json and the grid of nearest training images; by default the run's own.
        device: cpu, cuda, mps or another device of PyTorch; auto takes the accelerator if there is one.
        quiet: Print no progress.
        **settings: Any field of :class:`rivals.recipes.ScoreConfig` and :class:`rivals.DataOptions`, as
            ``metrics="fid"``.

    Returns:
        Values with their protocols, and what could not be computed; ``print`` shows them.

    Raises:
        UserError: bad input, in one line; or no value could be computed.
    """
    from rivals.api.scoring.feature_passes import Source
    from rivals.console.bars import PassProgress
    from rivals.metrics.generative import parse_metrics

    processes = launcher.current()
    processes.remedy = "start again"
    config, options = distribute(settings, ScoreConfig(), DataOptions())
    wanted = parse_metrics(config.metrics)
    with processes.together():
        place = devices.pick(device)
    with PassProgress(quiet=quiet or not processes.first) as progress, deterministic(config.deterministic):
        with processes.one_per_node_first():
            run = _run(subject)
            generator = _generator(subject, run, place)
            options = options.with_default_white(getattr(generator, "about", {}).get("white"))
            generated = _generated_images(subject, generator, config, options, progress)
            real = _real_images(data, run, options, config.split, progress)
            fake = generated if isinstance(generated, Source) else generated(real)
        check_alike(processes, {"generated images": fake.about["hash"], "images": real.hash, "settings": str(config)})
        context = ScoreContext(fake, real, config.n_real or config.n, config.seed, place, progress, processes)
        if processes.first:
            _compare_sizes(context)
        groups: Sequence[MetricGroup] = [lambda context: feature_metrics(context, wanted, config.extractor)]
        results = [group(context) for group in groups]
    folder = Path(out) if out is not None else run.folder if run is not None else None
    with processes.outlast_first():
        scores = None
        with processes.together(patient=True):  # the first computes the values
            if processes.first:
                scores = finish(results, folder, run)
        return shared(scores, processes)


@dataclass(frozen=True, eq=False)
class ScoreContext:
    """What is compared, and how.

    Attributes:
        fake: The generated images.
        images: The real ones, all of them.
        n_real: How many of those to take.
        seed: Of everything random.
        device: Where to work.
        progress: The progress bar.
        processes: Those that share the images. The first one computes the values.
    """

    fake: Source
    images: ImageSet
    n_real: int
    seed: int
    device: torch.device
    progress: PassProgress
    processes: ProcessGroup


MetricGroup = Callable[[ScoreContext], GroupResult]
"""A group of metrics. A new one is added to the list in :func:`score`."""


def feature_metrics(context: ScoreContext, wanted: Sequence[str], chosen: str) -> GroupResult:
    """The metrics of features, each with its own extractor or the one that was chosen.

    Each extractor passes once over either set, for all its metrics. If its weights are missing, only its own metrics
    are.
    """
    from rivals.api.scoring.feature_passes import (
        cached_real_features,
        extract_features,
        find_extractor,
        of_set,
        resolve_extractor,
    )
    from rivals.metrics.generative import METRICS, MetricInput, display_name

    processes = context.processes
    values: dict[str, Value] = {}
    missing: list[str] = []
    grid = None
    source = of_set(context.images, context.n_real)
    show: Show = context.progress
    for name, names in _by_extractor(wanted, resolve_extractor(chosen)).items():
        try:
            with processes.together(patient=True):  # the first may still compute values of another extractor
                extractor = find_extractor(name, context.device)
            check_alike(processes, {"extractor": extractor.hash})
            logits = any(METRICS[metric].logits for metric in names) and extractor.classes > 0
            what = f"{extractor.name} on real images"
            real = cached_real_features(extractor, source, what=what, show=show, processes=processes)
            what = f"{extractor.name} on generated images"
            fake = extract_features(extractor, context.fake, logits=logits, what=what, show=show, processes=processes)
        except UserError as error:
            missing.append(f"{', '.join(names)}: {error}")
            continue
        if not processes.first:
            continue
        images = MetricInput(real, fake, extractor, context.seed, len(context.images))
        protocol = _protocol(extractor, source, context)
        for metric in names:
            processes.beat()
            try:
                value = METRICS[metric].measure(images)
            except UserError as error:
                missing.append(f"{metric}: {error}")
                continue
            values[metric] = dataclasses.replace(
                value,
                metric=metric,
                name=display_name(metric, extractor),
                description=METRICS[metric].description,
                protocol=protocol,
            )
        if grid is None:
            grid = _nearest_grid(real, fake, source, context, extractor)
    return GroupResult([values[metric] for metric in wanted if metric in values], missing, grid)


def _by_extractor(wanted: Sequence[str], chosen: str) -> dict[str, list[str]]:
    """The metrics of each extractor. Inception computes every metric if it is the one chosen.

    The chosen extractor comes first: the grid of nearest training images is by its features.
    """
    from rivals.metrics.generative import METRICS

    found: dict[str, list[str]] = {chosen: []}
    for metric in wanted:
        own = METRICS[metric].extractor
        found.setdefault(chosen if own is None or chosen.partition(":")[0] == own else own, []).append(metric)
    return {name: names for name, names in found.items() if names}


def _protocol(extractor: Extractor, source: Source, context: ScoreContext) -> Record:
    """Everything that a value depends on, besides the settings of the metric itself."""
    fake = context.fake.about
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
        "n_fake": context.fake.n,
        "fake_classes": fake.get("classes"),
        **numerics(context.device),
        "seed": context.seed,
    }


def _run(subject: Any) -> Run | None:
    """The run, if the subject is one."""
    if isinstance(subject, Run):
        return subject
    if isinstance(subject, str | Path) and (expand_user(subject) / "run.json").exists():
        return Run.open(expand_user(subject))
    return None


def _generator(subject: Any, run: Run | None, device: torch.device) -> Any:
    """The generator of a run or a file, or the subject itself; None if it is none.

    Raises:
        UserError: the run or the file holds another network.
    """
    from torch import nn

    if run is not None or (isinstance(subject, str | Path) and Path(subject).suffix == ".safetensors"):
        place = subject if run is None else run.folder
        net = load(place, device=str(device))
        if not hasattr(net, "sample"):
            raise UserError(f"the network at '{place}' is not a generator: name a run of 'rivals train'")
        return net
    return subject if isinstance(subject, nn.Module) and hasattr(subject, "sample") else None


def _generated_images(
    subject: Any, generator: Any, config: ScoreConfig, options: DataOptions, progress: PassProgress
) -> Source | Callable[[ImageSet], Source]:
    """The images to score: those of files, read as the real ones are, or those of a generator, given the real images,
    whose shares of classes they take.

    Raises:
        UserError: there are fewer than two, or the subject cannot be scored.
    """
    import torch

    from rivals.api.scoring.feature_passes import of_generator, of_set, of_tensor
    from rivals.data.builtin import DATASETS
    from rivals.data.imageset import ImageSet
    from rivals.data.load import load as load_images

    if generator is not None:
        place = subject.folder if isinstance(subject, Run) else subject
        name = type(subject).__name__ if subject is generator else str(place)
        return partial(of_generator, generator, config.n, config.seed, name)
    if isinstance(subject, str | Path):
        split = "test" if subject in DATASETS and "test" in DATASETS[str(subject)].counts else "train"
        subject = load_images(subject, split=split, on_note=progress.print, **options.written())
    if isinstance(subject, ImageSet):
        source = of_set(subject, config.n)
    elif isinstance(subject, torch.Tensor):
        source = of_tensor(subject[: config.n])
    else:
        raise UserError(
            f"a {type(subject).__name__} cannot be scored: give a run, a generator, a folder, a zip or uint8 images"
        )
    if source.n < 2:
        raise UserError(f"'{source.about['name']}' has 1 image, which has no spread: give 2 or more")
    return source


def _real_images(data: Any, run: Run | None, options: DataOptions, split: str, progress: PassProgress) -> ImageSet:
    """The real images: those named, or those that the run was trained on, read as it read them.

    Raises:
        UserError: none were named and there is no run, or there is only one image.
    """
    from rivals.api.common.resume import TrainingInfo
    from rivals.data.imageset import ImageSet
    from rivals.data.load import load as load_images
    from rivals.data.splits import hold_out

    if isinstance(data, ImageSet):
        images = data
    else:
        held_out, seed = 0, 0
        if data is None:
            source = {} if run is None else run.info.get("source", {})
            if run is None or "data" not in source:
                raise UserError(
                    "no real images were named to compare with: give a data set's name, a folder, a zip or shards"
                )
            needed = run.read_info(TrainingInfo)
            data, own = needed["source"]["data"], needed["data_options"]
            options = DataOptions().changed(**own).changed(**options.differences())
            if split == "train":
                held_out, seed = int(needed["config"].get("hold_out", 0)), needed["seed"]
        images = load_images(data, split=split, on_note=progress.print, **options.written())
        if 0 < held_out < len(images):
            images, _ = hold_out(images, held_out, seed)
    if len(images) < 2:
        raise UserError(f"'{images.name}' has 1 image, which has no spread: give 2 or more")
    return images


def _compare_sizes(context: ScoreContext) -> None:
    """Tell if the sets differ in size: the extractor resizes both, and blur is then not the generator's fault."""
    fake_size, real_size = context.fake.about["size"], context.images.size.written
    if fake_size != real_size:
        context.progress.print(
            f"generated images have {fake_size} px and real ones {real_size}: the extractor resizes both; "
            f"{resizing(Size.parse(fake_size), context.images.size)} compares them at one size"
        )


def _nearest_grid(
    real: FeatureSet, fake: FeatureSet, source: Source, context: ScoreContext, extractor: Extractor
) -> Any:
    """The first generated images, each next to its nearest training images."""
    import torch

    from rivals.metrics.prdc import nearest
    from rivals.reports.sections.neighbors import neighbor_grid

    assert source.indices is not None
    shown = min(SHOWN, fake.n)
    indices, _ = nearest(real.features, fake.features[:shown], min(NEAREST, real.n))
    generated = context.fake.block(0)[:shown].numpy()
    indices_of_real = source.indices[indices.cpu().flatten().numpy()]
    nearest_images = context.images.images[indices_of_real].reshape(*indices.shape, *context.images.images.shape[1:])
    return neighbor_grid(generated, torch.from_numpy(nearest_images).numpy())
