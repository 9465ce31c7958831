"""``load`` and ``sample``: finished networks and what they draw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivals.base import devices
from rivals.base.errors import UserError
from rivals.base.files import write_atomically
from rivals.base.registry import unknown

if TYPE_CHECKING:
    from torch import Tensor

    from rivals.nets.generator import Generator

KEPT = ("generator", "classifier")  # the networks that runs leave behind
FRAMES = 20  # of an interpolation, between two images
BLOCK = 64  # frames drawn at a time


def keep(net: Any, path: Path, about: dict[str, Any]) -> None:
    """Write a network as ``path`` (.safetensors, its weights) and ``path`` with .json (how to build it).

    Raises:
        UserError: they cannot be written; older files are intact.
    """
    from safetensors.torch import save

    weights = {key: value.detach().cpu().contiguous() for key, value in net.state_dict().items()}
    write_atomically(path, save(weights))
    facts = {"format": 1, "spec": net.spec, **about}
    write_atomically(path.with_suffix(".json"), json.dumps(facts, indent=2).encode() + b"\n")


def load(path: str | Path, *, device: str = "cpu") -> Any:
    """The network in a run folder or a ``.safetensors`` file with its ``.json`` beside it. Nothing is unpickled.

    Args:
        path: A run folder, or the file.
        device: Where to put it.

    Returns:
        The module in evaluation mode: a generator, whose ``.sample(n)`` draws, or a classifier, which maps images
        (n, C, H, W) in [0, 1] to logits. Its ``about`` is what the .json says.

    Raises:
        UserError: there is no network, or its files do not fit together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from rivals.nets.build import rebuild

    file = Path(path)
    if file.is_dir():
        kept = [file / f"{kind}.safetensors" for kind in KEPT]
        file = next((each for each in kept if each.exists()), kept[0])
    if not file.exists():
        raise UserError(
            f"no network at '{path}': name a .safetensors file or a run that has ended (a killed one ends by "
            "'--resume --out RUN')"
        )
    try:
        facts = json.loads(file.with_suffix(".json").read_text())
        net: Any = rebuild(facts["spec"])
        net.load_state_dict(load_file(file))
    except FileNotFoundError:
        raise UserError(f"'{file}' has no {file.with_suffix('.json').name} beside it: copy that too") from None
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"'{file}' cannot be read as a network: {reason}: copy both its files anew") from None
    net.about = facts
    return net.to(devices.pick(device)).eval()


def generator_of(run: str, *, device: str = "cpu") -> Generator:
    """The generator of a run, as :func:`load` has it.

    Raises:
        UserError: there is none, or the network there is a classifier.
    """
    net: Any = load(run, device=device)
    if net.spec["role"] != "generator":
        raise UserError(f"the network at '{run}' is no generator, so it draws nothing: name a run of 'rivals train'")
    generator: Generator = net
    return generator


def home_of(run: str) -> Path:
    """The folder in which what is made of a run is put: its own, or that of its file."""
    place = Path(run)
    return place if place.is_dir() else place.parent


def sample(
    run: str,
    *,
    n: int = 64,
    seed: int = 0,
    truncation: float = 1.0,
    label: str | None = None,
    grid: Path | None = None,
    folder: Path | None = None,
    gif: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Draw images with a run's generator.

    Args:
        run: A run folder, or a generator's .safetensors file.
        n: How many images; for a gif, how many it passes through.
        seed: Which images: the first of them are the same for every n.
        truncation: Below 1 draws closer to the mean: less varied, often cleaner.
        label: Draw only this class, by name or number (conditional generators).
        grid: Write one picture of all images; RUN/sample-SEED.png if neither of the three is given.
        folder: Write each image as a file into this folder.
        gif: Write a film that moves from image to image and back to the first.
        device: cpu, cuda, mps or another of PyTorch's; auto takes the accelerator if there is one.

    Returns:
        What was written: ``{"grid": path, ...}``.

    Raises:
        UserError: something the user can fix; no file is written over.
    """
    from rivals.reports import sheet

    home = home_of(run)
    if grid is None and folder is None and gif is None:
        grid = home / f"sample-{seed}.png"
    for path in (grid, gif):
        if path is not None and path.exists():
            raise UserError(f"'{path}' exists already: remove it or choose another name")
    generator = generator_of(run, device=device)
    labels = None if label is None else [class_of(generator, label)] * n
    written: dict[str, Any] = {}
    if grid is not None or folder is not None:
        images = generator.sample(n, seed=seed, truncation=truncation, labels=labels).numpy()
        if grid is not None:
            sheet.save_png(sheet.grid(images), grid)
            written["grid"] = str(grid)
        if folder is not None:
            sheet.save_folder(images, folder)
            written["folder"] = str(folder)
    if gif is not None:
        frames = interpolate(generator, n, seed, truncation, labels)
        sheet.save_gif([sheet.grid(frame[None]) for frame in frames], gif)
        written["gif"] = str(gif)
    return written


def interpolate(
    generator: Generator, n: int, seed: int, truncation: float, labels: Sequence[int] | None, way: str = "sphere"
) -> Any:
    """Images (n * FRAMES, C, H, W) on a closed path through the first ``n`` latents of ``seed``."""
    from rivals.latent.paths import walk

    kinds = labels if labels is not None else [i % max(generator.classes, 1) for i in range(n)]
    path = walk(generator.latents(n, seed, truncation), FRAMES, way)
    return drawn(generator, path, [kind for kind in kinds for _ in range(FRAMES)])


def drawn(generator: Generator, z: Tensor, kinds: Sequence[int]) -> Any:
    """Images of latents (n, latent) and, where it has classes, kinds: uint8 (n, C, H, W), a block at a time."""
    import torch

    frames = []
    for first in range(0, len(z), BLOCK):
        kind = torch.tensor(kinds[first : first + BLOCK]) if generator.classes else None
        frames.append(generator.draw(z[first : first + BLOCK], kind))
    return torch.cat(frames).numpy()


def class_of(generator: Generator, label: str) -> int:
    """The number of a class by its name or number."""
    names = generator.about.get("classes") or []
    if not generator.classes:
        raise UserError(f"--label {label}: this generator knows no classes: leave --label out")
    if label in names:
        return int(names.index(label))
    if label.isdecimal() and int(label) < generator.classes:
        return int(label)
    raise unknown("class", label, names or map(str, range(generator.classes)))
