"""The cache of decoded images: damage of any kind is found, told, and mended by decoding again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rivals.base.errors import UserError
from rivals.data import decode, decode_cache, mapped_pixels, readers
from rivals.data import load as load_module
from rivals.data.batches import Batches
from rivals.data.imageset import ImageSet
from rivals.data.load import list_images, load
from rivals.data.mapped_pixels import MappedPixels, block_rows, digests
from rivals.data.partial_decode import PartialDecode

COUNT = 23


@pytest.fixture(autouse=True)
def small_blocks(tmp_path, monkeypatch):
    """Blocks of three images, in a cache of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped_pixels, "BLOCK", 3 * 8 * 8)


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    for i in range(COUNT):
        path = folder / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def mapped(monkeypatch):
    monkeypatch.setattr(decode_cache, "memory_limit", lambda: 100)


def entry() -> Path:
    (found,) = decode_cache.folder().iterdir()
    return found


def flip_a_bit(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 16
    file.write_bytes(content)


@pytest.mark.parametrize("at", [0, 700, COUNT * 64 - 1])
def test_a_flipped_pixel_in_memory_is_found_when_the_images_are_loaded(photos, at):
    right = load(photos).images
    flip_a_bit(entry() / "images.u8", at)
    notes: list[str] = []
    for count in (1, 1):
        assert np.array_equal(load(photos, on_note=notes.append).images, right)
        assert len(notes) == count and "are damaged: they are decoded again" in notes[0]


def test_every_change_of_the_description_is_found(photos):
    right = load(photos)
    about = entry() / "about.json"
    content = json.loads(about.read_text())
    changes: list[object] = [
        {"shape": [COUNT, 1, 8, 16]},
        {"shape": [COUNT - 3, 1, 8, 8]},
        {"shape": [-1, 1, 8, 8]},
        {"shape": [2**62, 4, 8, 8]},
        {"shape": [8, 8]},
        {"bad": [[0, "not an image"]]},
        {"bad": 3},
        {"peak": 255},
        {"peak": None},
        {"digests": content["digests"][::-1]},
        {"digests": []},
        {"digest": ""},
    ]
    texts = [json.dumps({**content, **change}) for change in changes if isinstance(change, dict)]
    for text in (*texts, "", "[" * 10**5, "null", "9" * 5000):
        about.write_text(text)
        notes: list[str] = []
        again = load(photos, on_note=notes.append)
        assert again.hash == right.hash and again.white == right.white and len(notes) == 1


def test_an_entry_with_a_pipe_or_without_images_is_decoded_again(photos):
    right = load(photos).hash
    (entry() / "images.u8").unlink()
    assert load(photos, on_note=lambda note: None).hash == right
    (entry() / "about.json").unlink()
    os.mkfifo(entry() / "about.json")
    assert load(photos, on_note=lambda note: None).hash == right


def test_mapped_images_are_verified_block_by_block_as_they_are_read(photos, mapped):
    right = load(photos).images[:].copy()
    flip_a_bit(entry() / "images.u8", 10 * 64)
    notes: list[str] = []
    images = load(photos, on_note=notes.append).images
    assert isinstance(images, MappedPixels)
    assert np.array_equal(images[:9], right[:9]) and np.array_equal(images[-1], right[-1])
    assert not notes  # image 10 has not been read yet
    assert np.array_equal(images[np.array([2, 11])], right[[2, 11]])
    assert len(notes) == 1
    assert np.array_equal(images[:], right)
    fresh = load(photos, on_note=notes.append).images
    assert np.array_equal(fresh[:], right) and len(notes) == 1


def test_batches_of_mapped_images_are_those_of_images_in_memory(photos, monkeypatch):
    small = load(photos)
    with monkeypatch.context() as patch:
        patch.setattr(decode_cache, "memory_limit", lambda: 100)
        large = load(photos)
    flip_a_bit(entry() / "images.u8", 500)
    for options in ({}, {"flip": True, "shift": 1}):
        one, other = (Batches(images, 8, seed=3, **options) for images in (small, large))
        for index in range(6):
            for mine, theirs in zip(one.draw(index), other.draw(index), strict=True):
                assert torch.equal(mine, theirs)


def test_damage_after_the_images_are_gone_is_one_line(photos, mapped):
    images = load(photos).images
    flip_a_bit(entry() / "images.u8", 5)
    (photos / "a" / "00.png").unlink()
    with pytest.raises(UserError, match=r"photos.* has changed since this command began: run it again"):
        images[0]


def test_a_cache_that_cannot_be_written_again_is_decoded_into_memory(photos, mapped, monkeypatch):
    notes: list[str] = []
    images = load(photos, on_note=notes.append).images
    right = images[:].copy()
    flip_a_bit(entry() / "images.u8", 5)
    images = load(photos, on_note=notes.append).images

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decode_cache, "_write", refuse)
    assert np.array_equal(images[:], right)
    assert ["damaged" in note for note in notes] == [True, False] and "stay in memory only" in notes[1]


@pytest.mark.parametrize("broken", ["no folder", "full disk"])
def test_images_that_fit_neither_the_disk_nor_the_memory_are_refused_at_once(photos, monkeypatch, broken):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((Path, "mkdir") if broken == "no folder" else (PartialDecode, "add")), refuse)
    assert len(load(photos)) == COUNT
    monkeypatch.setattr(decode_cache, "machine_memory", lambda: 2 * COUNT * 64 - 2)
    with pytest.raises(UserError, match=r"take 0.0 GiB, too much for the memory, and cannot write to .*No space left"):
        load(photos)


def test_blocks_have_the_digest_of_their_images_whatever_their_number(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 1, 8, 8), dtype=np.uint8)
    (tmp_path / "x").write_bytes(pixels.tobytes())
    expected = list(digests(pixels))
    assert block_rows(pixels.shape) == 3 and len(expected) == len(set(expected)) == 3
    images = MappedPixels(tmp_path / "x", pixels.shape, expected, lambda: pytest.fail("not damaged"))
    for index in (3, -7, slice(1, 6, 2), slice(5, 5), np.array([[6, 0], [2, 2]]), np.array([], np.int64)):
        assert np.array_equal(images[index], pixels[index])
    assert np.array_equal(np.asarray(images), pixels) and images.nbytes == pixels.nbytes
    assert ImageSet("x", "all", images).hash == ImageSet("x", "all", pixels).hash
    with pytest.raises(TypeError):
        torch.from_numpy(images)  # would read what is not verified


def test_two_decodings_without_a_lock_leave_no_wrong_image(photos, monkeypatch):
    right = load(photos).images[:]
    name = entry().name
    shutil.rmtree(entry())
    monkeypatch.setattr(decode, "_CHUNK", 4)
    partials = [PartialDecode(decode_cache.folder() / f".{name}") for _ in range(2)]  # both find it empty
    with list_images(photos, "train", print) as listing:
        chunks = [decode.decode(listing, size=None, crop=False, skip_bad=False) for _ in range(2)]
        for _ in range(2):
            for partial, decoded in zip(partials, chunks, strict=True):
                partial.add(next(decoded))
    for partial in partials:
        with pytest.raises(OSError, match="another process decodes the same images"):
            partial.finish()
        partial.__exit__(None, None, None)
    assert np.array_equal(load(photos).images[:], right)


@pytest.mark.parametrize("last", ["digests", "rename"])
@pytest.mark.parametrize("colored", [False, True])
def test_a_decoding_that_is_stopped_at_its_end_decodes_nothing_again(photos, monkeypatch, last, colored):
    if colored:  # the gray ones before it are written anew
        Image.fromarray(np.random.default_rng(99).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(photos / "b/99.png")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(*((decode_cache, "digests") if last == "digests" else (PartialDecode, "seal")), stop)
        load(photos)
    with monkeypatch.context() as patched:
        patched.setattr(PartialDecode, "add", lambda self, chunk: pytest.fail("decoded again"))
        images = load(photos).images[:]
    shutil.rmtree(decode_cache.folder())
    assert np.array_equal(images, load(photos).images[:])


def test_a_disk_that_fails_for_a_while_makes_no_bad_images(photos, monkeypatch):
    real, notes, failing = readers.read_small_file, list[str](), [True]

    def read(path, most):
        if failing and path.stem == "20" and decoding:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, most)

    decoding, first = [], load_module.decode

    def note_decoding(*args, **settings):
        decoding.append(True)
        return first(*args, **settings)

    monkeypatch.setattr(decode, "_CHUNK", 4)
    monkeypatch.setattr(load_module, "decode", note_decoding)
    monkeypatch.setattr(readers, "read_small_file", read)
    with pytest.raises(UserError, match=r"cannot read '.*20.png' of .*Input/output error.* may pass"):
        load(photos, skip_bad=True)
    failing.clear()
    assert len(load(photos, skip_bad=True, on_note=notes.append)) == COUNT
    assert any("were decoded before: going on from there" in note for note in notes)


def test_a_disk_that_fails_for_a_while_makes_no_bad_images_of_a_zip(photos, monkeypatch):
    with zipfile.ZipFile(photos.with_suffix(".zip"), "w") as archive:
        for path in sorted(photos.rglob("*.png")):
            archive.write(path, path.relative_to(photos))
    real, decoding = zipfile.ZipFile.open, []

    def read(self, entry, *more, **options):
        if decoding and getattr(entry, "filename", entry).endswith("20.png"):
            raise OSError(errno.EIO, "Input/output error")
        return real(self, entry, *more, **options)

    first = load_module.decode

    def note_decoding(*args, **settings):
        decoding.append(True)
        return first(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(load_module, "decode", note_decoding)
        patch.setattr(zipfile.ZipFile, "open", read)
        with pytest.raises(UserError, match=r"Input/output error.* may pass"):
            load(photos.with_suffix(".zip"), skip_bad=True)
    assert len(load(photos.with_suffix(".zip"), skip_bad=True)) == COUNT
