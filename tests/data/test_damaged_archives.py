"""Zips that are damaged, packed in other ways, or unpack to more than they may; and files that are no files."""

import io
import os
import signal
import socket
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.data import archive
from rivals.data.load import load

LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


@pytest.fixture(autouse=True)
def _work_in_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _never_wait():
    """Whatever opens a FIFO waits forever: fail instead."""

    def stop(number, frame):
        pytest.fail("waited for a file without end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def image(seed=0):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(content, "png")
    return content.getvalue()


def pack(method=zipfile.ZIP_STORED, **entries):
    with zipfile.ZipFile("set.zip", "w", method) as file:
        for name, content in entries.items():
            file.writestr(name.replace("_", "."), content)
    return Path("set.zip")


def change_headers(path, offset, layout, value):
    """Write a field of every entry's two headers; ``offset`` is that in the local one."""
    content = bytearray(path.read_bytes())
    for signature, extra in ((LOCAL, 0), (CENTRAL, 2)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            struct.pack_into(layout, content, at + offset + extra, value)
    path.write_bytes(content)


def refusal(source, **options):
    with pytest.raises(UserError) as caught:
        load(source, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("offset", "value", "reason"), [(6, 1, "encrypted"), (8, 97, "packed by method 97"), (8, 12, "packed by method 12")]
)
def test_entries_that_need_another_program_say_so(offset, value, reason):
    path = pack(a_png=image(), dataset_json="{}")
    change_headers(path, offset, "<H", value)
    assert reason in refusal("set.zip")  # the dataset.json
    path = pack(a_png=image(0), b_png=image(1))
    change_headers(path, offset, "<H", value)
    message = refusal("set.zip")
    assert "'a.png' of 'set.zip'" in message
    assert reason in message


def test_a_zip_of_a_later_version_is_refused():
    path = pack(a_png=image())
    change_headers(path, 4, "<H", 99)
    assert "version 9.9" in refusal("set.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_damage_to_packed_entries_is_one_line_and_can_be_skipped(method):
    whole = pack(method, a_png=image(0), b_png=image(1), c_png=image(2)).read_bytes()
    length = whole.index(CENTRAL)
    failed = set()
    for at in range(35, length, 23):
        content = bytearray(whole)
        content[at : at + 5] = b"\xff" * len(content[at : at + 5])
        Path("set.zip").write_bytes(content)
        try:
            load("set.zip")  # as some bytes of the headers have no meaning
        except UserError as error:
            assert str(error).isprintable()
            failed.add(str(error)[:29])
        load("set.zip", skip_bad=True, on_note=lambda note: None)
    assert failed == {f"cannot read the image '{name}.png'"[:29] for name in "abc"}


def test_a_damaged_dataset_json_in_a_zip_is_named():
    path = pack(zipfile.ZIP_DEFLATED, dataset_json="{}" + " " * 200, a_png=image())
    content = bytearray(path.read_bytes())
    content[44:48] = b"\xff" * 4
    path.write_bytes(content)
    assert "the dataset.json of 'set.zip' cannot be read" in refusal("set.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_an_entry_that_unpacks_to_far_more_is_not_unpacked(method, monkeypatch):
    monkeypatch.setattr(archive, "FREE_BYTES", 1 << 20)
    path = pack(method, bomb_png=bytes(1 << 24))
    assert "unpacks to more than" in refusal("set.zip")
    change_headers(path, 22, "<I", 100)  # a header that says less
    refusal("set.zip")


def test_entries_have_a_largest_size(monkeypatch):
    pack(zipfile.ZIP_STORED, dataset_json="{}", a_png=image())
    with zipfile.ZipFile("set.zip") as file:
        assert archive.read_entry(file, "a.png", most=10_000) == image()
        with pytest.raises(archive.EntryError, match="unpacks to more than"):
            archive.read_entry(file, "a.png", most=10)


def test_a_well_packed_image_is_no_bomb():
    content = io.BytesIO()
    Image.new("L", (1024, 1024)).save(content, "bmp")  # 1 MB that pack into 1 kB
    pack(zipfile.ZIP_DEFLATED, a_bmp=content.getvalue())
    assert load("set.zip").size == Size(1024, 1024)


def make_special(kind, path):
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))


@pytest.mark.parametrize("kind", ["fifo", "device", "socket"])
@pytest.mark.parametrize("name", ["b.png", "dataset.json", "notes.txt"])
def test_files_that_are_no_files_are_counted_and_never_opened(kind, name):
    Path("set").mkdir()
    Path("set/a.png").write_bytes(image())
    make_special(kind, Path("set", name))
    notes = []
    assert len(load("./set", on_note=notes.append)) == 1
    assert notes == [f"'set' holds 1 FIFO, socket, device or link in a tar, left out unopened: '{name}'"]


def test_a_folder_of_fifos_holds_no_images():
    Path("set").mkdir()
    os.mkfifo("set/a.png")
    assert "holds no images" in refusal("./set")


@pytest.mark.parametrize("kind", ["fifo", "device", "socket"])
def test_a_source_that_is_no_file_is_refused(kind):
    make_special(kind, Path("set.zip"))
    assert "neither a folder nor a zip" in refusal("set.zip")
