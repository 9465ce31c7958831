"""Start weights, classifiers to compare with and resumed runs have the data's classes by name, in any order."""

import json

import numpy as np
import pytest
from PIL import Image

import rivals
from helpers.refusals import named
from rivals import Linf
from rivals.api.common.network_io import save_network
from rivals.nets.factory import build_classifier

TINY = {"batch_size": 8, "quiet": True, "device": "cpu", "widths": (4,), "net": "cnn"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Twelve dark images of ``ant``, twelve bright ones of ``yak``, in the folder ``set``."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    for name, level in (("ant", 60), ("yak", 190)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(12):
            pixels = noise.integers(level - 40, level + 40, (8, 8)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.png")
    return tmp_path


def classifier(path, names):
    net = build_classifier("cnn", size=8, channels=1, classes=len(names), widths=(4,))
    path.mkdir()
    save_network(net, path / "classifier.safetensors", {"classes": list(names)})
    return str(path)


def test_hardening_goes_on_with_the_classes_of_its_start_weights(place):
    weights = classifier(place / "start", ["yak", "bee", "ant"])
    run = rivals.harden("set", Linf(0.1), weights=weights, until="2 steps", out="run", **TINY)
    assert run.info["data"]["classes"] == run.classifier.about["classes"] == ["yak", "bee", "ant"]
    compared = json.loads((place / "run/before_after.json").read_text())
    assert {each["class"] for side in compared["sides"] for each in side["classes"]} <= {"ant", "yak"}
    with named("the class 'ant' of 'set'", "fits no class of the classifier", "ant, yak", "cat, dog"):
        rivals.harden("set", Linf(0.1), weights=classifier(place / "other", ["cat", "dog"]), out="no", **TINY)
    assert not (place / "no").exists()


def test_a_classifier_to_compare_with_may_have_the_classes_in_another_order(place):
    plain = rivals.classify("set", until="30 epochs", out="plain", lr=0.02, **TINY)
    assert plain.result()["accuracy/test"] == 1
    net, about = plain.classifier, plain.classifier.about
    last = [each for each in net.modules() if hasattr(each, "out_features")][-1]
    last.weight.data, last.bias.data = last.weight.data.flip(0), last.bias.data.flip(0)
    (place / "turned").mkdir()
    save_network(net, place / "turned/classifier.safetensors", {**about, "classes": about["classes"][::-1]})
    for name in ("plain", "turned"):
        rivals.harden("set", Linf(0.1), against=name, until="2 steps", out=f"after-{name}", **TINY)
    before = [json.loads((place / f"after-{name}/before_after.json").read_text()) for name in ("plain", "turned")]
    assert [each["sides"][0]["clean"]["value"] for each in before] == [1, 1]
    files = [np.load(place / f"after-{name}/before_after.npz") for name in ("plain", "turned")]
    assert (files[0]["before_prediction"] == files[1]["before_prediction"]).all()
    with named("'ant' of 'set' fits no class", "ant, yak", "cat, dog"):
        against = classifier(place / "other", ["cat", "dog"])
        rivals.harden("set", Linf(0.1), against=against, until="2 steps", out="no", **TINY)


def test_a_run_whose_classes_have_other_names_now_is_not_resumed(place):
    rivals.classify("set", until="1 steps", out="run", **TINY)
    (place / "set" / "yak").rename(place / "set" / "zebu")
    with named("the classes of 'set' are not those that the run began with", "they were ant, yak, now ant, zebu"):
        rivals.classify("set", out="run", resume=True, quiet=True, device="cpu")


def test_a_gan_goes_on_with_the_classes_of_its_start_weights(place):
    small = {"recipe": "dcgan", "batch_size": 8, "latent_dim": 4, "generator_widths": (8, 4), "until": "1 steps"}
    small |= {"discriminator_widths": (4, 8), "quiet": True, "device": "cpu"}
    first = rivals.train("set", conditional=True, out="first", **small)
    turned = {"ant": 1, "yak": 0}
    labels = [[f"{name}/{number}.png", index] for name, index in turned.items() for number in range(12)]
    (place / "set" / "dataset.json").write_text(json.dumps({"labels": labels, "classes": ["yak", "ant"]}))
    again = rivals.train("set", weights="first", out="again", **small)
    assert again.info["data"]["classes"] == ["ant", "yak"]
    assert again.info["data"]["hash"] == first.info["data"]["hash"]
