"""Hashes of weights, arrays and files."""

import hashlib

import numpy as np
import torch
from torch import nn

from rivals.base import hashing


def test_weights_have_one_hash_with_and_without_a_wrapper():
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert hashing.weights_hash(one) != hashing.weights_hash(other)
    other.load_state_dict(one.state_dict())
    assert hashing.weights_hash(one) == hashing.weights_hash(other) == hashing.weights_hash(nn.Sequential(one))
    assert len(hashing.weights_hash(one)) == 16
    with torch.no_grad():
        other.bias[0] += 1
    assert hashing.weights_hash(one) != hashing.weights_hash(other)


def test_arrays_are_hashed_in_blocks_as_one_run_of_bytes(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 4), dtype=np.uint8)
    labels = np.arange(7)
    expected = hashlib.blake2b(b"(7, 3, 4, 4)" + images.tobytes() + labels.tobytes(), digest_size=8).hexdigest()
    for block in (1, 100, 1 << 24):
        monkeypatch.setattr(hashing, "_BLOCK", block)
        assert hashing.arrays_hash(images.shape, images, labels) == expected


def test_a_file_has_the_sha256_that_others_compute(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert hashing.sha256(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()
