"""Invalid data: the error is one line with the value and the fix, and no files are left behind."""

import io
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.data import decode_cache
from rivals.data.imageset import require_classes
from rivals.data.load import load
from rivals.recipes import DataOptions


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def image(shape=(8, 8), kind="png"):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def folder(files):
    Path("set").mkdir()
    for name, content in files.items():
        path = Path("set", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return "./set"


def archive(files):
    with zipfile.ZipFile("set.zip", "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return "set.zip"


def refusal(source, **options):
    """The message with which a source is refused, after checking that it is one line and leaves no cache."""
    with pytest.raises(UserError) as caught:
        load(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message == message.strip()
    assert not decode_cache.folder().exists() or not list(decode_cache.folder().iterdir())
    return message


@pytest.mark.parametrize("size", [7, 0, -32, 1025, "7x64", "64x1025", "-1x8"])
def test_size_out_of_bounds(size):
    message = refusal("mnist5k", size=size)
    assert f"--size {size} is too" in message
    assert "8 to 1024" in message


@pytest.mark.parametrize(
    ("name", "near"), [("cifar-10", "cifar10"), ("MNIST", "mnist"), ("celebA", "celeba"), ("zzz", "mnist5k, ")]
)
def test_unknown_names(name, near):
    message = refusal(name)
    assert message.startswith(f"unknown data set '{name}': ")
    assert near in message


def test_no_such_path():
    for path in ("./nothing", "some/where", "absent.zip", Path("nothing")):
        assert refusal(path) == f"there is no folder, zip or shard '{Path(path)}': check the path"


def test_neither_folder_nor_zip():
    Path("photo.png").write_bytes(image())
    assert "'photo.png' is neither a folder nor a zip" in refusal("./photo.png")


def test_empty_folder_and_empty_zip():
    assert refusal(folder({})) == "the folder 'set' is empty: put images into it, or into one subfolder per class"
    assert "the zip 'set.zip' is empty" in refusal(archive({}))


def test_only_text_files():
    files = {"notes.txt": b"a", "more.md": b"b"}
    for source in (folder(files), archive(files)):
        message = refusal(source)
        assert "holds no images, though 2 other files such as 'more.md'" in message
        assert "png, jpg" in message


def test_a_single_class_where_classes_are_required():
    with pytest.raises(UserError, match=r"^'set' has one class only \('cats'\), and two at least are needed: put"):
        require_classes(load(folder({"cats/a.png": image()})))


def test_no_classes_where_classes_are_required():
    with pytest.raises(UserError, match=r"^'set' has no classes, and two at least are needed: put"):
        require_classes(load(folder({"a.png": image()})))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"This is a text.", "not an image, despite its name"),
        (b"", "the file is empty"),
        (image((64, 64, 3), "jpeg")[:900], "truncated"),
        (image((64, 64, 3))[:900], "truncated"),
    ],
    ids=["text", "empty", "jpeg", "png"],
)
@pytest.mark.parametrize("make", [folder, archive])
def test_an_unreadable_image_is_named(make, content, reason):
    message = refusal(make({"cats/a.png": image(), "dogs/bad.png": content}))
    assert "cannot read the image 'dogs/bad.png' of 'set" in message
    assert reason in message
    assert "--skip-bad" in message


def test_none_of_the_images_can_be_read():
    source = folder({"a.png": b"text", "b.png": b"text"})
    message = refusal(source, skip_bad=True)
    assert "none of the 2 images of 'set' can be read ('a.png': not an image" in message


def test_floating_point_out_of_range():
    Path("set").mkdir()
    Image.fromarray(np.full((8, 8), 7, np.float32)).save("set/a.tiff")
    assert "'a.tiff' of 'set' (floating-point values outside [0, 1])" in refusal("./set")


@pytest.mark.parametrize("options", [{}, {"crop": True, "size": 32}])
def test_too_many_pixels_are_refused_by_the_header_alone(options):
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 20_000, 8, 2, 0, 0, 0)
    bomb = image()[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    message = refusal(folder({"bomb.png": bomb + struct.pack(">I", 1 << 28) + b"IDAT"}), **options)
    assert "cannot read the image 'bomb.png'" in message
    assert "decompression bomb" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission():
    source = folder({"a.png": image(), "b.png": image()})
    Path("set/b.png").chmod(0)
    assert "cannot read the image 'b.png' of 'set' (Permission denied)" in refusal(source)
    Path("set").chmod(0)
    assert "cannot read the folder" in refusal(source)
    Path("set").chmod(0o700)


def test_mixed_sizes():
    source = folder({"a.png": image(), "b.png": image((16, 16))})
    message = refusal(source)
    assert "('a.png' is 8 x 8, 'b.png' is 16 x 16)" in message
    assert "--size 8" in message
    assert load(source, size=8).size == Size(8, 8)


@pytest.mark.parametrize(
    "sizes", [((32, 32), (1, 1)), ((16, 24), (2, 3)), ((32, 32), (40, 3)), ((9, 30), (1500, 1500))]
)
def test_the_size_that_is_advised_works(sizes):
    source = folder({f"{i}.png": image(size) for i, size in enumerate(sizes)})
    _, size, *crop = refusal(source).rpartition("as in ")[2].split()
    assert len(load(source, size=size, crop=crop == ["--crop"])) == 2


def test_images_of_other_proportions():
    source = folder({"a.png": image((8, 8)), "b.png": image((8, 12))})
    fix = "cut out the center of such images with --crop"
    assert refusal(source, size=16) == f"the image 'b.png' of 'set' is 12 x 8, not square: {fix}"
    assert refusal(source, size="24x16") == (
        f"the image 'a.png' of 'set' is 8 x 8, which are not the proportions of 24 x 16: {fix}"
    )
    assert refusal(source) == (
        "the images of 'set' differ in size ('a.png' is 8 x 8, 'b.png' is 12 x 8): choose one with --size, as in "
        "--size 8 --crop"
    )


@pytest.mark.parametrize("size", [0, 1, 7, 1025, "8x7"])
def test_the_sizes_that_options_advise_work(size):
    with pytest.raises(UserError, match=f"^--size {size} is too (small|large): take sides of 8 to 1024 pixels$"):
        DataOptions(size=Size.parse(size))


def test_mixed_sizes_after_cropping():
    message = refusal(folder({"a.png": image((8, 12)), "b.png": image((10, 12))}), crop=True)
    assert "differ in size when cut to squares ('a.png' is 8 x 8, 'b.png' is 10 x 10)" in message


@pytest.mark.parametrize(
    ("height", "width", "fix"),
    [
        (4, 4, "8"),
        (1030, 1030, "1024"),
        (4, 6, "12x8"),
        (1500, 2000, "1024x768"),
        (8, 2000, "1024x8 --crop"),
        (1, 1, "8"),
        (4, 5000, "1024x8 --crop"),
    ],
)
def test_image_sizes_out_of_bounds(height, width, fix):
    message = refusal(folder({"a.png": image((height, width))}))
    assert f"are {width} x {height}" in message
    assert message.endswith(f"--size {fix}")


@pytest.mark.parametrize("size", ["9.5", "8x", "x8", "8x8x8", "big", "", True, "1" * 50])
def test_what_is_no_size(size):
    assert "is not a size of images: write the side of squares in pixels" in refusal("mnist5k", size=size)


def test_images_next_to_sub_folders():
    message = refusal(folder({"cover.png": image(), "cats/a.png": image()}))
    assert "images both at the top and in subfolders ('cover.png' and 'cats/')" in message


def test_absent_splits():
    assert "'set' has no split 'test', being one set" in refusal(folder({"a/a.png": image()}), split="test")
    files = {"train/a.png": image(), "test/b.png": image()}
    assert "unknown split of 'set.zip' 'tests': did you mean test?" in refusal(archive(files), split="tests")


@pytest.mark.parametrize(
    "name", ["../a.png", "cats/../../a.png", "/etc/a.png", "C:\\a.png", "..\\a.png", "../notes.txt"]
)
def test_zip_entries_outside_of_the_zip(name):
    source = archive({"good.png": image(), name: image()})
    message = refusal(source)
    assert "'set.zip' is not safe, its entry '" in message
    assert "points outside" in message
    assert os.listdir() == ["set.zip"]  # noqa: PTH208


def test_a_truncated_zip():
    source = archive({"a.png": image((64, 64)), "b.png": image((64, 64))})
    content = Path(source).read_bytes()
    Path(source).write_bytes(content[: len(content) // 2])
    assert refusal(source) == "'set.zip' is cut short, or no zip: copy or download it again"


def test_a_zip_with_a_damaged_entry():
    source = archive({"a.png": image(), "b.png": image((64, 64))})
    content = bytearray(Path(source).read_bytes())
    content[len(content) // 2] ^= 0xFF
    Path(source).write_bytes(content)
    message = refusal(source)
    assert "cannot read the image 'b.png' of 'set.zip'" in message
    assert "CRC" in message


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ("{", "no JSON at line 1"),
        ("[" * 100_000, "nested too deep"),
        ("9" * 5000, "thousands of digits"),
        ("[1]", "not an object"),
        ({"labels": {"a.png": 0}}, "labels is an object, not a list"),
        ({"labels": [["a.png", "cat"]]}, 'labels[0][1] is "cat", not an integer'),
        ({"labels": [["a.png", 0, 1]]}, "labels[0] is a list of 3, not a list of 2"),
        ({"labels": [["a.png", -1]]}, "labels[0][1] is -1"),
        ({"labels": [["a.png", 10**30]]}, "beyond 64 bits"),
        ({"labels": [["a.png", True]]}, "labels[0][1] is true"),
        ({"labels": [["a.png", 0], ["a.png", 1], ["b.png", 1]]}, "two labels for 'a.png'"),
        ({"labels": [["a.png", 0], ["b.png", 0]], "classes": [None]}, "classes[0] is null"),
        ({"labels": [["a.png", 0], ["c.png", 0]]}, "a label for 'c.png', which is not there"),
        ({"labels": [["a.png", 0]]}, "no label for 'b.png'"),
        ({"labels": []}, "no label for 'a.png'"),
        ({"labels": [["a.png", 0], ["b.png", 3]], "classes": ["x", "y"]}, "labels up to 3"),
    ],
)
@pytest.mark.parametrize("make", [folder, archive])
def test_a_dataset_json_that_does_not_match(make, description, says):
    text = description if isinstance(description, str) else json.dumps(description)
    message = refusal(make({"a.png": image(), "b.png": image(), "dataset.json": text.encode()}))
    assert message.startswith("the dataset.json of 'set")
    assert says in message
