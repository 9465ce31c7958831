"""Data and models are matched by the names of their classes."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from helpers.commands import assert_refused
from helpers.refusals import named
from rivals import ImageSet, Linf, certify, evaluate
from rivals.api.common.network_io import save_network
from rivals.nets.factory import build_classifier
from rivals.nets.wrappers import ReorderedModel

FAST = {"attack": "fgsm", "alarms": False, "quiet": True}
BALL = Linf(1 / 255)


class Brightness(nn.Module):
    """Tells images of the given brightnesses apart without a mistake: class i has brightness ``levels[i]``."""

    def __init__(self, levels, classes=None):
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels) / 255)
        if classes is not None:
            self.about = {"classes": list(classes)}

    def forward(self, x):
        return -100 * (x.mean((1, 2, 3))[:, None] - self.levels).abs()


def folder(path, levels):
    """A folder with a class of each name, of two images of one brightness."""
    from PIL import Image

    for name, level in levels.items():
        (path / name).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (8, 8), level).save(path / name / f"{number}.png")
    return path


def test_a_model_of_whole_numbers_and_folders_of_whole_numbers(tmp_path):
    count = 12
    data = folder(tmp_path / "set", {str(i): 20 * i for i in range(count)})
    report = evaluate(Brightness([20 * i for i in range(count)]), data, BALL, **FAST)
    assert report.clean.value == 1
    assert [each.name for each in report.classes] == [str(i) for i in range(count)]
    assert report.notes == ()


def test_another_order_and_case_of_names_changes_nothing_and_is_told(tmp_path):
    data = folder(tmp_path / "set", {"Owls": 200, "cats": 50, "dogs": 100})
    model = Brightness([50, 100, 200], ["cats", "dogs", "owls"])
    report = evaluate(model, data, BALL, **FAST)
    assert report.clean.value == 1
    assert [each.name for each in report.classes] == ["cats", "dogs", "owls"]
    assert "'Owls' as 'owls'" in report.notes[0]


@pytest.mark.parametrize("described", [False, True])
def test_a_subset_of_the_classes_is_evaluated_at_the_indices_of_the_model(tmp_path, described):
    data = folder(tmp_path / "set", {"dog": 100, "yak": 250})
    if described:
        labels = [[f"{name}/{number}.png", label] for label, name in ((4, "dog"), (1, "yak")) for number in (0, 1)]
        description = {"labels": labels, "classes": ["ant", "yak", "bee", "cow", "dog"]}
        (data / "dataset.json").write_text(json.dumps(description))
    model = Brightness([10, 100, 160, 250], ["cat", "dog", "emu", "yak"])
    report = evaluate(model, data, BALL, **FAST)
    assert report.clean.value == 1
    assert [each.name for each in report.classes] == ["dog", "yak"]


def test_where_test_images_have_no_classes_training_images_are_taken(tmp_path):
    folder(tmp_path / "set" / "train", {"dog": 100, "yak": 250})
    folder(tmp_path / "set", {"test": 9})
    report = evaluate(Brightness([100, 250], ["dog", "yak"]), tmp_path / "set", BALL, **FAST)
    assert (report.protocol["split"], report.n, report.clean.value) == ("train", 4, 1)


def test_names_given_for_a_model_without_any(tmp_path):
    data = folder(tmp_path / "set", {"dog": 100, "yak": 250})
    model, names = Brightness([10, 100, 160, 250]), ["cat", "dog", "emu", "yak"]
    (tmp_path / "names.txt").write_text("\n".join(names))
    for given in (names, tmp_path / "names.txt", str(tmp_path / "names.txt")):
        assert evaluate(model, data, BALL, classes=given, **FAST).clean.value == 1
    with named("4 classes without names", "'set' has 2 (dog, yak)", "--classes FILE"):
        evaluate(model, data, BALL, **FAST)
    with named("the model has 4 classes, and 3 class names"):
        evaluate(model, data, BALL, classes=[*names[1:]], **FAST)
    report = evaluate(Brightness([100, 250]), data, BALL, **FAST)
    assert report.clean.value == 1
    assert "its logits are taken to be dog, yak" in report.notes[0]


@pytest.mark.parametrize("names", [["0", "1"], ["cats", "dogs"], ["T-shirt/top", "Trouser"]])
def test_data_of_other_classes_are_refused_with_both_lists(names):
    images = ImageSet("set", "test", np.zeros((2, 1, 8, 8), np.uint8), np.arange(2), ("lie", "stand"))
    model = Brightness([0, 255], names)
    for judge in (lambda: evaluate(model, images, BALL, **FAST), lambda: certify(model, images, quiet=True)):
        with named("the class 'lie' of 'set' (test) fits no class", "lie, stand", ", ".join(names)):
            judge()


def test_the_attack_command_matches_a_saved_classifier_by_name(tmp_path, run_rivals, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = folder(tmp_path / "set", {"emu": 40, "ant": 80})
    net = build_classifier("cnn", size=8, channels=1, classes=3, widths=(4,))
    save_network(net, tmp_path / "classifier.safetensors", {"classes": ["ant", "bee", "emu"]})
    words = ("classifier.safetensors", data, "--attack", "fgsm", "--no-alarms", "--quiet")
    assert run_rivals("attack", *words, "--out", "runs/a").status == 0
    info = json.loads((tmp_path / "runs/a/run.json").read_text())
    assert info["data"]["classes"] == ["ant", "bee", "emu"]
    assert [(each["class"], each["clean"]["of"]) for each in info["results"]["classes"]] == [("ant", 2), ("emu", 2)]
    assert "0: ant, 1: bee, 2: emu" in (tmp_path / "runs/a/report.html").read_text()
    (tmp_path / "names.txt").write_text("ant\nfly\ngnu\n")
    result = run_rivals("attack", *words, "--out", "runs/b", "--classes", "names.txt")
    assert_refused(result, "the class 'emu' of 'set' (all) fits no class of the model", "ant, fly, gnu")
    assert not (tmp_path / "runs/b").exists()


def test_logits_in_another_order():
    model = Brightness([10, 100, 200])
    x = torch.full((1, 1, 8, 8), 100 / 255)
    assert ReorderedModel(model, [2, 1, 0])(x).tolist() == model(x).flip(1).tolist()
