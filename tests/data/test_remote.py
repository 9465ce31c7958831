"""Sources in object stores, on two of fsspec's that need no network: memory and file."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from helpers.commands import assert_refused
from helpers.refusals import named
from rivals.data import remote
from rivals.data.load import has_split, load, source_name
from rivals.data.remote import is_url


@pytest.fixture(autouse=True)
def store(empty_folder, monkeypatch):
    """An empty store, which is asked every time."""
    monkeypatch.setattr(remote, "_FRESH_SECONDS", -1.0)
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def png(seed: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(content, "png")
    return content.getvalue()


def shard(first: int) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for i in range(first, first + 4):
            for name, data in ((f"{i:03}.png", png(i)), (f"{i:03}.cls", b"%d" % (i % 2))):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def fill(system) -> None:
    for number in range(3):
        system.pipe(f"/bucket/set/{number:02}.tar", shard(4 * number))
    system.pipe("/bucket/set/README.md", b"not copied")


def test_shards_folders_and_single_files_are_read_by_their_address(store, tmp_path):
    fill(store)
    images = load("memory://bucket/set/{00..02}.tar")
    assert images.labels.tolist() == [0, 1] * 6 and images.name == "set"
    assert load("memory://bucket/set").hash == images.hash
    assert len(load("memory://bucket/set/01.tar")) == 4
    for kind in "ab":
        store.pipe(f"/bucket/photos/{kind}/1.png", png(3))
    assert load("memory://bucket/photos").classes == ("a", "b")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "00.tar").write_bytes(shard(0))
    assert len(load(f"file://{tmp_path}/here")) == 4
    assert has_split("memory://bucket/set", "train") and not has_split("memory://bucket/set", "test")


def test_only_what_is_new_or_changed_is_copied(store, monkeypatch):
    fill(store)
    copied: list[str] = []
    original = type(store).get_file

    def get_file(self, path, *more, **options):
        copied.append(path)
        return original(self, path, *more, **options)

    monkeypatch.setattr(type(store), "get_file", get_file)
    url = "memory://bucket/set"
    first = load(url)
    assert sorted(copied) == [f"/bucket/set/{i:02}.tar" for i in range(3)]
    copied.clear()
    assert load(url).hash == first.hash and not copied
    store.pipe("/bucket/set/01.tar", shard(40))
    assert load(url).hash != first.hash and copied == ["/bucket/set/01.tar"]
    copied.clear()
    store.rm("/bucket/set/02.tar")
    assert len(load(url)) == 8 and not copied
    (file,) = Path("cache/rivals/remote").glob("*/files/00.tar")
    file.unlink()
    assert len(load(url)) == 8 and copied == ["/bucket/set/00.tar"]


@pytest.mark.parametrize("key", ["blob_id", "xet_hash", "lfs", "Last-Modified", "generation"])
def test_a_change_that_keeps_the_size_is_seen_by_what_the_store_says(store, monkeypatch, key):
    """As on Hugging Face, whose information on a file has no time."""
    monkeypatch.setattr(remote, "_VERSION", tuple(each for each in remote._VERSION if each != "created"))
    versions, original = {"/bucket/set/01.tar": "1"}, type(store).info

    def info(self, path, **options):
        return original(self, path, **options) | {key: versions.get(path, "0")}

    monkeypatch.setattr(type(store), "info", info)
    fill(store)
    url, notes = "memory://bucket/set/{00..02}.tar", []
    before = load(url, on_note=notes.append)
    changed = shard(40)
    assert len(changed) == len(shard(4))
    store.pipe("/bucket/set/01.tar", changed)
    versions["/bucket/set/01.tar"] = "2"
    after = load(url, on_note=notes.append)
    assert after.hash != before.hash and not any("does not tell" in note for note in notes)


def test_a_store_that_does_not_tell_of_changes_or_sizes_is_read_and_that_is_said(store, monkeypatch):
    original, notes = type(store).info, []
    monkeypatch.setattr(type(store), "info", lambda self, path: {**original(self, path), "created": None, "size": None})
    fill(store)
    assert len(load("memory://bucket/set/{00..02}.tar", on_note=notes.append)) == 12
    assert any("does not tell when its files change" in note for note in notes)


def test_a_copying_that_was_stopped_goes_on_where_it_was(store, monkeypatch):
    fill(store)
    copied: list[str] = []
    original = type(store).get_file

    def get_file(self, path, *more, **options):
        if path.endswith("02.tar") and "stopped" not in copied:
            copied.append("stopped")
            raise KeyboardInterrupt
        copied.append(path)
        return original(self, path, *more, **options)

    monkeypatch.setattr(type(store), "get_file", get_file)
    with pytest.raises(KeyboardInterrupt):
        load("memory://bucket/set")
    assert len(copied) == 3
    assert len(load("memory://bucket/set")) == 12 and len(copied) == 4


def test_a_store_that_fails_is_one_line(store, monkeypatch):
    fill(store)
    with named("'memory://bucket/set/{05..06}.tar' is not there (/bucket/set/05.tar)", "check the address"):
        load("memory://bucket/set/{05..06}.tar")
    with named("no images, shards or zip at 'memory://bucket/nothing'"):
        load("memory://bucket/nothing")
    store.pipe("/bucket/set/01.tar", shard(0)[:700])
    with named("the shard", "01.tar' is cut short"):
        load("memory://bucket/set")

    def fail(*_, **__):
        raise RuntimeError("no credentials\nwere found")

    monkeypatch.setattr(type(store), "info", fail)
    with named("cannot read 'memory://bucket/set/{00..02}.tar' (RuntimeError: no credentials were found)"):
        load("memory://bucket/set/{00..02}.tar")


def test_a_disk_that_is_too_small_is_told_before_anything_is_copied(store, monkeypatch):
    fill(store)
    monkeypatch.setattr(remote, "_RESERVE", 1 << 60)
    with named("GB to copy", "are free", "--cache"):
        load("memory://bucket/set")


@pytest.mark.parametrize("path", ["/bucket/set/../../x.tar", "/bucket/set//x.tar"])
def test_a_name_that_leads_out_of_the_copy_is_refused(store, monkeypatch, path):
    fill(store)
    monkeypatch.setattr(type(store), "find", lambda *_, **__: {path: {"size": 3}})
    with named("points out of its folder"):
        load("memory://bucket/set")
    assert not list(Path("cache/rivals").rglob("x.tar"))


def test_a_missing_package_is_one_line_with_the_command(run_rivals, monkeypatch):
    import fsspec.core

    def missing(url, **_):
        raise ImportError("Install it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    assert_refused(run_rivals("train", "s3://bucket/set", "--quiet"), "needs s3fs", "pip install 'rivals[stores]'")
    assert_refused(run_rivals("train", "gs://bucket/set", "--quiet"), "needs gcsfs", "pip install gcsfs")
    monkeypatch.undo()
    assert_refused(run_rivals("train", "nope://bucket/set", "--quiet"), "'nope://' is no known kind of store", "s3://")


def test_commands_take_addresses_and_resume_from_them(store, run_rivals):
    fill(store)
    words = ("--until", "2 steps", "--batch-size", 4, "--widths", 4, 8, "--quiet")
    assert run_rivals("classify", "memory://bucket/set/{00..02}.tar", *words, "--out", "c").status == 0
    assert json.loads(Path("c/run.json").read_text())["source"]["data"] == "memory://bucket/set/{00..02}.tar"
    assert run_rivals("classify", "--resume", "--out", "c", "--quiet").status == 0
    assert run_rivals("data", "pack", "memory://bucket/set", "a.zip").status == 0


def test_the_signature_of_an_address_is_no_part_of_a_name():
    assert remote.url_name("https://host/a/photos.tar?X-Amz-Signature=0a/b.c") == "photos"


def test_addresses_have_names():
    names = ("s3://b/set/train-{0..9}.tar", "s3://b/set/{0..9}.tar", "gs://b/photos/", "s3://b/x.zip", "hf://b")
    assert [source_name(url) for url in names] == ["train", "set", "photos", "x", "b"]
    assert not is_url("s3:/b") and not is_url("./a") and not is_url(Path("s3://b"))
