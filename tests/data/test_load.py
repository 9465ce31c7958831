"""Loading of folders and zips: pixels, labels, classes and the cache."""

import io
import json
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from helpers.png_files import png
from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.data import decode, decode_cache
from rivals.data.imageset import ImageSet, require_classes
from rivals.data.load import load
from rivals.data.mapped_pixels import MappedPixels


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def noise(seed, shape=(8, 8)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if isinstance(content, np.ndarray):
                buffer = io.BytesIO()
                Image.fromarray(content).save(buffer, "png")
                content = buffer.getvalue()
            archive.writestr(name, content)
    return path


def fail(note):
    raise AssertionError(f"unexpected note: {note}")


def get(source, **options):
    return load(str(source), on_note=options.pop("on_note", fail), **options)


def test_a_flat_folder_has_no_classes_and_is_sorted_by_name(tmp_path):
    for index in (2, 0, 1):
        write(tmp_path / "set" / f"{index}.png", noise(index))
    images = get(tmp_path / "set")
    assert (images.name, images.split, images.labels, images.classes) == ("set", "train", None, ())
    assert (len(images), images.size, images.channels, images.images.dtype) == (3, Size(8, 8), 1, np.uint8)
    np.testing.assert_array_equal(images.images[:, 0], [noise(0), noise(1), noise(2)])


def test_top_level_sub_folders_are_classes(tmp_path):
    write(tmp_path / "set" / "dogs" / "a.PNG", noise(0))
    write(tmp_path / "set" / "cats" / "deep" / "er" / "b.bmp", noise(1))
    write(tmp_path / "set" / "cats" / "z.gif", noise(2))
    write(tmp_path / "set" / "cats" / ".hidden.png", noise(3))
    write(tmp_path / "set" / ".thumbnails" / "a.png", noise(3))
    (tmp_path / "set" / "notes.txt").write_text("not an image")
    notes = []
    images = get(tmp_path / "set", on_note=notes.append)
    assert notes == [f"'{tmp_path / 'set'}' holds 1 file that is not an image, left out: 1 .txt, such as 'notes.txt'"]
    assert images.classes == ("cats", "dogs")
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [0, 0, 1]
    np.testing.assert_array_equal(images.images[:, 0], [noise(1), noise(2), noise(0)])
    assert require_classes(images) == 2


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "ppm"])
def test_every_suffix_is_read(tmp_path, suffix):
    write(tmp_path / "set" / f"a.{suffix.upper()}", np.full((8, 8, 3), 200, np.uint8))
    assert abs(get(tmp_path / "set").images.astype(int) - 200).max() <= 2


def test_train_and_test_sub_folders_are_splits(tmp_path):
    for index, name in enumerate(["train/cats/a", "train/dogs/b", "test/dogs/c", "test/cats/d"]):
        write(tmp_path / "set" / f"{name}.png", noise(index))
    train, test, everything = (get(tmp_path / "set", split=split) for split in ("train", "test", "all"))
    assert train.classes == test.classes == everything.classes == ("cats", "dogs")
    assert (train.labels.tolist(), test.labels.tolist(), len(everything)) == ([0, 1], [0, 1], 4)
    np.testing.assert_array_equal(test.images[:, 0], [noise(3), noise(2)])


def test_a_zip_of_a_folder_equals_a_zip_of_its_contents(tmp_path):
    files = {"b/1.png": noise(1), "a/2.png": noise(2)}
    plain = write_zip(tmp_path / "plain.zip", files)
    around = write_zip(tmp_path / "around.zip", {f"pets/{name}": pixels for name, pixels in files.items()})
    first, second = get(plain), get(around)
    assert (first.name, second.name) == ("plain", "around")
    assert first.classes == second.classes == ("a", "b")
    assert first.hash == second.hash


def test_a_single_class_loads(tmp_path):
    write(tmp_path / "set" / "cats" / "a.png", noise(0))
    archive = write_zip(tmp_path / "set.zip", {"cats/a.png": noise(0)})
    for source in (tmp_path / "set", archive):
        images = get(source)
        assert (images.classes, images.labels.tolist()) == (("cats",), [0])


@pytest.mark.parametrize(
    ("description", "labels", "classes"),
    [
        ({"labels": [["b.png", 0], ["a.png", 2]], "classes": ["x", "y", "z"]}, [2, 0], ("x", "y", "z")),
        ({"labels": [["b.png", 0], ["a.png", 1]]}, [1, 0], ("0", "1")),
        ({"labels": None}, None, ()),
    ],
)
def test_dataset_json_takes_precedence_over_sub_folders(tmp_path, description, labels, classes):
    images = get(
        write_zip(tmp_path / "x.zip", {"a.png": noise(0), "b.png": noise(1), "dataset.json": json.dumps(description)})
    )
    assert (None if images.labels is None else images.labels.tolist()) == labels
    assert images.classes == classes


GRAY = noise(7)
COLOR = noise(8, (8, 8, 3))
ALPHA = np.dstack([COLOR, GRAY])
OPAQUE = np.dstack([COLOR, np.full((8, 8), 255, np.uint8)])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(GRAY), GRAY),
        (Image.fromarray(COLOR), COLOR),
        (Image.fromarray(ALPHA), ALPHA),
        (Image.fromarray(OPAQUE), COLOR),
        (Image.fromarray(np.dstack([GRAY, GRAY[::-1]])), np.dstack([GRAY, GRAY, GRAY, GRAY[::-1]])),
        (Image.fromarray(np.dstack([GRAY, GRAY | 255])), GRAY),
        (Image.fromarray(GRAY > 127), np.where(GRAY > 127, 255, 0)),
        (Image.fromarray(GRAY.astype(np.uint16) * 257), GRAY),
        (Image.fromarray(np.full((8, 8), 65535 * 2 // 3, np.uint16)), np.full((8, 8), 170)),
    ],
    ids=["gray", "color", "alpha", "opaque alpha", "gray alpha", "gray opaque", "bits", "16 bits", "16 bits rounded"],
)
def test_modes(tmp_path, image, expected):
    write(tmp_path / "set" / "a.png", image)
    got = get(tmp_path / "set").images[0]
    np.testing.assert_array_equal(got, expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1))


def test_floating_point_images_are_in_0_to_1(tmp_path):
    write(tmp_path / "set" / "a.tiff", Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)))
    np.testing.assert_array_equal(get(tmp_path / "set").images.ravel(), np.rint(np.linspace(0, 255, 64)))


def palette(colors, **options):
    image = Image.fromarray(np.tile(np.arange(2, dtype=np.uint8), (8, 4)), "L")
    image = image.convert("P")
    image.putpalette([value for color in colors for value in color])
    buffer = io.BytesIO()
    image.save(buffer, "png", **options)
    return Image.open(buffer)


@pytest.mark.filterwarnings("ignore:'mode' parameter")
@pytest.mark.parametrize(
    ("colors", "options", "pixels"),
    [
        ([(9, 9, 9), (70, 70, 70)], {}, [(9,), (70,)]),
        ([(9, 8, 7), (70, 70, 70)], {}, [(9, 8, 7), (70, 70, 70)]),
        ([(9, 8, 7), (70, 70, 70)], {"transparency": 1}, [(9, 8, 7, 255), (70, 70, 70, 0)]),
        ([(9, 8, 7), (70, 70, 70)], {"transparency": b"\x80\x40"}, [(9, 8, 7, 128), (70, 70, 70, 64)]),
        ([(9, 9, 9), (70, 70, 70)], {"transparency": 0}, [(9, 9, 9, 0), (70, 70, 70, 255)]),
    ],
)
def test_palettes(tmp_path, colors, options, pixels):
    source = palette(colors, **options)
    write(tmp_path / "set" / "a.png", source, **options)
    got = get(tmp_path / "set").images[0]
    assert [tuple(got[:, 0, 0]), tuple(got[:, 0, 1])] == pixels


def test_a_transparent_gray_in_16_bits(tmp_path):
    values = np.tile(np.uint16([0, 30_000, 30_001, 65_535]), (8, 2))
    write(tmp_path / "set" / "a.png", Image.fromarray(values), transparency=30_000)
    got = get(tmp_path / "set").images[0]
    assert got[0, 0, :4].tolist() == got[2, 0, :4].tolist() == [0, 117, 117, 255]
    assert got[3, 0, :4].tolist() == [255, 0, 255, 255]


@pytest.mark.parametrize(
    ("depth", "row"), [(1, b"\x55"), (2, b"\x1b\x1b"), (4, b"\x0f\x0f\x0f\x0f"), (8, b"\x00\xff" * 4)]
)
@pytest.mark.parametrize("level", ["black", "white"])
def test_the_transparent_level_of_gray_is_found_at_every_depth(tmp_path, depth, row, level):
    transparent = 0 if level == "black" else 2**depth - 1
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(png(depth, 0, row, transparent))
    gray, alpha = get(tmp_path / "set").images[0][[0, 3]]
    assert (alpha == np.where(gray == (0 if level == "black" else 255), 0, 255)).all()


@pytest.mark.parametrize(
    ("color", "values", "says"),
    [
        (2, (4000, 2000, 1000), "color of 16 bits whose values end below 4,096"),
        (6, (4000, 2000, 1000, 65535), "color of 16 bits whose values end below 4,096"),
        (4, (4000, 65535), "gray of 16 bits with transparency"),
        (2, (40000, 2000, 1000), None),
        (2, (0, 0, 0), None),
    ],
)
def test_what_is_in_the_lower_8_of_16_bits_is_not_taken_for_black(tmp_path, color, values, says):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(png(16, color, 8 * struct.pack(f">{len(values)}H", *values)))
    if says is None:
        assert get(tmp_path / "set").images[0, :, 0, 0].tolist() == [value >> 8 for value in values]
    else:
        with pytest.raises(UserError, match=says):
            get(tmp_path / "set")


def test_links_to_folders_are_followed_and_cycles_end(tmp_path):
    for index, name in enumerate(("cats", "dogs")):
        write(tmp_path / "set" / "train" / name / f"{index}.png", GRAY)
    (tmp_path / "set" / "val").symlink_to(tmp_path / "set" / "train")
    (tmp_path / "set" / "train" / "canines").symlink_to(tmp_path / "set" / "train" / "dogs")
    (tmp_path / "set" / "train" / "dogs" / "again").symlink_to(tmp_path / "set")
    images = get(tmp_path / "set")
    assert images.classes == ("canines", "cats", "dogs")
    assert get(tmp_path / "set", split="val").classes == images.classes


@pytest.mark.parametrize("count", [1, 40], ids=["one chunk", "several chunks"])
def test_mixed_modes_get_the_largest_number_of_channels(tmp_path, count):
    for index in range(count):
        write(tmp_path / "set" / f"0-{index:03d}.png", GRAY)
    write(tmp_path / "set" / "1.png", COLOR)
    images = get(tmp_path / "set")
    assert images.images.shape == (count + 1, 3, 8, 8)
    np.testing.assert_array_equal(images.images[0], [GRAY] * 3)
    np.testing.assert_array_equal(images.images[-1], COLOR.transpose(2, 0, 1))
    write(tmp_path / "set" / "2.png", ALPHA)
    images = get(tmp_path / "set")
    np.testing.assert_array_equal(images.images[0], [GRAY] * 3 + [GRAY | 255])
    np.testing.assert_array_equal(images.images[-2], OPAQUE.transpose(2, 0, 1))
    np.testing.assert_array_equal(images.images[-1], ALPHA.transpose(2, 0, 1))


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    write(tmp_path / "set" / "a.png", GRAY, exif=exif)
    np.testing.assert_array_equal(get(tmp_path / "set").images[0, 0], np.rot90(GRAY, -1))


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (40, 200)]
    write(tmp_path / "set" / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert np.unique(get(tmp_path / "set").images).tolist() == [40]


def test_size_resizes_with_antialiasing(tmp_path):
    board = np.indices((64, 64)).sum(0) % 2 * 255
    write(tmp_path / "set" / "a.png", board.astype(np.uint8))
    write(tmp_path / "set" / "b.png", np.full((16, 16), 90, np.uint8))
    images = get(tmp_path / "set", size=32)
    assert images.images.shape == (2, 1, 32, 32)
    assert abs(images.images[0].astype(int) - 127.5).max() < 8
    assert (images.images[1] == 90).all()


def test_crop_takes_the_center(tmp_path):
    wide, tall = noise(1, (8, 20)), noise(2, (13, 8))
    write(tmp_path / "set" / "a.png", wide)
    write(tmp_path / "set" / "b.png", tall)
    images = get(tmp_path / "set", crop=True)
    np.testing.assert_array_equal(images.images[:, 0], [wide[:, 6:14], tall[2:10]])
    assert get(tmp_path / "set", crop=True, size=16).size == Size(16, 16)


def test_rectangles_of_one_size_are_taken_as_they_are(tmp_path):
    pictures = [noise(seed, (12, 20)) for seed in range(3)]
    for seed, picture in enumerate(pictures):
        write(tmp_path / "set" / f"{seed}.png", picture)
    images = get(tmp_path / "set")
    assert images.size == Size(height=12, width=20)
    np.testing.assert_array_equal(images.images[:, 0], pictures)
    again = get(tmp_path / "set", size="20x12")
    assert again.hash == images.hash
    assert get(tmp_path / "set", size="40x24").images.shape == (3, 1, 24, 40)


def test_rectangles_are_cropped_to_the_proportions_of_the_size(tmp_path):
    wide, tall = noise(1, (8, 40)), noise(2, (30, 24))
    write(tmp_path / "set" / "a.png", wide)
    write(tmp_path / "set" / "b.png", tall)
    images = get(tmp_path / "set", crop=True, size="24x16")
    assert images.images.shape == (2, 1, 16, 24)
    np.testing.assert_array_equal(images.images[1, 0], tall[7:23])  # of the width wanted: not resized
    middle = Image.fromarray(wide[:, 14:26]).resize((24, 16), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(images.images[0, 0], middle)


def test_proportions_are_rounded_to_whole_pixels(tmp_path):
    """427 x 1.5 is 640.5: photos of 3 to 2 have 640 or 641 pixels."""
    for width in (640, 641):
        write(tmp_path / "set" / f"{width}.png", np.zeros((427, width), np.uint8))
    assert get(tmp_path / "set", size="96x64").size == Size(64, 96)


def test_proportions_are_those_of_the_file_and_not_of_a_jpeg_decoded_at_a_fraction(tmp_path, monkeypatch):
    """601 x 902 fits 64 x 96 to the nearest pixel; an eighth of it, 76 x 113, does not."""
    monkeypatch.setattr(decode, "LARGE_PIXELS", 1000)
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "set" / "a.jpg", np.zeros((902, 601), np.uint8))
    write(tmp_path / "set" / "b.jpg", np.zeros((601, 902), np.uint8), exif=exif)
    assert get(tmp_path / "set", size="64x96").size == Size(96, 64)
    with pytest.raises(UserError, match="is 601 x 902, not square"):
        get(tmp_path / "set", size="64")


def test_skipped_images_are_reported_from_the_cache_too(tmp_path):
    for index in range(3):
        write(tmp_path / "set" / f"c{index}" / "good.png", noise(index))
    (tmp_path / "set" / "c1" / "bad.png").write_text("not an image")
    (tmp_path / "set" / "c2" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    for _ in range(2):
        notes = []
        images = get(tmp_path / "set", skip_bad=True, on_note=notes.append)
        assert len(notes) == 1
        assert "skipped 2 of the 5 images" in notes[0]
        assert "'c1/bad.png' (not an image" in notes[0] and "'c2/lost.png' (No such file" in notes[0]
        assert images.labels.tolist() == [0, 1, 2]
        np.testing.assert_array_equal(images.images[:, 0], [noise(0), noise(1), noise(2)])


def test_nothing_is_decoded_again_until_something_changes(tmp_path, monkeypatch):
    write(tmp_path / "set" / "a.png", noise(0))
    first = get(tmp_path / "set")
    with monkeypatch.context() as patched:
        patched.setattr("rivals.data.load.decode", lambda *_, **__: fail("decoded again"))
        assert get(tmp_path / "set").hash == first.hash
        with pytest.raises(AssertionError, match="decoded again"):
            get(tmp_path / "set", size=16)
    write(tmp_path / "set" / "a.png", noise(1, (16, 16)))
    assert get(tmp_path / "set").size == Size(16, 16)


def test_a_damaged_cache_is_rebuilt(tmp_path):
    write(tmp_path / "set" / "a.png", noise(0))
    first = get(tmp_path / "set")
    for name, content in (("images.u8", b"short"), ("about.json", b"{")):
        (file,) = decode_cache.folder().glob(f"*/{name}")
        file.write_bytes(content)
        notes = []
        assert get(tmp_path / "set", on_note=notes.append).hash == first.hash
        assert file.read_bytes() != content
        (note,) = notes
        assert file.parent.name in note and note.endswith("are damaged: they are decoded again")
    assert [path.name for path in decode_cache.folder().iterdir()] == [file.parent.name]


def test_without_a_writable_cache_images_are_decoded_in_memory(tmp_path, monkeypatch):
    for index in range(40):
        write(tmp_path / "set" / f"{index:02d}.png", noise(index))
    write(tmp_path / "set" / "color.png", COLOR)
    (tmp_path / "file").touch()
    expected = get(tmp_path / "set")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    notes = []
    images = get(tmp_path / "set", on_note=notes.append)
    assert images.hash == expected.hash
    assert len(notes) == 1
    assert notes[0].startswith("decoded images stay in memory only")


@pytest.mark.parametrize("mixed", [False, True])
def test_large_data_are_memory_mapped(tmp_path, monkeypatch, mixed):
    for index in range(40):
        write(tmp_path / "set" / f"{index:02d}.png", noise(index))
    if mixed:
        write(tmp_path / "set" / "color.png", COLOR)
    small = get(tmp_path / "set")
    assert isinstance(small.images, np.ndarray)
    monkeypatch.setattr(decode_cache, "memory_limit", lambda: 100)
    for _ in range(2):
        large = get(tmp_path / "set")
        assert isinstance(large.images, MappedPixels)
        assert large.hash == small.hash
    large.images[:][0] = 0  # a copy in memory: the file stays as it is
    assert get(tmp_path / "set").hash == small.hash


def test_the_memory_limit_is_plausible():
    assert 1 << 26 < decode_cache.memory_limit() < 1 << 50


def test_hash_depends_on_pixels_shape_and_labels():
    pixels = noise(0, (4, 1, 8, 8))
    labels = np.arange(4)
    changed = pixels.copy()
    changed[3, 0, 7, 7] ^= 1
    sets = [
        ImageSet("a", "train", pixels),
        ImageSet("a", "train", changed),
        ImageSet("a", "train", pixels.reshape(1, 4, 8, 8)),
        ImageSet("a", "train", pixels, labels, ("p", "q", "r", "s")),
        ImageSet("a", "train", pixels, labels[::-1].copy(), ("p", "q", "r", "s")),
    ]
    assert len({each.hash for each in sets}) == len(sets)
    assert all(len(each.hash) == 16 for each in sets)
    assert ImageSet("b", "test", pixels.copy()).hash == sets[0].hash
    assert ImageSet("a", "train", np.asfortranarray(pixels)).hash == sets[0].hash


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((np.zeros((2, 1, 8, 8), np.float32),), "uint8"),
        ((np.zeros((2, 8, 9), np.uint8),), r"\(2, 8, 9\)"),
        ((np.zeros((2, 2, 8, 8), np.uint8),), r"\(2, 2, 8, 8\)"),
        ((np.zeros((0, 1, 8, 8), np.uint8),), "at least one"),
        ((np.zeros((2, 1, 8, 8), np.uint8), np.zeros(2, np.int64)), "come together"),
        ((np.zeros((2, 1, 8, 8), np.uint8), np.zeros(3, np.int64), ("a",)), r"\(3,\)"),
    ],
)
def test_an_invalid_image_set_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        ImageSet("x", "train", *arguments)
