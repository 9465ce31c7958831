"""What every benchmark shares: the stamp of the machine, and the committed result."""

from __future__ import annotations

import json
import re
import statistics
import time
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

RESULTS = Path(__file__).parent / "results"


def record(name: str, **facts: Any) -> None:
    """Write ``results/NAME.json``: the facts with the command, the machine and the versions they were measured with."""
    stamp = {
        "command": f"python -m benchmarks {name}",
        "date": datetime.now(UTC).date().isoformat(),
        "hardware": provenance.hardware(torch.device("cpu")),
        "versions": provenance.versions(),
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(stamp | facts, indent=2)
    text = re.sub(r"\[\s+(-?\d+(?:,\s+-?\d+)*)\s+\]", lambda found: f"[{re.sub(chr(10) + ' *', ' ', found[1])}]", text)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def recorded(name: str, key: str) -> dict[str, Any]:
    """What is in ``results/NAME.json`` under ``key``; empty at first."""
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text())[key] if path.exists() else {}
    return found


def images_in(minutes: float, train: Callable[[int], Any], probes: tuple[int, int] = (4_000, 12_000)) -> int:
    """How many images a training sees in so many minutes of processor time, by two short runs.

    Processor time, unlike a clock, is not used up by other programs. The difference of the runs is the cost of images;
    what is left of the first, reading the data and the last evaluation, is paid once.

    Args:
        minutes: Of processor time, all told.
        train: Trains on so many images.
        probes: Images of the two runs.
    """
    spent = []
    for images in probes:
        start = time.process_time()
        train(images)
        spent.append(time.process_time() - start)
    cost = (spent[1] - spent[0]) / (probes[1] - probes[0])
    return max(probes[0], round((60 * minutes - (spent[0] - probes[0] * cost)) / cost))


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
