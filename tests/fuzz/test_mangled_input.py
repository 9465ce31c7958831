"""Mangled input of every kind: never a traceback, a hang, two lines, an unpickling, or damaged data taken for whole.

``python -m benchmarks faults`` runs thousands of such cases with another seed.
"""

import pytest
from benchmarks.faults.campaign import faults_of
from benchmarks.faults.world import World

SEED = 21
CASES = {
    "images in folders": 150,
    "zips, shards, dataset.json": 200,
    "run.json": 200,
    "metrics.jsonl": 150,
    "side files (npz, png)": 100,
    "safetensors, checkpoints": 100,
    "network .json": 250,
    "decoded cache": 80,
    "command-line values": 270,
}
PARTS = 2  # of each kind, so that two processes share them


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", CASES)
def test_mangled_input_is_refused_in_one_line_or_read(kind, part, world):
    assert not list(faults_of(kind, world, SEED, range(part, CASES[kind], PARTS)))
