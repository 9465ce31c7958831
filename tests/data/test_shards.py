"""Tar shards: what is read from them, in which order, and what is refused."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rivals
from helpers.commands import TINY, assert_refused
from helpers.refusals import named
from rivals.api import data_pack
from rivals.data import contents
from rivals.data import shard_index as indexing
from rivals.data.batches import Batches
from rivals.data.load import evaluation_split, load, source_name
from rivals.data.shards import expand, is_pattern
from rivals.data.tar_index import open_tar, read_members


@pytest.fixture(autouse=True)
def work_here(empty_folder):
    pass


def png(seed: int, side: int = 8) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)).save(content, "png")
    return content.getvalue()


def write(path: str, entries: dict[str, bytes], **options) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return Path(path)


def samples(first: int, count: int, label="cls") -> dict[str, bytes]:
    entries: dict[str, bytes] = {}
    for i in range(first, first + count):
        entries[f"{i:04d}.png"] = png(i)
        if label == "cls":
            entries[f"{i:04d}.cls"] = str(i % 3).encode()
        elif label == "json":
            entries[f"{i:04d}.json"] = json.dumps({"label": i % 3, "caption": "x"}).encode()
    return entries


def write_set(folder="set", label="cls", count=4, names="{:03d}.tar") -> None:
    for number in range(count):
        write(f"{folder}/{names.format(number)}", samples(5 * number, 5, label))


@pytest.mark.parametrize("label", ["cls", "json"])
@pytest.mark.parametrize("source", ["./set", "set/{000..003}.tar"])
def test_samples_are_read_in_the_order_of_the_shards_with_their_labels(label, source):
    write_set(label=label)
    images = load(source)
    assert images.images.shape == (20, 1, 8, 8) and images.name == "set"
    assert images.labels.tolist() == [i % 3 for i in range(20)] and images.classes == ("0", "1", "2")
    expected = [np.asarray(Image.open(io.BytesIO(png(i)))) for i in range(20)]
    assert np.array_equal(images.images[:, 0], expected)


def test_a_part_of_the_shards_or_one_is_a_set():
    write_set()
    assert len(load("set/{001..002}.tar")) == 10 and len(load("set/003.tar")) == 5
    assert np.array_equal(load("set/{001,003}.tar").images[5:], load("set/003.tar").images)


def test_classes_have_the_names_of_a_description_beside_the_shards_or_in_them():
    write_set()
    Path("set/dataset.json").write_text('{"classes": ["cat", "dog", "owl", "none of them"]}')
    assert load("./set").classes == ("cat", "dog", "owl", "none of them")
    write("one.tar", samples(0, 5) | {"dataset.json": b'{"classes": ["cat", "dog", "owl"], "labels": null}'})
    assert load("one.tar").classes == ("cat", "dog", "owl")
    write("one.tar", samples(0, 5) | {"dataset.json": b'{"classes": ["cat"]}'})
    with named("labels up to 2, more than the classes"):
        load("one.tar")


def test_labels_may_be_names():
    write("a.tar", {"1.png": png(0), "1.cls": b"dog\n", "2.png": png(1), "2.json": b'{"label": "cat"}'})
    images = load("a.tar")
    assert images.classes == ("cat", "dog") and images.labels.tolist() == [1, 0]


def test_without_labels_subfolders_are_the_classes_as_in_a_folder():
    entries = {f"./photos/{kind}/{i}.png": png(i) for kind in ("cats", "dogs") for i in range(2)}
    write("a.tar", entries)
    write("plain.tar", {f"/data/../{i}.png": png(i) for i in range(3)})
    images = load("a.tar")
    assert images.classes == ("cats", "dogs") and images.labels.tolist() == [0, 0, 1, 1]
    assert not os.path.lexists("photos") and not os.path.lexists("/data/../0.png")  # nothing is unpacked
    assert len(load("plain.tar")) == 3


def test_the_names_of_shards_may_tell_their_split():
    write_set(names="my-train-{:04d}.tar", count=2)
    write("set/my-val-0000.tar", samples(50, 5))
    assert len(load("./set")) == 10 and len(load("./set", split="val")) == 5 and len(load("./set", split="all")) == 15
    assert evaluation_split("./set") == "val"
    with named("split of 'set'", "test"):
        load("./set", split="test")
    assert len(load("set/my-val-{0000..0000}.tar")) == 5  # what is named one by one is one set
    write("inside.tar", {f"{s}/{k}/{i}.png": png(i) for s in ("train", "test") for k in "ab" for i in range(2)})
    assert load("inside.tar", split="test").classes == ("a", "b") and len(load("inside.tar", split="test")) == 4


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_of_every_length_and_alphabet_are_those_that_tarfile_reads(form):
    names = ["a.png", f"{'d' * 90}/{'n' * 60}.png"]
    if form != tarfile.USTAR_FORMAT:
        names += ["é/猫.png", "x" * 300 + ".png"]
    path = write("a.tar", {name: png(0) for name in names}, format=form)
    with open_tar(path) as file, tarfile.open(path) as tar:
        mine = [(each.name, each.offset, each.size) for each in read_members(path, file)]
        assert mine == [(each.name, each.offset_data, each.size) for each in tar.getmembers()]


def test_links_and_devices_are_counted_and_never_followed():
    with tarfile.open("a.tar", "w") as tar:
        for name, kind in (("l.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE), ("f.png", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in (("a.png", png(0)), ("a.txt", b"a caption")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    notes: list[str] = []
    assert len(load("a.tar", on_note=notes.append)) == 1
    assert any("3 FIFOs, sockets, devices or links in a tar" in note for note in notes)
    assert any("1 file that is not an image" in note and "a.txt" in note for note in notes)


def test_a_shard_that_is_cut_anywhere_is_one_line_with_shard_and_byte():
    write_set()
    whole = Path("set/002.tar").read_bytes()
    end = 5 * 4 * 512  # where its end mark begins: headers and contents of ten files in blocks
    for length in (0, 1, 511, 512, 700, 1024, 5000, end):
        Path("set/002.tar").write_bytes(whole[:length])
        with named("the shard 'set/002.tar' is cut short: it ends at byte", f"{length:,}", "copy it again"):
            load("./set", skip_bad=True)
    Path("set/002.tar").write_bytes(whole[: end + 512])
    assert len(load("./set")) == 20


def test_an_unreadable_image_can_be_skipped_and_is_counted():
    write("a.tar", samples(0, 4) | {"0002.png": b"nothing", "0003.png": b""})
    with named("cannot read the image 'a.tar/0002.png' of 'a.tar'", "--skip-bad"):
        load("a.tar")
    notes: list[str] = []
    images = load("a.tar", skip_bad=True, on_note=notes.append)
    assert images.labels.tolist() == [0, 1] and "skipped 2 of the 4 images" in notes[-1]


SAMPLE = {"1.png": png(0), "1.cls": b"0"}


@pytest.mark.parametrize(
    ("entries", "parts"),
    [
        ({}, ["is empty"]),
        ({"a.txt": b"x"}, ["holds no images"]),
        (SAMPLE | {"2.png": png(1)}, ["2.png' of 'a.tar' has no label, and others have"]),
        (SAMPLE | {"1.depth.png": png(1)}, ["sample '1'", "two images", "1.depth.png"]),
        (SAMPLE | {"1.cls": b"\xff"}, ["label '1.cls' of the shard 'a.tar' is no class number or name"]),
        (SAMPLE | {"1.cls": b" "}, ["is no class number or name"]),
        (SAMPLE | {"1.cls": b"9" * 30}, ["too large"]),
        (SAMPLE | {"1.cls": b"a" * (1 << 21)}, ["2,097,152 bytes"]),
        ({"1.png": png(0), "1.json": b'{"label": -1}'}, ["label '1.json' of the shard 'a.tar'"]),
        ({"1.png": png(0), "1.json": b"{"}, ["label '1.json' of the shard 'a.tar'", "no JSON"]),
        (
            SAMPLE | {"2.png": png(1), "2.cls": b"cat"},
            ["numbers and names as labels, 0 of 'a.tar/1.png' and 'cat' of 'a.tar/2.png'"],
        ),
        ({"0.png": png(0), "0.json": b'{"label": ""}'}, ["'0.json'", "no class number or name"]),
        ({"0.png": png(0), "0.json": b'{"label": "a\\nb"}'}, ["'0.json'", "no class number or name"]),
        ({"0.png": png(0), "0.cls": b"x" * 2000}, ["'0.cls'", "no class number or name"]),
        (SAMPLE | {"1.cls": b"owl", "dataset.json": b'{"classes": ["cat"]}'}, ["'owl'", "not among the classes"]),
    ],
)
def test_what_cannot_be_read_is_one_line(entries, parts):
    write("a.tar", entries)
    with named(*parts):
        load("a.tar")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("set/{000..009}.tar", ["no shard 'set/004.tar'"]),
        ("set/{3..1}.tar", ["range 3..1", "smaller number first"]),
        ("set/{001,001}.tar", ["names the shard 'set/001.tar' twice"]),
        ("set/{a}.tar", ["braces without a range"]),
        ("set/{0..9999999}.tar", ["at most a million"]),
        ("set/{0..999}{0..999}{0..9}.tar", ["more than 1,000,000 shards"]),
        ("other.tar", ["no folder, zip or shard 'other.tar'"]),
        ("a.tar.gz", ["compressed tar", "gzip -d"]),
        ("gz.tar", ["no tar, or a compressed one"]),
        ("./packed", ["compressed tars such as 'a.tgz'"]),
        ("fifo.tar", ["is no file"]),
    ],
)
def test_a_source_that_cannot_be_is_one_line(source, parts):
    write_set()
    Path("packed").mkdir()
    for path in ("a.tar.gz", "packed/a.tgz", "gz.tar"):
        Path(path).write_bytes(b"\x1f\x8b" + bytes(range(256)) * 8)
    os.mkfifo("fifo.tar")
    with named(*parts):
        load(source)


def change_header(path: Path, at: int, field: slice, value: bytes) -> None:
    """Change a field of the header at byte ``at``, with a right checksum."""
    content = bytearray(path.read_bytes())
    content[at + field.start : at + field.stop] = value.ljust(field.stop - field.start, b"\0")
    content[at + 148 : at + 156] = b" " * 8
    content[at + 148 : at + 156] = b"%06o\0 " % sum(content[at : at + 512])
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("at", "field", "value", "parts"),
    [
        (0, slice(124, 136), b"77777777777", ["is cut short", "in '0000.png'"]),
        (0, slice(124, 136), b"\x80" + b"\xff" * 11, ["is cut short"]),
        (0, slice(124, 136), b"\xff" * 12, ["no tar"]),
        (1024, slice(124, 136), b"12x", ["damaged at byte 1,024", "a number that is none"]),
        (1024, slice(156, 157), b"S", ["sparse"]),
        (1024, slice(156, 157), b"x", ["damaged at byte 1,024", "extended header"]),
        (1024, slice(124, 136), b"7777777777", ["is cut short"]),
    ],
)
def test_headers_that_lie_are_refused(at, field, value, parts):
    path = write("a.tar", samples(0, 2))
    change_header(path, at, field, value)
    with named(*parts):
        load("a.tar")


def test_a_hole_of_zeros_is_no_end():
    path = write("a.tar", samples(0, 6))
    content = bytearray(path.read_bytes())
    content[4096 : 4096 + 3072] = bytes(3072)  # three headers with their contents, as a broken download leaves them
    path.write_bytes(content)
    with named("goes on after an end mark at byte 4,096", "copy it again"):
        load("a.tar", skip_bad=True)


def test_tars_one_after_the_other_are_refused():
    parts = [write(f"{name}.tar", samples(number, 2)).read_bytes() for number, name in ((0, "x"), (5, "y"))]
    Path("a.tar").write_bytes(b"".join(parts))
    with named("several tars one after the other, so name each by itself"):
        load("a.tar")


def test_contents_of_unknown_kinds_are_passed_over_and_old_checksums_are_right():
    path = write("a.tar", {"é.dump": b"\1" * 600, **samples(0, 2)}, format=tarfile.GNU_FORMAT)
    change_header(path, 0, slice(156, 157), b"D")  # a folder's listing in GNU's incremental backups
    content = bytearray(path.read_bytes())
    signed = sum(byte - 256 * (byte > 127) for byte in (*content[:148], *content[156:512])) + 8 * 0x20
    content[148:156] = b"%06o\0 " % signed
    path.write_bytes(content)
    with open_tar(path) as file, tarfile.open(path) as tar:
        mine = [(each.name, each.offset) for each in read_members(path, file) if not each.special]
        assert mine == [(each.name, each.offset_data) for each in tar.getmembers()[1:]]
    assert len(load("a.tar")) == 2


def test_a_flipped_bit_in_a_header_is_found():
    path = write("a.tar", samples(0, 2))
    content = bytearray(path.read_bytes())
    content[1024 + 3] ^= 1
    path.write_bytes(content)
    with named("damaged at byte 1,024", "checksum is wrong"):
        load("a.tar")


def test_an_extended_header_of_a_gigabyte_is_not_read():
    path = write("a.tar", samples(0, 1))
    change_header(path, 0, slice(156, 157), b"x")
    change_header(path, 0, slice(124, 136), b"7777777777")
    tracemalloc.start()
    try:
        with named("no tar"):
            load("a.tar")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_shard_is_gone_through_once_and_again_when_it_has_changed(monkeypatch):
    for module in (contents, indexing):
        monkeypatch.setattr(module, "SETTLING_NS", -(10**15))
    write_set(count=2)
    right = load("./set")
    gone_through: list[Path] = []
    original = indexing._go_through
    monkeypatch.setattr(indexing, "_go_through", lambda path: (gone_through.append(path), original(path))[1])
    assert load("./set").hash == right.hash and not gone_through
    for index in Path("cache/rivals/shards").iterdir():
        index.write_bytes(index.read_bytes()[:-9])  # damaged
    assert load("./set").hash == right.hash and len(gone_through) == 2
    gone_through.clear()
    stamp = Path("set/001.tar").stat()
    write("set/001.tar", samples(70, 5))
    os.utime("set/001.tar", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    images = load("./set")
    assert set(gone_through) == {Path("set/001.tar")} and images.hash != right.hash
    assert np.array_equal(images.images[5, 0], np.asarray(Image.open(io.BytesIO(png(70)))))


def test_a_packed_set_is_the_same_images_and_the_same_bytes():
    write_set()
    packed = data_pack("./set", Path("packed"), shards=3)
    again = data_pack("packed/{0000..0002}.tar", Path("again"), shards=3)
    assert packed["hash"] == again["hash"] == load("./set").hash == load("./packed").hash
    assert [each.name for each in sorted(Path("packed").iterdir())] == [
        *(f"000{i}.tar" for i in range(3)),
        "dataset.json",
    ]
    for path in Path("packed").iterdir():
        assert path.read_bytes() == Path("again", path.name).read_bytes()
    one, other = (Batches(load(source), 6, seed=2) for source in ("./set", "./packed"))
    assert (one.draw(5)[0] == other.draw(5)[0]).all()  # a batch is a function of seed and index
    for count, dest in ((0, "x"), (21, "x"), (2, "x.zip"), (2, "packed")):
        with pytest.raises(rivals.UserError):
            data_pack("./set", Path(dest), shards=count)


def test_patterns_and_names():
    assert expand("a/{08..11}-{x,y}.tar")[:3] == ["a/08-x.tar", "a/08-y.tar", "a/09-x.tar"]
    assert expand("{8..10}.tar") == ["8.tar", "9.tar", "10.tar"]
    assert not is_pattern("set/a.tar") and not is_pattern("{0..1}.zip")
    assert source_name("photos/train-{000..127}.tar") == "train" and source_name("photos/{0..3}.tar") == "photos"


def test_commands_take_shards(run_rivals):
    write_set(count=3)
    for number in range(2):
        write(f"test/test-{number}.tar", samples(30 + 6 * number, 6))
    result = run_rivals(
        "classify", "set/{000..002}.tar", "--until", "4 steps", "--batch-size", 8, "--out", "c", "--quiet"
    )
    assert result.status == 0, result.err
    result = run_rivals(
        "attack", "c", "test/{test-0,test-1}.tar", "--attack", "fgsm", "--eps", "0.1", "--quiet", "--json"
    )
    assert result.status == 0 and json.loads(result.out)["n"] == 12, result.err
    train = ("train", "set/{000..002}.tar", "--recipe", "dcgan", "--size", 16, *TINY, "--quiet")
    result = run_rivals(*train, "--until", "4 steps")
    assert result.status == 0, result.err
    (run,) = Path("runs").glob("set-dcgan-*")
    source = json.loads((run / "run.json").read_text())["source"]["data"]
    assert Path(source).is_absolute() and source.endswith("{000..002}.tar")
    assert run_rivals("train", "--resume", "--out", run, "--until", "6 steps", "--quiet").status == 0
    Path("set/001.tar").unlink()
    assert_refused(run_rivals("train", "--resume", "--out", run, "--until", "8 steps"), "no shard", "001.tar")
