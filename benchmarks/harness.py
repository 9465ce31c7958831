"""What every benchmark shares: the stamp of the machine, and the committed result."""

from __future__ import annotations

import json
import re
import statistics
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from rivals.api.common import provenance
from rivals.data.imageset import ImageSet
from rivals.data.load import load as load_images

RESULTS = Path(__file__).parent / "results"

_read: dict[str, str] = {}  # hashes of the images that this process has loaded


def load(source: str | Path, **options: Any) -> ImageSet:
    """As :func:`rivals.data.load.load`; a result recorded later names the images with their hash."""
    images = load_images(source, **options)
    _read[f"{images.name} {images.split}"] = images.hash
    return images


def record(name: str, **facts: Any) -> None:
    """Write ``results/NAME.json``: the facts with the command, machine, versions and images they were measured with."""
    stamp = {
        "command": f"python -m benchmarks {name}",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": provenance.hardware(torch.device("cpu")),
        "versions": provenance.versions(),
    }
    if _read:
        stamp["data_hashes"] = dict(sorted(_read.items()))
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(stamp | facts, indent=2)
    text = re.sub(r"\[\s+(-?\d+(?:,\s+-?\d+)*)\s+\]", lambda found: f"[{re.sub(chr(10) + ' *', ' ', found[1])}]", text)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def recorded(name: str, key: str) -> dict[str, Any]:
    """What is in ``results/NAME.json`` under ``key``; empty at first."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text())[key] if path.exists() else {}
    return found


def packed(images: Tensor, path: Path) -> None:
    """Images (n, C, H, W) as PNGs in a zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
            buffer = BytesIO()
            Image.fromarray(image.squeeze()).save(buffer, "PNG", compress_level=1)
            archive.writestr(f"{number:05}.png", buffer.getvalue())


def in_turn(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each side once a round, one after the other, so that drift of the machine affects all alike."""
    values: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, measure in sides.items():
            values[name].append(round(measure(), 2))
            print(f"round {number + 1}: {name} {values[name][-1]:g}", flush=True)
    return values


def paired_ratio(ours: Sequence[float], *peers: Sequence[float]) -> float:
    """How many times the better peer's speed ours is: the median over rounds of each round's ratio.

    The machine drifts from round to round, and within one it hardly does, so the two sides of a round are compared.
    """
    ratios = [mine / max(theirs) for mine, *theirs in zip(ours, *peers, strict=True)]
    return round(statistics.median(ratios), 3)
