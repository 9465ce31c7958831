"""``rivals certify`` by bounds: the bracket from the command line, resuming, and refusals."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import rivals
from helpers.commands import assert_refused
from rivals import L2, Linf
from rivals.api.common.network_io import save_network
from rivals.nets.factory import build_classifier
from rivals.nets.ibp_init import initialize_for_ibp


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny classifier with a few random images that it labels, some of them near its boundary."""
    home = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    net = build_classifier("cnn", size=8, channels=1, classes=3, widths=(4,)).eval()
    initialize_for_ibp(net)
    save_network(net, home / "classifier.safetensors", {"classes": ["a", "b", "c"], "white": 255})
    return home


def images(net, n=12):
    x = torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, net(x).argmax(1)


@pytest.fixture(scope="module")
def pictures(place):
    """The images as a folder, by the class that the classifier gives them; two of them with another label."""
    from PIL import Image

    net = rivals.load(place / "classifier.safetensors")
    x = (images(net)[0] * 255).to(torch.uint8)
    labels = net(x.float() / 255).argmax(1).tolist()
    labels[0], labels[1] = (labels[0] + 1) % 3, (labels[1] + 1) % 3
    for name in "abc":
        (place / "pictures" / name).mkdir(parents=True)
    for i, label in enumerate(labels):
        Image.fromarray(x[i, 0].numpy()).save(place / "pictures" / "abc"[label] / f"{i}.png")
    for name in "abc":  # a class without images is not one
        if not any((place / "pictures" / name).iterdir()):
            Image.fromarray(x[2, 0].numpy()).save(place / "pictures" / name / "extra.png")
    return place / "pictures"


def certify(run_rivals, place, pictures, *words):
    return run_rivals("certify", place, pictures, "--attack", "pgd(steps=10)", *words)


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown", "alpha-crown", "beta-crown"])
def test_each_image_is_certified_broken_or_open(run_rivals, empty_folder, place, pictures, method):
    words = ("--method", method, "--eps", "0.01", "--json")
    status, out, err = certify(run_rivals, place, pictures, *words)
    assert status == 0, err
    result = json.loads(out)
    run = Path("runs/pictures-certify-1")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == result["n"]
    assert not any(record["certified"] and record["broken"] for record in records)
    assert all(record["certified"] == (record["margin"] > 0) for record in records if not record["broken"])
    counts = {key: result[key]["count"] for key in ("clean", "certified", "unbroken", "open")}
    assert counts["certified"] + counts["open"] == counts["unbroken"] <= counts["clean"] <= result["n"] - 2
    assert result["certified"]["low"] < result["certified"]["value"] < result["certified"]["high"]
    page = (run / "report.html").read_text()
    for text in ("Certified, broken, open", "classified correctly", "Protocol", "pgd(steps=10)", "all images"):
        assert text in page
    for part in ("certified", "open", "broken by the attack", "misclassified without it"):
        assert f"</i>{part}</li>" in page


def test_better_bounds_certify_more_and_no_certified_image_falls(place):
    net = rivals.load(place / "classifier.safetensors")
    x, y = images(net, 24)
    robust = rivals.evaluate(net, (x, y), Linf(0.03), attack="apgd(steps=20)", save="none", quiet=True, alarms=False)
    counts = {}
    for method in ("ibp", "crown-ibp", "crown", "alpha-crown", "beta-crown"):
        found = rivals.certify(net, (x, y), method=method, eps=0.03, upper=False, quiet=True)
        counts[method] = found.certified.count
        assert found.certified.count <= robust.robust.count
    assert counts["ibp"] <= counts["crown-ibp"] <= counts["crown"] <= counts["alpha-crown"]
    assert counts["crown"] <= counts["beta-crown"]
    assert counts["ibp"] < counts["crown"]


def test_l2_certifies_a_linear_classifier_up_to_the_distance_of_its_boundary():
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    model, x = nn.Sequential(nn.Flatten(), layer), torch.tensor([[[[0.6, 0.4]]]])
    y = torch.tensor([0])
    distance = 0.2 / 2**0.5
    near = rivals.certify(model, (x, y), L2(0.99 * distance), method="crown", attack="apgd", quiet=True)
    far = rivals.certify(model, (x, y), L2(1.02 * distance), method="crown", attack="apgd", quiet=True)
    assert near.certified.count == 1
    assert (far.certified.count, far.unbroken.count) == (0, 0)


def test_a_certification_resumes_and_is_compared(run_rivals, empty_folder, place, pictures):
    words = ("--method", "ibp", "--eps", "0.01", "--batch-size", "4")
    assert certify(run_rivals, place, pictures, *words, "--out", "whole").status == 0
    whole = (empty_folder / "whole" / "metrics.jsonl").read_text().splitlines()
    assert certify(run_rivals, place, pictures, *words, "--out", "part").status == 0
    log = empty_folder / "part" / "metrics.jsonl"
    log.write_text("\n".join(log.read_text().splitlines()[:4]) + "\n")
    status, _, err = run_rivals("certify", "--out", "part", "--resume")
    assert status == 0, err
    again = log.read_text().splitlines()

    def timeless(lines):
        return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]

    assert timeless(again) == timeless(whole)
    assert run_rivals("report", "whole", "part", "--out", "both.html").status == 0
    assert "not broken" in (empty_folder / "both.html").read_text()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--method", "ibp"), "needs a radius: add --eps"),
        (("--method", "ibp", "--eps", "0"), "eps of 0 certifies nothing"),
        (("--method", "ibp", "--eps", "0.1", "--sigma", "0.5"), "--sigma has no meaning for --method ibp"),
        (("--eps", "0.1"), "--eps has no meaning for --method smoothing"),
        (("--method", "crown", "--eps", "0.1", "--norm", "l1"), "norm of certificates"),
        (("--method", "deeppoly", "--eps", "0.1"), "method of certification"),
    ],
)
def test_settings_that_cannot_work_are_refused(run_rivals, empty_folder, place, pictures, words, says):
    assert_refused(run_rivals("certify", place, pictures, *words), says)
    assert not Path("runs").exists()


def test_a_model_without_bounds_names_its_layer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Softplus(), nn.Linear(2, 2))
    x = torch.rand(3, 1, 2, 2)
    with pytest.raises(rivals.UserError, match=r"no bounds for the layer 2 \(Softplus\)"):
        rivals.certify(model, (x, torch.zeros(3, dtype=torch.int64)), method="ibp", eps=0.1, quiet=True)


def test_bounds_that_explode_are_said_with_the_layer():
    model = nn.Sequential(nn.Flatten(), *(nn.Linear(4, 4, bias=False) for _ in range(3)))
    for layer in model[1:]:
        layer.weight.data = 3e13 * torch.tensor([1.0, -1.0, 1.0, -1.0]).expand(4, 4)
    x = torch.full((3, 1, 2, 2), 0.5)  # whose logits are 0
    with pytest.raises(rivals.UserError, match=r"explode.*layer 3"):
        rivals.certify(model, (x, torch.zeros(3, dtype=torch.int64)), method="crown", eps=0.1, quiet=True)
