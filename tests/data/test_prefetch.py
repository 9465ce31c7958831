"""Batches that a thread prepares: the same ones, with the same errors, and no thread left behind."""

import threading

import numpy as np
import pytest
import torch

import rivals
from rivals.base.errors import UserError
from rivals.data import decode_cache
from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet
from rivals.data.prefetch import PrefetchedBatches, prefetched

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
IMAGES = ImageSet("noise", "train", PIXELS, np.arange(20) % 2, ("a", "b"))


class Counting(Batches):
    """Notes which batches were made, and by which thread; cannot make that at index 5."""

    def __init__(self) -> None:
        super().__init__(IMAGES, 8, seed=1, micro_batches=2, flip=True, shift=1)
        self.made, self.threads = [], set()

    def draw(self, index, stream=0, part=0):
        self.threads.add(threading.current_thread().name)
        self.made.append((index, stream, part))
        if index == 5:
            raise UserError("no batch 5")
        return super().draw(index, stream, part)


def threads():
    return [each.name for each in threading.enumerate() if each.name.startswith("prefetch")]


def test_prefetched_batches_are_the_same_in_any_order():
    plain = Batches(IMAGES, 8, seed=1, micro_batches=2, flip=True, shift=1)
    order = [(0, 0), (1, 0), (2, 1), (3, 0), (1, 0), (2, 0), (3, 1), (0, 0), (9, 0)]  # with rollbacks
    with prefetched(plain, pin=False) as batches:
        assert (batches.n, batches.batch_size, batches.micro_batches) == (20, 8, 2)
        for index, stream in order:
            for part in range(2):
                mine, theirs = batches.draw(index, stream, part), plain.draw(index, stream, part)
                assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert not threads()


def test_the_next_batch_is_prepared_by_the_thread_when_one_is_taken():
    counting = Counting()
    with prefetched(counting, pin=False) as batches:
        for index in range(4):
            for part in range(2):
                batches.draw(index, 0, part)
    assert counting.threads == {"prefetch_0"}
    assert counting.made[:8] == [
        (0, 0, 0),
        (1, 0, 0),
        (0, 0, 1),
        (1, 0, 1),
        *((i, 0, p) for i in (2, 3) for p in (0, 1)),
    ]


def test_an_error_is_raised_where_its_batch_is_taken():
    with prefetched(Counting(), pin=False) as batches:
        for index in range(5):
            batches.draw(index)
        with pytest.raises(UserError, match="no batch 5"):
            batches.draw(5)
        batches.draw(6)
    assert not threads()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, ValueError])
def test_the_thread_ends_with_what_it_was_for(kind):
    with pytest.raises(kind), prefetched(Counting(), pin=False) as batches:
        batches.draw(0)
        assert threads()
        raise kind
    assert not threads()


def test_pinned_batches_are_pinned(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.dtype) or self)
    with prefetched(Counting(), pin=True) as batches:
        batches.draw(0)
    assert pinned[:2] == [torch.uint8, torch.int64]
    pinned.clear()
    monkeypatch.setattr(Batches, "draw", lambda *_: (torch.zeros(1, device="meta"), torch.zeros(1)))
    with prefetched(Batches(IMAGES, 8, seed=1), pin=True) as batches:  # images that a generator made on its device
        batches.draw(0)
    assert pinned[0] == torch.float32 and torch.uint8 not in pinned  # the labels alone


def test_training_from_a_file_prefetches_with_the_same_bits(empty_folder, monkeypatch):
    used: list[int] = []
    original = PrefetchedBatches.draw
    monkeypatch.setattr(PrefetchedBatches, "draw", lambda self, *place: (used.append(1), original(self, *place))[1])
    from PIL import Image

    (empty_folder / "set").mkdir()
    for i in range(20):
        Image.fromarray(np.kron(PIXELS[i, 0], np.ones((2, 2), np.uint8))).save(empty_folder / f"set/{i:02}.png")
    settings = {"recipe": "dcgan", "batch_size": 8, "latent_dim": 8, "generator_widths": (8, 4), "flip": True}
    settings |= {"discriminator_widths": (4, 8), "sample_grid": 9, "quiet": True, "until": "6 steps"}
    rivals.train("./set", out="a", **settings)
    assert not used
    monkeypatch.setattr(decode_cache, "memory_limit", lambda: 100)
    rivals.train("./set", out="b", **{**settings, "until": "3 steps"})
    rivals.train(out="b", resume=True, until="6 steps", quiet=True)
    assert used and not threads()
    assert (empty_folder / "a/generator.safetensors").read_bytes() == (
        empty_folder / "b/generator.safetensors"
    ).read_bytes()
