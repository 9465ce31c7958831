"""What the benchmark ``kills`` runs: small inputs, the commands on them, and what of their output must not change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.forked import Words, run
from rivals.api.robustness import before_after
from rivals.api.training import callbacks

GAN = ["--recipe", "mlp", "--generator-widths", "32", "--discriminator-widths", "32", "--latent-dim", "8"]
GAN += ["--batch-size", "8", "--sample-grid", "9", "--until", "120 steps", "--sample-every", "20 steps"]
CNN = ["--recipe", "cnn", "--widths", "8", "--batch-size", "16", "--until", "120 steps"]
OFTEN = ["--checkpoint-every", "9 steps", "--quiet"]


def make_inputs(home: Path) -> None:
    """200 gray images in two classes, ``home/photos``; a GAN, a classifier and a pushed network made of them."""
    rng = np.random.default_rng(0)
    for i in range(200):
        image = rng.integers(0, 100, (16, 16), dtype=np.uint8)
        image[:, 4:8] += np.uint8(120 * (i % 2))
        path = home / "photos" / ("bars" if i % 2 else "noise") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    before_after.IMAGES = callbacks.ROBUST_IMAGES = 20  # most of the time of a short demo
    photos = home / "photos"
    made: list[Words] = [
        ["train", photos, *GAN, "--out", home / "gan", "--quiet"],
        ["classify", photos, *CNN, "--out", home / "plain", "--quiet"],
        ["push", home / "gan", home / "pushed"],
    ]
    for words in made:
        ended = run(*words, streams=home)
        if ended.status:
            raise SystemExit(f"{words}: {ended.err}")


def resumable(home: Path) -> dict[str, Callable[[Path], Words]]:
    """The commands that are killed: each takes the place for its output and gives its words, which are also those that
    continue it.
    """
    photos, plain = home / "photos", home / "plain"
    auto = ["--resume", "auto", "--out"]
    return {
        "train": lambda out: ["train", photos, *GAN, *OFTEN, *auto, out],
        "classify": lambda out: ["classify", photos, *CNN, *OFTEN, *auto, out],
        "harden": lambda out: [
            *["harden", photos, *CNN, *OFTEN, "--eps", "0.1", "--method", "pgd", "--steps", "2"],
            *[*auto, out],
        ],
        "attack": lambda out: [
            *["attack", plain, photos, "--attack", "pgd(steps=5),square(queries=20)", "--eps", "0.05,0.1"],
            *["-n", "60", "--no-alarms", "--batch-size", "5", "--quiet", *auto, out],
        ],
        "certify": lambda out: [
            *["certify", plain, photos, "-n", "20", "--samples", "100", "--draws", "4", "--steps", "3"],
            *["--quiet", *auto, out],
        ],
        "score": lambda out: [
            *["score", home / "gan", photos, "-n", "200", "--extractor", f"classifier:{plain}"],
            *["--metrics", "fid,kid,prdc", "--quiet", "--out", out],
        ],
        "demo": lambda out: ["demo", "--until", "4 steps", "--hardening", "40 steps", *auto, out],
    }


def writing(home: Path) -> dict[str, Callable[[Path], Words]]:
    """All commands that write, with the place for their output."""
    photos, gan = home / "photos", home / "gan"
    return {
        **resumable(home),
        "sample --grid": lambda out: ["sample", gan, "--grid", out / "grid.png"],
        "sample --gif": lambda out: ["sample", gan, "--gif", out / "film.gif"],
        "sample --folder": lambda out: ["sample", gan, "--folder", out, "-n", "100"],
        "explore": lambda out: ["explore", gan, "pca", "--out", out],
        "export": lambda out: ["export", gan, "--out", out / "generator.onnx"],
        "push": lambda out: ["push", gan, out],
        "pull": lambda out: ["pull", home / "pushed", "--out", out],
        "report": lambda out: ["report", gan, "--out", out / "report.html"],
        "data pack": lambda out: ["data", "pack", photos, out / "photos.zip"],
    }


def outcome(folder: Path, *, networks_only: bool = False) -> dict[str, Any]:
    """What a command has left in its folder, by name: bytes, and JSON without what a clock says.

    Args:
        folder: Its output.
        networks_only: Leave out the records and pictures of a run, whose number depends on the speed unless it is set.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or "checkpoints" in name or "best/" in name or path.name in ("report.html", "curves.png"):
            continue
        if networks_only and path.suffix != ".safetensors" and path.name != "before_after.json":
            continue
        if path.name == "run.json":
            info = json.loads(path.read_text())
            found[name] = _timeless({key: info.get(key) for key in ("state", "images", "step", "alarms", "results")})
        elif path.suffix in (".json", ".jsonl"):
            found[name] = [_timeless(json.loads(line)) for line in _documents(path)]
        else:
            found[name] = path.read_bytes()
    return found


def _documents(path: Path) -> list[str]:
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def _timeless(value: Any) -> Any:
    """A JSON value without the entries that a clock or the name of the folder decides."""
    if isinstance(value, dict):
        clocked = ("second", "created", "command_line", "run", "page", "weights", "source")
        return {key: _timeless(each) for key, each in value.items() if not any(word in key for word in clocked)}
    if isinstance(value, list):
        return [_timeless(each) for each in value]
    return value
