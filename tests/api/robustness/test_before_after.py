"""Before and after a hardening: measured once, kept in the folder, told on the page."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from rivals import Linf, cli
from rivals.api import comparison
from rivals.api.comparison import Comparison, varied
from rivals.base.errors import Interrupted, UserError
from rivals.reports.page import write_report

TINY = {"widths": (4, 8), "batch": 16, "quiet": True, "device": "cpu", "precision": "fp32"}
ADAM = {"optimizer": "adam", "ema": 0, "lr": 5e-3}
KEPT = ("comparison.json", "comparison.npz")


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
    return json.loads((folder / "comparison.json").read_text())


def test_both_sides_met_the_same_images_and_the_numbers_are_those_of_an_evaluation(there):
    told = numbers(there / "hard")
    before, after = told["sides"]
    assert (before["side"], after["side"]) == ("before", "after")
    assert before["source"] == "plain"
    assert [point["eps"] for point in after["curve"]] == pytest.approx([0, 0.0125, 0.025, 0.05, 0.075, 0.1])
    assert told["protocol"]["n"] == before["clean"]["of"] == after["clean"]["of"] == 12  # a tenth of 120 is the test
    for side in told["sides"]:
        values = [point["value"] for point in side["curve"]]
        assert values == sorted(values, reverse=True)
        assert values[0] == side["clean"]["value"] and values[-1] == side["robust"]["value"]
        assert sum(each["robust"]["count"] for each in side["classes"]) == side["robust"]["count"]
    assert after["robust"]["value"] > before["robust"]["value"] + 0.2


def test_the_pictures_lie_in_the_ball_and_are_what_the_classifiers_say(there):
    with np.load(there / "hard" / "comparison.npz") as kept:
        pictures = dict(kept)
    x, label = torch.from_numpy(pictures["x"]), torch.from_numpy(pictures["label"])
    assert len(x) == 8 and label[:2].tolist() == [0, 1]
    for side, folder in (("before", "plain"), ("after", "hard")):
        net = rivals.load(there / folder)
        x_adv = torch.from_numpy(pictures[f"{side}_x_adv"])
        assert (x_adv - x).abs().max() <= 0.1 + 1e-6
        assert net(x_adv).argmax(1).tolist() == pictures[f"{side}_said_adv"].tolist()
        assert net(x).argmax(1).tolist() == pictures[f"{side}_said"].tolist()
        leaf = x.clone().requires_grad_()
        torch.nn.functional.cross_entropy(net(leaf), label, reduction="sum").backward()
        torch.testing.assert_close(leaf.grad, torch.from_numpy(pictures[f"{side}_slope"]), rtol=1e-3, atol=1e-6)


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
    for said in ("Before and after", "The same images under the same attack", "What each looks at", "attacked, before"):
        assert said in page
    assert page.count("<img") == 5 * 8  # clean, two attacked, two slopes
    assert "Under PGD at eps 0.1, after" in page


def test_without_another_classifier_the_page_shows_one_side(there):
    run = rivals.harden("data", Linf(0.1), method="fgsm", until="1 epochs", out="alone", **TINY)
    assert [side["side"] for side in numbers(run.folder)["sides"]] == ["after"]
    page = run.report.read_text()
    assert "Under attack" in page and "Before and after" not in page
    assert page.count("<img") == 3 * 8


def test_a_page_is_made_of_what_can_be_read(there, tmp_path):
    run = rivals.Run.open(there / "hard")
    for name, content in (("comparison.npz", b"PK"), ("comparison.json", b"[1]"), ("comparison.json", b'{"sides": 7}')):
        kept = (run.folder / name).read_bytes()
        (run.folder / name).write_bytes(content)
        page = write_report([run], tmp_path / "page.html").read_text()
        (run.folder / name).write_bytes(kept)
        assert "What each looks at" not in page and "Curves" in page


def test_what_does_not_fit_is_refused_before_anything_is_written(there, capsys):
    rivals.train("data", until="1 steps", batch=4, out="gan", quiet=True, device="cpu")
    for against, says in (
        ("nowhere", "no network at 'nowhere'"),
        ("gan", "--against gan does not fit this data: it takes a classifier of size 8, channels 1, classes 2"),
    ):
        with pytest.raises(SystemExit) as left:
            cli.main(["harden", "data", "--against", against, "--out", "never", "--quiet"])
        said = capsys.readouterr().err.strip()
        assert left.value.code == 2 and len(said.splitlines()) == 1
        assert says in said.replace(f"{there}/", "")
        assert not (there / "never").exists()


def test_broken_off_while_it_measures_it_is_resumed(there, monkeypatch):
    def interrupt(self, *args):
        raise KeyboardInterrupt

    words = {"method": "fgsm", "until": "1 epochs", "out": "off", **TINY}
    with monkeypatch.context() as patch:
        patch.setattr(comparison.Comparison, "_measure", interrupt)
        with pytest.raises(Interrupted):
            rivals.harden("data", Linf(0.1), **words)
    run = rivals.Run.open("off")
    assert run.about["state"] == "interrupted"
    weights = (run.folder / "classifier.safetensors").read_bytes()
    rivals.harden(resume=True, out="off", quiet=True)
    assert run.about["state"] == "finished" and numbers(run.folder)["sides"]
    assert (run.folder / "classifier.safetensors").read_bytes() == weights


def test_images_go_round_the_classes():
    labels = np.array([1, 1, 0, 2, 0, 1])
    assert labels[varied(labels)].tolist() == [0, 1, 2, 0, 1, 1]
    assert varied(labels).tolist() == [2, 0, 3, 4, 1, 5]


def test_bad_resumption_is_refused(there):
    with pytest.raises(UserError, match="no network at"):
        rivals.harden(resume=True, out="hard", against="nowhere", quiet=True)
