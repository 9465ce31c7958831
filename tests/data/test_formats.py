"""Files as cameras, scanners and other systems write them."""

import threading
import warnings
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, features

from helpers.refusals import named
from rivals.data import decode
from rivals.data.listing import suffixes
from rivals.data.load import load
from rivals.data.pixel_modes import bits_of


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def noise(seed, shape=(8, 8)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(pixels):
    content = BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def notes_of(source, **options):
    notes = []
    return load(source, on_note=notes.append, **options), notes


@pytest.mark.parametrize("wrapper", ["", "pets\\"])
def test_a_zip_with_backslashes_is_read_as_one_with_slashes(tmp_path, wrapper):
    files = {"train/cats/a.png": noise(0), "train/dogs/b.png": noise(1), "test/cats/c.png": noise(2)}
    for name, separator in (("there.zip", "\\"), ("here.zip", "/")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(f"{wrapper}train{separator}".replace("\\", separator), b"")
            for path, pixels in files.items():
                archive.writestr((wrapper + path.replace("/", "\\")).replace("\\", separator), png(pixels))
    for split in ("train", "test", "all"):
        there, here = (load(tmp_path / name, split=split, on_note=pytest.fail) for name in ("there.zip", "here.zip"))
        assert there.classes == here.classes
        assert there.hash == here.hash


def test_a_dataset_json_with_backslashes(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("00\\a.png", png(noise(0)))
        archive.writestr("00\\b.png", png(noise(1)))
        archive.writestr("dataset.json", r'{"labels": [["00\\a.png", 1], ["00/b.png", 0]]}')
    assert load(tmp_path / "set.zip").labels.tolist() == [1, 0]


KINDS = ["jfif", "jpe", "jp2", "tga", "pcx", "pnm", "pgm", "qoi", "dib", "ico", "apng", "sgi", "avif"]


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_pillow_decodes_is_read(tmp_path, kind):
    if kind == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    (tmp_path / "set").mkdir()
    Image.new("RGB", (16, 16), (200, 200, 200)).save(tmp_path / "set" / f"a.{kind.upper()}")
    images, notes = notes_of(tmp_path / "set")
    assert abs(images.images.astype(int) - 200).max() <= 2
    assert notes == []


def test_formats_that_need_another_program_are_no_images():
    assert {".jpg", ".png", ".webp", ".gif", ".tif", ".ppm"} <= set(suffixes())
    assert not {".eps", ".ps", ".h5", ".hdf", ".wmf", ".mpg", ".grib", ".txt", ".json"} & set(suffixes())


@pytest.mark.parametrize("zipped", [False, True])
def test_files_that_are_not_images_are_counted(tmp_path, zipped):
    files = {
        "train/cats/a.png": png(noise(0)),
        "train/cats/b.heic": b"x",
        "train/owls/c.HEIC": b"x",
        "train/owls/d.txt": b"x",
        "test/cats/e.png": png(noise(1)),
        "test/cats/f.raw": b"x",
        "README": b"x",
        ".DS_Store": b"x",
        "train/._a.png": b"x",
    }
    path = tmp_path / ("set.zip" if zipped else "set")
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    images, notes = notes_of(path)
    assert len(images) == 1
    says = "holds 4 files that are not images, left out: 2 .heic, 1 without a suffix, 1 .txt, such as 'README'"
    assert notes == [f"'{path}' {says}"]
    assert notes_of(path)[1] == notes  # from the cache as well


@pytest.mark.parametrize(
    ("peak", "bits"),
    [(0, 8), (255, 8), (256, 10), (1023, 10), (4000, 12), (4095, 12), (4096, 14), (16384, 16), (65536, 24)],
)
def test_the_usual_depths_of_cameras_and_scanners(peak, bits):
    assert bits_of(peak) == bits


@pytest.mark.parametrize(
    ("kind", "bits"), [("png", 12), ("tiff", 12), ("pgm", 12), ("png", 10), ("tiff", 14), ("png", 8)]
)
def test_gray_of_fewer_bits_than_its_file_keeps_its_brightness_and_is_told(tmp_path, kind, bits):
    white = 2**bits - 1
    expected = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    for index, scale in enumerate((1, 0.25)):  # the second, darker image keeps its relation to the first
        values = np.rint(expected / 252 * scale * white).astype(np.uint16)
        (tmp_path / "set").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / "set" / f"{index}.{kind}")
    for _ in range(2):  # decoded, and from the cache
        images, notes = notes_of(tmp_path / "set")
        assert abs(images.images[0, 0] - expected / 252 * 255).max() <= 1
        assert abs(images.images[1, 0] - expected / 252 * 255 / 4).max() <= 1
        assert len(notes) == 1
        assert f"values up to {white:,}: they are read as {bits} bits" in notes[0]


def test_all_splits_are_read_by_one_scale(tmp_path):
    for split, peak in (("train", 4095), ("test", 900)):
        (tmp_path / "set" / split).mkdir(parents=True)
        Image.fromarray(np.full((8, 8), peak, np.uint16)).save(tmp_path / "set" / split / "a.png")
    train, test = (notes_of(tmp_path / "set", split=split)[0].images for split in ("train", "test"))
    assert (train == 255).all()
    assert (test == round(900 / 4095 * 255)).all()


def test_negative_values_are_refused(tmp_path):
    (tmp_path / "set").mkdir()
    Image.fromarray(np.full((8, 8), -1000, np.int32)).save(tmp_path / "set" / "a.tiff")
    with named("'a.tiff'", "negative pixel values, down to -1,000"):
        load(tmp_path / "set")


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif"])
def test_large_photos_are_read_one_by_one_as_small_ones_are(tmp_path, monkeypatch, kind):
    rows, columns = np.mgrid[:600, :800]
    photo = np.stack([rows // 3, columns // 4, 255 - rows // 3], axis=-1).astype(np.uint8)
    (tmp_path / "set").mkdir()
    for index in range(3):
        Image.fromarray(np.roll(photo, index)).save(tmp_path / "set" / f"{index}.{kind}")
    small = load(tmp_path / "set", crop=True, size=32)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    monkeypatch.setattr(decode, "LARGE_PIXELS", 1000)
    large = load(tmp_path / "set", crop=True, size=32)
    assert large.images.shape == (3, 3, 32, 32)
    assert abs(large.images.astype(int) - small.images).max() <= 4


def test_the_settings_of_pillow_and_of_warnings_come_back_after_the_last_of_several_threads():
    before, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    inside, go = threading.Barrier(2), threading.Event()

    def first():
        with decode.strict_limits():
            inside.wait()
            go.wait()

    thread = threading.Thread(target=first)
    with decode.strict_limits():
        thread.start()
        inside.wait()
    assert Image.MAX_IMAGE_PIXELS == decode.MOST_PIXELS // 2  # the other thread still decodes
    go.set()
    thread.join()
    assert before == Image.MAX_IMAGE_PIXELS
    assert warnings.filters == filters
