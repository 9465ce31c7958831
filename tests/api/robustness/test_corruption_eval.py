"""Accuracy under corruptions: the evaluation, its report, and files of CIFAR-10-C's form."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.refusals import named
from rivals.api import attack
from rivals.api.common.network_io import save_network
from rivals.api.robustness.corruption_eval import CorruptedFiles
from rivals.data.corruptions import KINDS, corrupt
from rivals.metrics.corruption_error import ALEXNET, CorruptionRobustness
from rivals.metrics.proportion import Proportion
from rivals.nets.factory import build_classifier

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 3, 16, 16)).astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build_classifier("cnn", size=16, channels=3, classes=2, widths=(4,)).eval()
    path = tmp_path_factory.mktemp("model") / "classifier.safetensors"
    save_network(net, path, {"classes": ["0", "1"]})
    return path, net


def predicted(net, images):
    with torch.no_grad():
        return net(torch.from_numpy(images).float() / 255).argmax(1).numpy()


@pytest.fixture
def files(tmp_path, model):
    """Two kinds of CIFAR-10-C's form, with the labels of the clean images."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(predicted(model[1], IMAGES), 5).astype(np.uint8))
    for kind in ("gaussian_noise", "contrast"):
        made = np.concatenate([corrupt(IMAGES, kind, severity) for severity in range(1, 6)])
        np.save(folder / f"{kind}.npy", made.transpose(0, 2, 3, 1))
    return folder


def test_files_of_cifar10_c_are_counted_by_severity(files, model, tmp_path):
    report = attack(str(model[0]), str(files), attack="corruptions", out=tmp_path / "run", quiet=True)
    assert list(report.accuracies) == ["gaussian_noise", "contrast"]
    y = predicted(model[1], IMAGES)
    for kind, found in report.accuracies.items():
        counts = [int((predicted(model[1], corrupt(IMAGES, kind, severity)) == y).sum()) for severity in range(1, 6)]
        assert [each.count for each in found] == counts
    assert report.clean is None
    assert any("no file for" in note for note in report.notes)
    entry = json.loads((tmp_path / "run" / "robustbench.json").read_text())
    assert entry["corruptions_acc"] == f"{100 * report.accuracy:.2f}"
    page = (tmp_path / "run" / "report.html").read_text()
    for text in ("Accuracy under corruptions", "gaussian noise", "mCE", "severity 1"):
        assert text in page


def test_corruptions_are_made_here_recorded_and_resumed(tmp_path, model, monkeypatch):
    from PIL import Image

    for i, image in enumerate(IMAGES[:6]):
        path = tmp_path / "photos" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    out = tmp_path / "run"
    report = attack(str(model[0]), str(tmp_path / "photos"), attack="corruptions", out=out, quiet=True)
    assert list(report.accuracies) == list(KINDS)
    assert report.clean.of == 6
    assert any("frost is a synthetic texture" in note for note in report.notes)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 76
    (out / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[:70]))
    again = attack(out=out, resume=True, quiet=True)
    assert again.accuracies == report.accuracies
    assert again.as_dict()["mce"] == pytest.approx(report.mce)


def test_the_mean_corruption_error_is_its_formula():
    accuracies = {kind: (Proportion(6, 10),) * 5 for kind in KINDS}
    plain, relative = (
        CorruptionRobustness(Proportion(9, 10), accuracies, scaled, (), {}, 1.0) for scaled in (False, True)
    )
    assert plain.mce == pytest.approx(0.4)
    assert relative.mce == pytest.approx(np.mean([0.4 / error for error in ALEXNET.values()]))
    assert plain.accuracy == pytest.approx(0.6)
    assert set(ALEXNET) == set(KINDS)
    assert "mCE                 40.0%" in str(plain)


def test_damaged_files_are_refused_in_one_line(files):
    np.save(files / "contrast.npy", np.zeros((5, 4), np.float32))
    with named("contrast.npy' is float32 of shape (5, 4), not uint8 (50, H, W, C)"):
        CorruptedFiles.open(files).images("contrast", 1)
    np.save(files / "labels.npy", np.array([{}], dtype=object), allow_pickle=True)
    with named("labels.npy' cannot be read as an array without pickled objects"):
        CorruptedFiles.open(files)
    np.save(files / "labels.npy", np.arange(10))
    with named("labels.npy' differs between severities"):
        CorruptedFiles.open(files)
    for path in Path(files).glob("[cg]*.npy"):
        path.unlink()
    with named("has labels.npy and no array of a corruption"):
        CorruptedFiles.open(files)
