"""Decoded images are recognized by the content of their files, and a killed decoding goes on where it was."""

from __future__ import annotations

import os
import shutil
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rivals.data import contents, decode_cache, progress_notes
from rivals.data import load as loading
from rivals.data.batches import Batches
from rivals.data.decode import decode
from rivals.data.imageset import ImageSet
from rivals.data.load import load
from rivals.data.selection import Selection
from rivals.data.splits import hold_out, subset

COUNT = 100  # four chunks of 32


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8))


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "SETTLING_NS", -(10**15))  # stamps count at once, as of files that are old
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(COUNT):
        noise(i).save(folder / f"{i:03d}.bmp")
    return folder


class Counter:
    """Counts the images that are decoded and the files that are read, and may stop in between."""

    def __init__(self, monkeypatch, stop_after=None):
        self.decoded = self.read = 0
        original = contents.digest_of_files

        def count_decoded(listing, **options):
            for chunk in decode(listing, **options):
                if stop_after is not None and self.decoded >= stop_after:
                    raise KeyboardInterrupt
                self.decoded += len(chunk.pixels) + len(chunk.bad)
                yield chunk

        def count_read(files, *more):
            files = list(files)
            self.read += len(files)
            return original(iter(files), *more)

        monkeypatch.setattr(loading, "decode", count_decoded)
        monkeypatch.setattr(contents, "digest_of_files", count_read)


def test_images_that_moved_or_were_copied_or_packed_are_not_decoded_again(photos, monkeypatch):
    right = load(photos)
    counter = Counter(monkeypatch)
    photos.rename("moved")
    shutil.copytree("moved", "copied")
    with zipfile.ZipFile("packed.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(Path("moved").iterdir()):
            file.write(path, path.name)
    for place in ("./moved", "./copied", "packed.zip"):
        assert load(place).hash == right.hash
    assert counter.decoded == 0 and counter.read == 3 * COUNT


def test_files_are_not_read_again_as_long_as_their_stamps_are_the_same(photos, monkeypatch):
    load(photos)
    counter = Counter(monkeypatch)
    load(photos)
    assert counter.read == counter.decoded == 0


def test_a_changed_file_is_noticed_though_size_and_time_are_the_old_ones(photos, monkeypatch):
    before = load(photos).hash
    changed = photos / "050.bmp"
    stamp = changed.stat()
    noise(999).save(changed)
    os.utime(changed, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert changed.stat().st_size == stamp.st_size and changed.stat().st_mtime_ns == stamp.st_mtime_ns
    images = load(photos)
    assert images.hash != before
    assert np.array_equal(images.images[50, 0], np.asarray(noise(999)))


def test_stamps_of_files_that_have_just_changed_are_not_trusted(photos, monkeypatch):
    monkeypatch.setattr(contents, "SETTLING_NS", 2_000_000_000)
    load(photos)
    counter = Counter(monkeypatch)
    load(photos)
    assert counter.read == COUNT and counter.decoded == 0


def test_a_damaged_stamp_file_is_passed_over(photos):
    right = load(photos).hash
    (stamp,) = Path("cache/rivals/contents").iterdir()
    for content in (b"", b"0 0", b"\xff", stamp.read_bytes().replace(stamp.read_bytes()[:1], b"x")):
        stamp.write_bytes(content)
        assert load(photos).hash == right


def test_a_decoding_that_was_stopped_goes_on_where_it_was(photos, monkeypatch):
    (photos / "000.bmp").write_bytes(b"broken")  # the first chunk has an unreadable image, the third a colored one
    Image.new("RGB", (8, 8), (1, 2, 3)).save(photos / "070.bmp")
    monkeypatch.setenv("RIVALS_CACHE", "other")
    right = load(photos, skip_bad=True, on_note=lambda note: None)
    monkeypatch.delenv("RIVALS_CACHE")
    notes: list[str] = []
    with monkeypatch.context() as patch:
        Counter(patch, stop_after=64)
        with pytest.raises(KeyboardInterrupt):
            load(photos, skip_bad=True, on_note=notes.append)
    assert "stopped after 64 of 100 images: the same command goes on from there" in notes
    counter = Counter(monkeypatch)
    images = load(photos, skip_bad=True, on_note=notes.append)
    assert counter.decoded == 36
    assert any("64 of 100 images" in note and "decoded before" in note for note in notes)
    assert images.hash == right.hash and any("skipped 1 of the 100" in note for note in notes)
    assert [path.name[0] for path in decode_cache.folder().iterdir()] != ["."]


@pytest.mark.parametrize("damage", ["pixels", "half a line", "another line", "no pixels"])
def test_what_is_damaged_of_a_stopped_decoding_is_decoded_again(photos, monkeypatch, damage):
    right = load(photos).hash
    shutil.rmtree("cache")
    with monkeypatch.context() as patch:
        Counter(patch, stop_after=96)
        with pytest.raises(KeyboardInterrupt):
            load(photos, on_note=lambda note: None)
    (partial,) = decode_cache.folder().iterdir()
    pixels, journal = partial / "images.u8", partial / "pieces.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    if damage == "pixels":
        content = bytearray(pixels.read_bytes())
        content[40 * 64] ^= 1
        pixels.write_bytes(content)
    elif damage == "half a line":
        journal.write_bytes(b"".join(lines[:1]) + lines[1][:-9])
    elif damage == "another line":
        journal.write_bytes(lines[0] + lines[1].replace(b'"peak": 0', b'"peak": 9') + lines[2])
    else:
        pixels.unlink()
    counter = Counter(monkeypatch)
    assert load(photos, on_note=lambda note: None).hash == right
    assert counter.decoded == COUNT - (0 if damage == "no pixels" else 32)


def test_what_a_killed_decoding_left_long_ago_is_removed(photos):
    left = decode_cache.folder() / ".abandoned"
    left.mkdir(parents=True)
    (left / "images.u8").write_bytes(b"x")
    fresh = decode_cache.folder() / ".fresh"
    fresh.mkdir()
    long_ago = time.time() - decode_cache.ABANDONED - 60
    for path in (left / "images.u8", left):
        os.utime(path, (long_ago, long_ago))
    load(photos)
    assert not left.exists() and fresh.exists()


def test_of_several_that_want_the_same_images_one_decodes(photos, monkeypatch):
    counter = Counter(monkeypatch)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(load(photos).hash)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len(set(found)) == 1 and counter.decoded == COUNT
    assert not list(Path("cache/rivals/locks").iterdir())


def test_deep_images_are_decoded_again_when_the_brightest_of_another_split_changes():
    for split, value in (("train", 900), ("test", 1000)):
        Path("deep", split).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(Path("deep", split, "a.png"))
    assert load("./deep", on_note=lambda note: None).white == 1023
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save("deep/test/a.png")
    for _ in range(2):
        images = load("./deep", on_note=lambda note: None)
        assert images.white == 4095 and images.images[0, 0, 0, 0] == round(900 / 4095 * 255)


def test_long_work_says_how_far_it_is(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress_notes, "FIRST", 5.0)
    monkeypatch.setattr(progress_notes.time, "monotonic", lambda: now[0])
    notes: list[str] = []
    progress = progress_notes.ProgressNotes(notes.append, "decoded {done} of 10,000 images of 'x'", 10_000)
    for second in range(1, 100):
        now[0] = second
        progress.show(second * 100)
    assert notes[0] == "decoded 500 of 10,000 images of 'x' (100 a second, 2 min left)"
    assert len(notes) == 4  # after 5, 15, 35 and 75 seconds
    assert notes[-1].endswith("(100 a second, 25 s left)")


def test_images_held_out_are_views(photos, monkeypatch):
    for limit in (10**9, 100):
        monkeypatch.setattr(decode_cache, "memory_limit", lambda limit=limit: limit)
        images = load(photos)
        pixels = images.images[:]
        rest, aside = hold_out(images, 30, seed=1)
        assert isinstance(rest.images, Selection) and rest.images.images is images.images
        assert isinstance(aside.images, Selection) and len(rest) == 70 and aside.images.nbytes == 30 * 64
        twice = subset(rest, np.arange(0, 70, 3))
        assert isinstance(twice.images, Selection) and twice.images.images is images.images
        copy = ImageSet("copy", "train", pixels[rest.images.indices][::3])
        assert np.array_equal(twice.images[:], copy.images) and np.array_equal(np.asarray(twice.images), copy.images)
        assert np.array_equal(twice.images[3], copy.images[3]) and twice.hash == copy.hash
        one, other = (Batches(each, 6, seed=4, flip=True).draw(3)[0] for each in (twice, copy))
        assert (one == other).all()


def test_flips_of_small_and_large_images_are_the_chosen_ones():
    for side in (8, 128):
        pixels = np.random.default_rng(0).integers(0, 256, (12, 1, side, side), dtype=np.uint8)
        images = ImageSet("noise", "train", pixels)
        plain, flipped = (Batches(images, 12, seed=0, flip=flip).draw(0)[0] for flip in (False, True))
        same = [bool((a == b).all()) for a, b in zip(plain, flipped, strict=True)]
        mirrored = [bool((a.flip(2) == b).all()) for a, b in zip(plain, flipped, strict=True)]
        assert 0 < sum(same) < 12 and [not each for each in same] == mirrored
        assert np.array_equal(images.images, pixels)
