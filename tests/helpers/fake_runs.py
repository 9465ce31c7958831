"""Run folders made up for tests of the reports: what a real run writes, at any length, without any training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from rivals.base.run_folder import Record, Run
from rivals.reports.image_grid import make_grid, save_png

SAYS = "The discriminator wins: it tells real from generated almost without error."
REMEDY = "Make the game closer: add a gradient penalty (--r1 0.1)."


def info(**changes: Any) -> Record:
    """What ``run.json`` says of a finished run."""
    return {
        "command": "train",
        "state": "finished",
        "created": "2025-03-04T05:06:07+00:00",
        "command_line": "rivals train mnist5k --until '4 minutes'",
        "seed": 0,
        "device": "cpu",
        "recipe": "quick",
        "config": {"batch_size": 64, "lr": 2e-4, "augment": None, "widths": [96, 48], "conditional": False},
        "data": {
            **{"name": "mnist5k", "split": "train", "n": 5000, "n_train": 4000},
            **{"size": 28, "channels": 1, "classes": ["0", "1"]},
        },
        "players": {
            "generator": {"net": "dcgan", "parameters": 1_234_567},
            "discriminator": {"net": "dcgan", "parameters": 987_654},
        },
        "equilibrium": {"loss/discriminator": 2 * math.log(2), "loss/generator": math.log(2), "d": 0.5},
        "d_unit": "probability",
        "hardware": {"processor": "A Processor", "threads": 2},
        "versions": {"python": "3.11.9", "torch": "2.9.0"},
        "git": None,
        "alarms": [],
        **changes,
    }


def batches(steps: int, *, batch_size: int = 64, seed: int = 0) -> list[Record]:
    """Records of a game that tends to the equilibrium; the penalty comes with every eighth step only."""
    random = np.random.default_rng(seed)
    t = np.arange(1, steps + 1) / steps
    lead = 0.1 + 0.35 * np.exp(-6 * t)
    real, fake = (np.clip(0.5 + s * lead + 0.05 * random.normal(size=steps), 0.01, 0.99) for s in (1, -1))
    columns = {
        "images": np.arange(1, steps + 1) * batch_size,
        "step": np.arange(1, steps + 1),
        "seconds": np.arange(1, steps + 1) * batch_size / 750,
        "loss/discriminator": -np.log(real) - np.log(1 - fake),
        "loss/generator": -np.log(fake),
        "d_real": real,
        "d_fake": fake,
        "grad_norm/discriminator": np.exp(0.4 * random.normal(size=steps)),
        "grad_norm/generator": np.exp(0.4 * random.normal(size=steps)),
        "images_per_second": np.full(steps, 750.0),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    for record in records[::8]:
        record["penalty/r1"] = 0.02
    return records


def place(record: Record) -> Record:
    """When a record was made."""
    return {key: record[key] for key in ("images", "step", "seconds")}


def fake_run(folder: Path, *, steps: int = 200, grids: int = 5, side: int = 28, seed: int = 0, **changes: Any) -> Run:
    """A run folder of ``steps`` batches with ``grids`` sample grids of noise, 16 images of ``side`` pixels each."""
    run = Run.create(folder, info(**changes))
    run.samples.mkdir()
    random = np.random.default_rng(seed)
    records = batches(steps, seed=seed)
    for i in range(1, grids + 1):
        at = place(records[i * steps // grids - 1])
        path = f"samples/{at['images']:09d}.png"
        save_png(make_grid(random.integers(0, 256, (16, 1, side, side), np.uint8), scale=1), folder / path)
        records.append({**at, "sample_grid": path, "diversity": round(i / grids, 3)})
    records.sort(key=lambda record: record["step"])
    run.metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    return run
