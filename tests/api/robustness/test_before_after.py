"""Before and after adversarial training: measured once, stored in the folder, shown on the page."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.commands import assert_refused
from rivals import Linf
from rivals.api.robustness import before_after
from rivals.api.robustness.before_after import Comparison, varied
from rivals.base.errors import Interrupted, UserError
from rivals.reports.report import write_report

TINY = {"widths": (4, 8), "batch_size": 16, "quiet": True, "device": "cpu", "precision": "fp32"}
ADAM = {"optimizer": "adam", "ema": 0, "lr": 5e-3}
KEPT = ("before_after.json", "before_after.npz")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two classes of faint stripes, a plain classifier of them, and one that was hardened from it."""
    home = tmp_path_factory.mktemp("stripes")
    bars = np.where(np.arange(8)[:, None] % 4 < 2, 180, 75) * np.ones(8)
    noise = np.random.default_rng(0)
    for name, pattern in (("lie", bars), ("stand", bars.T)):
        (home / "data" / name).mkdir(parents=True)
        for number in range(60):
            pixels = (pattern + noise.normal(0, 12, (8, 8))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(home / "data" / name / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("RIVALS_DATA", str(home / "none"))
        rivals.classify("data", until="8 epochs", out="plain", **ADAM, **TINY)
        rivals.harden("data", Linf(0.1), method="pgd", until="20 epochs", weights="plain", out="hard", **ADAM, **TINY)
    return home


@pytest.fixture
def there(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("RIVALS_DATA", str(place / "none"))
    return place


def numbers(folder):
    return json.loads((folder / "before_after.json").read_text())


def test_both_sides_have_the_same_images_and_the_numbers_of_an_evaluation(there):
    stored = numbers(there / "hard")
    before, after = stored["sides"]
    assert (before["side"], after["side"]) == ("before", "after")
    assert before["source"] == str(there / "plain")
    assert [point["eps"] for point in after["curve"]] == pytest.approx([0, 0.0125, 0.025, 0.05, 0.075, 0.1])
    assert stored["protocol"]["n"] == before["clean"]["of"] == after["clean"]["of"] == 12  # a tenth of 120 is the test
    for side in stored["sides"]:
        values = [point["value"] for point in side["curve"]]
        assert values == sorted(values, reverse=True)
        assert values[0] == side["clean"]["value"] and values[-1] == side["robust"]["value"]
        assert sum(each["robust"]["count"] for each in side["classes"]) == side["robust"]["count"]
    assert after["robust"]["value"] > before["robust"]["value"] + 0.2


def test_the_examples_lie_in_the_ball_and_have_the_predictions_of_the_classifiers(there):
    with np.load(there / "hard" / "before_after.npz") as kept:
        pictures = dict(kept)
    x, label = torch.from_numpy(pictures["x"]), torch.from_numpy(pictures["label"])
    assert len(x) == 8 and label[:2].tolist() == [0, 1]
    for side, folder in (("before", "plain"), ("after", "hard")):
        net = rivals.load(there / folder)
        x_adv = torch.from_numpy(pictures[f"{side}_x_adv"])
        assert (x_adv - x).abs().max() <= 0.1 + 1e-6
        assert net(x_adv).argmax(1).tolist() == pictures[f"{side}_prediction_adv"].tolist()
        assert net(x).argmax(1).tolist() == pictures[f"{side}_prediction"].tolist()
        leaf = x.clone().requires_grad_()
        torch.nn.functional.cross_entropy(net(leaf), label, reduction="sum").backward()
        torch.testing.assert_close(
            leaf.grad, torch.from_numpy(pictures[f"{side}_input_gradient"]), rtol=1e-3, atol=1e-6
        )


def test_it_is_measured_again_only_where_it_is_missing_or_of_other_weights(there, monkeypatch):
    before = {name: (there / "hard" / name).read_bytes() for name in KEPT}
    measured = []
    measure = Comparison._measure
    monkeypatch.setattr(Comparison, "_measure", lambda self, *args: measured.append(1) or measure(self, *args))
    rivals.harden(resume=True, out="hard", quiet=True)
    assert not measured
    for name in KEPT:
        (there / "hard" / name).unlink()
        rivals.harden(resume=True, out="hard", quiet=True)
        assert {name: (there / "hard" / name).read_bytes() for name in KEPT} == before
    assert len(measured) == 2
    rivals.harden(resume=True, out="hard", against="hard", quiet=True)
    first, second = numbers(there / "hard")["sides"]
    assert len(measured) == 3
    assert {**first, "side": "", "source": ""} == {**second, "side": "", "source": ""}
    rivals.harden(resume=True, out="hard", against="plain", quiet=True)
    assert numbers(there / "hard")["sides"][0]["source"] == str(there / "plain")


def test_the_page_shows_both_sides(there):
    page = (there / "hard" / "report.html").read_text()
    for said in ("Robust accuracy before and after", "Adversarial examples", "Input gradients", "robust, before"):
        assert said in page
    assert page.count("<img") == 5 * 8  # clean, two attacked, two gradients
    assert "PGD accuracy at eps 0.1, after" in page


def test_without_another_classifier_the_page_shows_one_side(there):
    run = rivals.harden("data", Linf(0.1), method="fgsm", until="1 epochs", out="alone", **TINY)
    assert [side["side"] for side in numbers(run.folder)["sides"]] == ["after"]
    page = run.report.read_text()
    assert "Robust accuracy" in page and "before and after" not in page
    assert page.count("<img") == 3 * 8


def test_a_page_is_made_from_what_can_be_read(there, tmp_path):
    run = rivals.Run.open(there / "hard")
    for name, content in (
        ("before_after.npz", b"PK"),
        ("before_after.json", b"[1]"),
        ("before_after.json", b'{"sides": 7}'),
    ):
        kept = (run.folder / name).read_bytes()
        (run.folder / name).write_bytes(content)
        page = write_report([run], tmp_path / "page.html").read_text()
        (run.folder / name).write_bytes(kept)
        assert "Input gradients" not in page and "Training curves" in page


def test_a_mismatch_is_refused_before_anything_is_written(run_rivals, there):
    rivals.train("data", until="1 steps", batch_size=4, out="gan", quiet=True, device="cpu")
    for against, says in (
        ("nowhere", "no network at 'nowhere'"),
        ("gan", "--against gan does not fit this data: it holds a generator, give a classifier"),
    ):
        said = assert_refused(run_rivals("harden", "data", "--against", against, "--out", "never", "--quiet"))
        assert says in said.replace(f"{there}/", "")
        assert not (there / "never").exists()


def test_an_interrupted_comparison_is_resumed(there, monkeypatch):
    def interrupt(self, *args):
        raise KeyboardInterrupt

    words = {"method": "fgsm", "until": "1 epochs", "out": "off", **TINY}
    with monkeypatch.context() as patch:
        patch.setattr(before_after.Comparison, "_measure", interrupt)
        with pytest.raises(Interrupted):
            rivals.harden("data", Linf(0.1), **words)
    run = rivals.Run.open("off")
    assert run.info["state"] == "interrupted"
    weights = (run.folder / "classifier.safetensors").read_bytes()
    rivals.harden(resume=True, out="off", quiet=True)
    assert run.info["state"] == "finished" and numbers(run.folder)["sides"]
    assert (run.folder / "classifier.safetensors").read_bytes() == weights


def test_images_go_round_the_classes():
    labels = np.array([1, 1, 0, 2, 0, 1])
    assert labels[varied(labels)].tolist() == [0, 1, 2, 0, 1, 1]
    assert varied(labels).tolist() == [2, 0, 3, 4, 1, 5]


def test_bad_resume_is_refused(there):
    with pytest.raises(UserError, match="no network at"):
        rivals.harden(resume=True, out="hard", against="nowhere", quiet=True)
