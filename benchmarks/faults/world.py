"""What is mangled: small images, runs and networks, made once by the commands themselves."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from rivals.cli.main import main

SUFFIXES = ("png", "jpg", "bmp", "gif", "webp", "tif", "ppm", "tga", "ico", "sgi", "pcx", "jp2")
GAN = (
    *("--net", "mlp", "--until", "2 steps", "--batch-size", "4", "--latent-dim", "4", "--generator-widths", "8", "4"),
    *("--discriminator-widths", "4", "8", "--sample-grid", "4", "--quiet"),
)
CLASSIFIER = ("--until", "2 steps", "--batch-size", "4", "--widths", "4", "--quiet")


class World:
    """A folder with ``photos``, ``mixed`` (one image in each format), ``photos.zip``, ``shards``, runs and networks.

    Args:
        home: An empty folder.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.resolve()
        rng = np.random.default_rng(0)
        for i in range(12):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            self._save(pixels, self.home / "photos" / ("cats" if i % 2 else "dogs") / f"{i}.png")
            self._save(pixels, self.home / "mixed" / f"{i}.{SUFFIXES[i]}")
        evaluated = ("classifier", "./photos", "--quiet")
        with environment(self.home, self.home / "cache"):
            for words in (
                ("data", "pack", "photos", "photos.zip"),
                ("data", "pack", "photos", "shards", "--shards", "2"),
                ("train", "./photos", "--out", "gan", *GAN),
                ("classify", "./photos", "--out", "classifier", *CLASSIFIER),
                ("attack", *evaluated, "--attack", "fgsm", "--no-alarms", "--out", "attacked"),
                ("certify", *evaluated, "--samples", "10", "--guesses", "2", "--no-upper", "--out", "certified"),
                ("data", "pack", "./photos", "again.zip", "--size", "9"),  # which fills the cache
            ):
                said = io.StringIO()
                with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                    try:
                        main(list(words))
                    except SystemExit as stop:
                        if stop.code:
                            raise RuntimeError(f"rivals {' '.join(words)}: {said.getvalue()}") from None

    @staticmethod
    def _save(pixels: np.ndarray, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((16, 16) if path.suffix == ".ico" else (8, 8)).save(path)

    def copy(self, name: str, place: Path) -> Path:
        """A copy of a file or folder of this world in ``place``."""
        source, dest = self.home / name, place / name
        if source.is_dir():
            shutil.copytree(source, dest)
        else:
            dest.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, dest)
        return dest


@contextlib.contextmanager
def environment(folder: Path, cache: Path) -> Iterator[None]:
    """Work in ``folder`` with the cache and the data sets there, and so with none by name."""
    before, here = dict(os.environ), Path.cwd()
    os.environ |= {"XDG_CACHE_HOME": str(cache), "RIVALS_DATA": str(folder / "data")}
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
