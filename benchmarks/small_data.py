"""500 drawings in a folder, 64 px: the default recipe with the augmentation it chooses, and the same without.

Another 100 are the folder's test images, on which the discriminator is monitored.

The drawings are emoji of faces, animals, food and things (Google's Noto, Apache-2.0), as npm's package
``emoji-datasource-google`` has them, on white. Both runs get the same wall-clock minutes, with one thread: 40 for "20
minutes" of two cores. Reported are the alarms, the diversity of the last sample grids, and, on lite0's features, how
many generated images are farther from all training images than those are from one another (authenticity, Alaa et al.
2022: low where images were memorized).

    python -m benchmarks small_data
    python -m benchmarks.small_data 3      # tries it for 3 minutes each and records nothing
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from PIL import Image

import rivals
from benchmarks.harness import RESULTS, record

PACKAGE = "emoji-datasource-google@16.0.0"
GROUPS = ("Smileys & Emotion", "Animals & Nature", "Food & Drink", "Objects")
COUNT, TEST, SIZE, MINUTES = 500, 100, 64, 40
SIDES: dict[str, dict[str, Any]] = {"as it chooses": {}, "without augmentation": {"augment": "none"}}


@contextmanager
def package() -> Iterator[Callable[[str], bytes]]:
    """npm's package of emoji: what reads a file of it by name. It is fetched anew."""
    if shutil.which("npm") is None:
        sys.exit("npm is needed to fetch the drawings: install Node.js")
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=place, check=True, stdout=subprocess.DEVNULL)
        (packed,) = Path(place).glob("*.tgz")
        with tarfile.open(packed) as archive:

            def read(name: str) -> bytes:
                member = archive.extractfile(f"package/{name}")
                assert member is not None
                return member.read()

            yield read


def drawings(folder: Path) -> Path:
    """The folder of drawings, made once."""
    if folder.exists():
        return folder
    with package() as read:
        emoji = [each for each in json.loads(read("emoji.json")) if each["category"] in GROUPS]
        emoji.sort(key=lambda each: (GROUPS.index(each["category"]), each["sort_order"]))
        for split in ("train", "test"):
            (folder / split).mkdir(parents=True)
        for number, each in enumerate(emoji[: COUNT + TEST]):
            split = "train" if number % ((COUNT + TEST) // TEST) else "test"
            image = Image.open(io.BytesIO(read(f"img/google/64/{each['image']}"))).convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image)
            white.convert("RGB").resize((SIZE, SIZE)).save(folder / split / f"{number:03}.png")
    return folder


def side(name: str, data: Path, minutes: float, home: Path) -> dict[str, Any]:
    """Train one, and measure it."""
    out = home / f"drawings-{name.replace(' ', '-')}"
    shutil.rmtree(out, ignore_errors=True)
    run = rivals.train(str(data), until=f"{minutes:g} minutes", out=out, quiet=True, **SIDES[name])
    about = run.info
    diversities, overfitting = (
        [each[key] for each in run.records() if each.get(key) is not None] for key in ("diversity", "equilibrium/r_v")
    )
    scores = rivals.score(
        *(out, str(data)),
        **{"metrics": "fd,prdc,authenticity", "extractor": "lite0", "n": 2000, "n_real": COUNT, "quiet": True},
    )
    shutil.copy(out / "nearest.png", RESULTS / f"small_data_{name.replace(' ', '_')}_nearest.png")
    newest = max((out / "samples").glob("*.png"))
    shutil.copy(newest, RESULTS / f"small_data_{name.replace(' ', '_')}.png")
    return {
        "augment": about["config"]["augment"],
        "images": about["images"],
        "alarms": [alarm["alarm"] for alarm in about["alarms"]],
        "raised": sorted({each["alarm"] for each in run.records() if each.get("raised")}),
        "diversity": round(fmean(diversities[-3:]), 3),
        "r_v": round(fmean(overfitting[-3:]), 3),
        **{value["metric"]: round(value["value"], 4) for value in scores.as_dict()["values"]},
    }


def main() -> None:
    """Both sides."""
    torch.set_num_threads(1)
    minutes = float(sys.argv[1]) if sys.argv[1:] else MINUTES
    home = Path("runs/benchmark-small") / ("whole" if minutes == MINUTES else f"try-{minutes:g}")
    data = drawings(Path("runs/benchmark-small/drawings"))
    rows = {name: side(name, data, minutes, home) for name in SIDES}
    if minutes == MINUTES:
        record(
            "small_data",
            description=f"{COUNT} drawings at {SIZE} px, {minutes:g} minutes of one thread per side",
            minutes=minutes,
            sides=rows,
        )
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
