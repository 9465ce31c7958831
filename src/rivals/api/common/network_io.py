"""``load`` and ``sample``: network files, and images of a generator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from rivals.base import devices, launcher
from rivals.base.errors import UserError
from rivals.base.files import make_folder, write_atomically
from rivals.base.process_group import ALONE, ProcessGroup
from rivals.base.registry import unknown
from rivals.base.seeds import parse_seeds
from rivals.base.tensor_files import DamagedFile, read_tensors, sign, verify
from rivals.base.typed_json import Between, read_json
from rivals.nets.spec import Spec
from rivals.recipes.options import SampleConfig

if TYPE_CHECKING:
    from torch import Tensor

    from rivals.nets.generator import Generator

FORMAT = 2  # of the JSON file: 2 has a digest
ROLES = ("generator", "classifier", "translator", "encoder")  # the names of network files
FRAMES = 20  # of an interpolation, between two images
BLOCK = 64  # frames generated at a time
FIX = "copy both files of the network anew, or resume the run that wrote them"


class Description(TypedDict):
    """The JSON file of a network, as far as anything depends on it."""

    format: int
    digest: str
    spec: Spec
    data: NotRequired[str]
    classes: NotRequired[list[str]]
    white: NotRequired[Annotated[int, Between(1, 2**32)] | None]


def save_network(net: Any, path: Path, about: dict[str, Any]) -> None:
    """Write a network as ``path`` (.safetensors, its weights) and ``path`` with .json (how to build it).

    Raises:
        UserError: they cannot be written; older files are intact.
    """
    from safetensors.torch import save

    weights = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    write_atomically(path, save(weights))
    facts = sign(weights, {"format": FORMAT, "spec": net.spec, **about})
    write_atomically(path.with_suffix(".json"), json.dumps(facts, indent=2).encode() + b"\n")


def read_description(file: Path) -> Description:
    """The description beside a network's ``.safetensors`` file. That it belongs to the weights :func:`load` verifies.

    Raises:
        UserError: there is none, or it is invalid.
    """
    path = file.with_suffix(".json")
    try:
        about = read_json(path, Description, FIX)
    except FileNotFoundError:
        raise UserError(f"'{file}' has no {path.name} beside it: copy that too") from None
    if about["format"] > FORMAT:
        raise UserError(f"'{path}' was written by a newer version of rivals: update rivals")
    names, spec = about.get("classes"), about["spec"]
    if names and spec["classes"] not in (0, len(names)):
        raise UserError(f"'{path}' is invalid: it names {len(names):,} of {spec['classes']:,} classes: {FIX}")
    return about


def load(path: str | Path, *, device: str = "cpu") -> Any:
    """The network in a run folder or a ``.safetensors`` file with its ``.json`` beside it. Nothing is unpickled.

    Args:
        path: A run folder, or the file.
        device: Where to put it.

    Returns:
        The module in evaluation mode: a generator with ``.sample(n)``, a classifier, which maps images (n, C, H, W) in
        [0, 1] to logits, a translator or the perturber of an attack, which map them to images in [0, 1], or an encoder,
        which maps images in [-1, 1] to latents. Its ``about`` is what the .json says, without the digest.

    Raises:
        UserError: there is no network, one of its files is damaged, or they do not belong together.
    """
    from rivals.nets.factory import rebuild, shapes_of

    file = Path(path)
    if file.is_dir():
        candidates = [file / f"{role}.safetensors" for role in ROLES]
        file = next((each for each in candidates if each.exists()), candidates[0])
    if not file.exists():
        raise UserError(
            f"no network at '{path}': name a .safetensors file or a run that has ended (a killed one ends by "
            "'--resume --out RUN')"
        )
    if file.suffix != ".safetensors":
        instead = f"onnx:{path}" if file.suffix == ".onnx" else "a .safetensors file or a run folder"
        raise UserError(f"'{path}' is no network of rivals: name {instead}")
    about = read_description(file)
    try:
        shapes = shapes_of(about["spec"])
    except UserError as error:
        raise UserError(f"'{file}' cannot be a network as its .json describes it ({error}): {FIX}") from None
    try:
        weights, _ = read_tensors(file, shapes)
        facts = verify(weights, about, f"'{file}' or its .json")
    except DamagedFile as error:
        raise UserError(f"{error}: {FIX}") from None
    net: Any = rebuild(about["spec"])
    net.load_state_dict(weights)
    net.about = facts
    return net.to(devices.pick(device)).eval()


def generator_of(run: str, *, device: str = "cpu") -> Generator:
    """The generator of a run, as :func:`load` gives it.

    Raises:
        UserError: there is none, or the network there is a classifier.
    """
    net: Any = load(run, device=device)
    if net.spec["role"] != "generator":
        raise UserError(f"the network at '{run}' is not a generator: name a run of 'rivals train'")
    generator: Generator = net
    return generator


def home_of(run: str) -> Path:
    """The folder for what is made from a run: its own, or that of its file."""
    place = Path(run)
    return place if place.is_dir() else place.parent


def sample(
    run: str,
    *,
    grid: Path | None = None,
    folder: Path | None = None,
    gif: Path | None = None,
    device: str = "auto",
    **settings: Any,
) -> dict[str, Any]:
    """Generate images with the generator of a run.

    Args:
        run: A run folder, or a generator's .safetensors file.
        grid: Write all images as one sample grid, a .png, .jpg, .webp, .bmp or .tif; RUN/sample-SEED.png if neither of
            the three is given.
        folder: Write each image as a file into this folder.
        gif: Write an animation that interpolates from image to image and back to the first, a .gif, .webp or .apng.
        device: cpu, cuda, mps or another device of PyTorch; auto takes the accelerator if there is one.
        **settings: Any field of :class:`rivals.recipes.SampleConfig`, such as ``n=16``.

    Returns:
        What was written: ``{"grid": path, ...}``.

    Raises:
        UserError: something the user can fix; no file is written over.
    """
    import torch

    from rivals.api.common.alike import check_alike
    from rivals.base.hashing import weights_hash
    from rivals.reports import image_grid

    processes = launcher.current()
    processes.remedy = "start again"
    config, home = SampleConfig().changed(**settings), home_of(run)
    grid, folder, gif = (None if path is None else Path(path) for path in (grid, folder, gif))
    if grid is None and folder is None and gif is None:
        grid = home / f"sample-{config.seed if config.seeds is None else _file_name(config.seeds)}.png"
    with processes.together():
        if processes.first:
            for path, formats in ((grid, image_grid.PICTURES), (gif, image_grid.ANIMATIONS)):
                if path is not None:
                    image_grid.check_suffix(path, formats)
                if path is not None and path.exists():
                    raise UserError(f"'{path}' exists already: remove it or choose another name")
    with processes.together():
        generator = generator_of(run, device=device)
        seeds = None if config.seeds is None else parse_seeds(config.seeds)
        n = config.n if seeds is None else len(seeds)
        labels = None if config.label is None else [class_of(generator, config.label)] * n
    check_alike(processes, {"generator": weights_hash(generator), "settings": str(config)})
    which: dict[str, Any] = {"n": n, "seed": config.seed} if seeds is None else {"seeds": seeds}
    images = frames = None
    if grid is not None or folder is not None:
        with processes.together():
            passes = generator.passes(**which, truncation=config.truncation, labels=labels)
        parts = processes.compute(len(passes), lambda number: [passes[number].images()], everywhere=False)
        images = torch.cat([part for [part] in parts]).numpy() if processes.first else None
    if gif is not None:
        frames = interpolate(generator, config, labels, processes=processes)
    with processes.outlast_first():
        with processes.together(patient=True):
            if images is not None:
                _write_images(images, grid, folder, [f"seed-{seed:06d}" for seed in seeds or ()])
            if gif is not None and frames is not None:
                make_folder(gif.parent, parents=True)
                image_grid.save_animation([image_grid.make_grid(frame[None]) for frame in frames], gif)
        places = {"grid": grid, "folder": folder, "gif": gif}
        written: dict[str, Any] = processes.share({what: str(place) for what, place in places.items() if place})
    return written


def _write_images(images: Any, grid: Path | None, folder: Path | None, names: Sequence[str]) -> None:
    """Write images, uint8 (n, C, H, W), as a grid, into a folder, or both."""
    from rivals.reports import image_grid

    if grid is not None:
        make_folder(grid.parent, parents=True)
        image_grid.save_picture(image_grid.make_grid(images), grid)
    if folder is not None:
        image_grid.save_folder(images, folder, names)


def _file_name(seeds: str) -> str:
    """The seeds as part of a file's name, which has at most 255 bytes."""
    short = "".join(seeds.split())
    return short if len(short) <= 100 else f"{short[:100]}-and-more"


def interpolate(
    generator: Generator,
    config: SampleConfig,
    labels: Sequence[int] | None,
    interpolation: str = "sphere",
    processes: ProcessGroup = ALONE,
) -> Any:
    """Images (n * FRAMES, C, H, W) on a closed path through ``n`` latents of ``seed``, or one of each of ``seeds``.

    Several processes share them, and only the first one gets any.
    """
    from rivals.latent.interpolation import walk

    if config.seeds is None:
        stops = generator.latents(config.n, config.seed, config.truncation)
        kinds = [i % max(generator.classes, 1) for i in range(config.n)]
    else:
        stops = generator.latents_of_seeds(parse_seeds(config.seeds), config.truncation)
        kinds = [0] * len(stops)
    kinds = kinds if labels is None else list(labels)
    path = walk(stops, FRAMES, interpolation)
    return generate_blocks(generator, path, [kind for kind in kinds for _ in range(FRAMES)], processes)


def generate_blocks(generator: Generator, z: Tensor, kinds: Sequence[int], processes: ProcessGroup = ALONE) -> Any:
    """Images of latents (n, latent_dim) and class numbers, one block at a time: uint8 (n, C, H, W).

    Several processes share the blocks, and only the first one gets images.
    """
    import torch

    def block(number: int) -> list[Tensor]:
        part = slice(number * BLOCK, (number + 1) * BLOCK)
        return [generator.generate(z[part], torch.tensor(kinds[part]) if generator.classes else None)]

    blocks = processes.compute(-(-len(z) // BLOCK), block, everywhere=False)
    return torch.cat([images for [images] in blocks]).numpy() if processes.first else None


def class_of(generator: Generator, label: str) -> int:
    """The index of a class by its name or number; where names are numbers, only by its name.

    Raises:
        UserError: the generator is unconditional, or has no such class.
    """
    from rivals.data.classes import class_index

    names = generator.about.get("classes") or []
    if not generator.classes:
        raise UserError(f"--label {label}: this generator is unconditional: leave --label out")
    index = class_index(label, names, generator.classes)
    if index is None:
        raise unknown("class", label, names or map(str, range(generator.classes)))
    return index
