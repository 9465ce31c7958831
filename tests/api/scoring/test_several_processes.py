"""Scores on several processes: the numbers of one, or one line."""

import os

import numpy as np
import pytest
import torch

import rivals
from helpers.processes import run_in_processes
from helpers.small_networks import small_net
from rivals.api.common.network_io import save_network
from rivals.api.scoring.feature_passes import BLOCK, Source
from rivals.base import launcher
from rivals.base.process_group import ALONE
from rivals.data.imageset import ImageSet
from rivals.nets.factory import build_generator

METRICS = "fd,is,prdc"
REAL, FAKE = 2 * BLOCK + 70, 3 * BLOCK + 5


@pytest.fixture
def score(tmp_path, monkeypatch):
    """Scores a generator on some processes, each with an empty cache: a function of how it is called."""
    (tmp_path / "eyes").mkdir()
    save_network(small_net(), tmp_path / "eyes" / "classifier.safetensors", {})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = build_generator("mlp", size=16, channels=1, classes=2, latent_dim=4, widths=(8,))

    def score(size, before=lambda processes: None, **settings):
        def function(processes):
            torch.set_num_threads(1)
            monkeypatch.setattr(launcher, "_started", lambda: processes)
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{size}"))
            pixels = np.random.default_rng(before(processes) or 0).integers(0, 256, (REAL, 1, 16, 16), dtype=np.uint8)
            real = ImageSet("noise", "train", pixels, np.arange(REAL) % 2, ("even", "odd"))
            found = rivals.score(
                generator,
                real,
                n=FAKE,
                n_real=REAL,
                extractor=f"classifier:{tmp_path / 'eyes'}",
                quiet=True,
                **settings,
            )
            return found.as_dict()

        # One process scores here, and imports what its forks need.
        return [function(ALONE)] if size == 1 else run_in_processes(size, function, timeout=20)

    return score


def test_any_number_of_processes_gets_the_same_numbers(score):
    [one] = score(1, metrics=METRICS)
    assert [value["metric"] for value in one["values"]][:3] == ["fd", "is", "precision"]
    assert score(2, metrics=METRICS) == [one] * 2
    assert score(4, metrics=METRICS) == [one] * 4
    assert score(2, metrics=METRICS) == [one] * 2  # with features that were cached


def test_what_cannot_be_scored_or_saved_is_one_line_in_all(score, tmp_path):
    (tmp_path / "file").touch()
    first, second = score(2, metrics="fd", out=tmp_path / "file" / "scores")
    assert first.startswith("UserError: ")
    assert second == first.replace("UserError: ", "UserError: process 0: ")
    first, second = score(2, metrics="cmmd")
    assert first.startswith("UserError: cmmd: clip has no weights here")
    assert second.startswith("UserError: process 0: cmmd: ")


def test_a_process_with_other_images_is_refused(score):
    for line in score(2, before=lambda processes: processes.rank, metrics="fd"):
        assert line.startswith("UserError: process 1 has another images than process 0, ")


def test_a_process_that_dies_is_missed(score, monkeypatch):
    def before(processes):
        if processes.rank == 1:
            monkeypatch.setattr(Source, "n_blocks", property(lambda source: os._exit(9)))

    first, second = score(2, before=before, metrics="fd")
    assert second is None
    assert first.startswith("ProcessLost: process 0 of 2 lost contact")
    assert first.endswith("start again")
