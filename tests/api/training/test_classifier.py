"""Training a classifier: it learns, resumes bit for bit, keeps images aside, and refuses in one line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.commands import assert_refused
from helpers.kill_and_resume import assert_killed_run_resumes
from helpers.refusals import named
from rivals.api.training import classifier_factory
from rivals.api.training.classifier import ClassifierJob
from rivals.base.errors import UserError
from rivals.base.rng import generator
from rivals.base.run_folder import Run
from rivals.base.schedules import Clock
from rivals.data.imageset import ImageSet
from rivals.data.splits import hold_out
from rivals.game.classifier_step import ClassifierStep
from rivals.losses.classification import cross_entropy, readings

TINY = {"widths": (4, 8), "batch_size": 8, "quiet": True, "device": "cpu"}


@pytest.fixture
def stripes(tmp_path, monkeypatch):
    """A folder of noisy pictures in two classes: stripes that lie and stripes that stand."""
    monkeypatch.setenv("RIVALS_DATA", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    bars = np.where(np.arange(8)[:, None] % 4 < 2, 200, 60) * np.ones(8)
    for name, picture in (("lie", bars), ("stand", bars.T)):
        (tmp_path / "stripes" / name).mkdir(parents=True)
        for number in range(40):
            pixels = (picture + noise.normal(0, 20, (8, 8))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "stripes" / name / f"{number}.png")
    return str(tmp_path / "stripes")


def records(run, key):
    return [record[key] for record in Run.open(run).records() if key in record]


def test_a_classifier_learns_and_its_saved_file_gives_the_same_logits(stripes):
    run = rivals.classify(stripes, until="20 epochs", out="runs/stripes", **TINY)
    result = run.result()
    assert result["state"] == "finished"
    assert result["accuracy/test"] == 1.0
    assert result["n_test"] == 8
    assert run.info["data"]["n"] == 72
    assert records("runs/stripes", "loss/classifier")[-1] < 0.1
    net = rivals.load("runs/stripes")
    assert not net.training
    pixels = torch.rand(3, 1, 8, 8, generator=generator("pixels"))
    assert torch.equal(net(pixels), run.classifier(pixels))
    assert net.about["classes"] == ["lie", "stand"]
    page = run.report.read_text()
    assert "Accuracy" in page and "test images" in page


def test_a_folder_with_a_test_split_is_evaluated_on_it(stripes, tmp_path):
    for kind in ("lie", "stand"):
        for number, path in enumerate(sorted((tmp_path / "stripes" / kind).iterdir())):
            place = tmp_path / "split" / ("test" if number < 15 else "train") / kind
            place.mkdir(parents=True, exist_ok=True)
            path.rename(place / path.name)
    run = rivals.classify(tmp_path / "split", until="1 epochs", out="runs/split", **TINY)
    assert (run.info["data"]["n"], run.info["test"]["split"], run.result()["n_test"]) == (50, "test", 30)
    (tmp_path / "split" / "test" / "lie").rename(tmp_path / "split" / "test" / "lean")
    with named("'lean' of 'split' (test) fits no class of the training set", "lean, stand", "lie, stand"):
        rivals.classify(tmp_path / "split", until="1 epochs", out="runs/other", **TINY)
    assert not (tmp_path / "runs" / "other").exists()


def test_held_out_images_are_not_trained_on():
    pixels = np.arange(50 * 64, dtype=np.int64).reshape(50, 1, 8, 8).astype(np.uint8)
    images = ImageSet("ramp", "all", pixels, np.arange(50) % 2, ("even", "odd"))
    rest, aside = hold_out(images, 5, seed=3)
    assert (len(rest), len(aside)) == (45, 5)
    both = np.concatenate([rest.images, aside.images])
    assert sorted(map(bytes, both)) == sorted(map(bytes, pixels))
    again = hold_out(images, 5, seed=3)[1]
    assert np.array_equal(aside.images, again.images)
    assert not np.array_equal(aside.images, hold_out(images, 5, seed=4)[1].images)


def test_images_are_normalized_by_statistics_that_are_summed_block_by_block(monkeypatch):
    monkeypatch.setattr(classifier_factory, "STATISTICS_IMAGES", 10)
    monkeypatch.setattr(classifier_factory, "STATISTICS_BYTES", 200)
    pixels = np.random.default_rng(0).integers(0, 256, (35, 3, 8, 8), dtype=np.uint8)
    pixels[:, 2] = 7
    chosen, most = pixels[::3], 0

    class Watched(np.ndarray):
        def __getitem__(self, index):
            nonlocal most
            found = np.asarray(super().__getitem__(index))
            most = max(most, len(found))
            return found

    labels = np.arange(35) % 2
    images = ImageSet("noise", "train", pixels.view(Watched), labels, ("even", "odd"))
    config = rivals.ClassifierConfig(widths=(4,))
    spec = classifier_factory.build_network(config, images, torch.device("cpu"), 0).spec
    floats = torch.from_numpy(chosen).double() / 255
    assert spec["mean"] == pytest.approx(floats.mean((0, 2, 3)).tolist())
    assert spec["std"] == pytest.approx(floats.std((0, 2, 3)).clamp_min(1 / 255).tolist())
    assert most == 1  # image at a time, of 192 bytes


def test_a_classifier_step_has_images_in_range_and_logits():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    pixels = torch.tensor([[0, 51, 102, 255], [255, 0, 0, 0]], dtype=torch.uint8).view(2, 1, 2, 2)
    y = torch.tensor([2, 0])
    step = ClassifierStep(
        {"c": net}, "c", lambda: (pixels, y), batch_size=2, clock=Clock(0), augment=None, needs_input_grad=False
    )
    torch.testing.assert_close(step.x.flatten(1)[0], torch.tensor([0.0, 0.2, 0.4, 1.0]))
    logits = net(pixels.float() / 255)
    torch.testing.assert_close(step.logits, logits)
    chances = logits.softmax(1)
    wanted = -(chances[0, 2].log() + chances[1, 0].log()) / 2
    torch.testing.assert_close(cross_entropy()(step)["ce"], wanted)
    spread = 0.7 * wanted - 0.3 * chances.log().mean()
    torch.testing.assert_close(cross_entropy(0.3)(step)["ce"], spread)
    right = (logits.argmax(1) == y).float().mean()
    assert readings(step)["accuracy"] == right


def test_a_killed_run_resumes_to_the_same_bytes(stripes, tmp_path):
    words = ["classify", stripes, "--widths", "4", "8", "--batch-size", "8", "--until", "400 steps", "--shift", "1"]
    words += ["--ema", "100", "--flip", "--checkpoint-every", "20 steps", "--quiet", "--device", "cpu"]
    assert_killed_run_resumes(words, home=tmp_path, weights="classifier.safetensors")


def test_a_run_of_minutes_ends_with_the_time_and_tests_on_all_images(stripes):
    run = rivals.classify(stripes, until="0.02 minutes", out="runs/short", **TINY)
    assert run.info["state"] == "finished" and run.info["seconds"] >= 0.02 * 60
    assert run.info["total_images"] >= 8  # the estimate
    assert [record["n_test"] for record in run.records() if "n_test" in record][-1] == 8


def test_the_command_line_gives_one_object(run_rivals, stripes):
    line = ["--until", "5 steps", "--batch-size", "8", "--widths", "4", "--out", "runs/cl", "--quiet", "--json"]
    status, out, err = run_rivals("classify", stripes, *line)
    assert status == 0, err
    result = json.loads(out)
    assert result["step"] == 5
    assert result["classifier"].endswith("classifier.safetensors")
    assert Run.open("runs/cl").info["config"]["widths"] == [4]


def test_user_errors_are_reported_in_one_line(run_rivals, stripes, tmp_path):
    rivals.classify(stripes, until="2 steps", out="runs/done", **TINY)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(12):
        Image.new("L", (8, 8), number).save(flat / f"{number}.png")
    assert "has no classes" in assert_refused(run_rivals("classify", str(flat), "--quiet"))
    assert "cannot extend" in assert_refused(
        run_rivals("classify", "--resume", "--out", "runs/done", "--until", "9 steps")
    )
    assert "cannot resume with another lr" in assert_refused(
        run_rivals("classify", "--resume", "--out", "runs/done", "--lr", "0.5")
    )
    assert "is not a generator" in assert_refused(run_rivals("sample", "runs/done"))
    assert "not a run of 'rivals train'" in assert_refused(run_rivals("train", "--resume", "--out", "runs/done"))
    assert "exists already" in assert_refused(run_rivals("classify", stripes, "--out", "runs/done"))
    assert "unknown recipe 'resnte'" in assert_refused(run_rivals("classify", stripes, "--recipe", "resnte"))
    assert "--lr 3.0 cannot work" in assert_refused(run_rivals("classify", stripes, "--lr", "3", "--out", "runs/x"))
    assert "blocks" in assert_refused(run_rivals("classify", stripes, "--blocks", "2", "--out", "runs/x"))


@pytest.mark.parametrize("until", ["1 minutes", "1 epochs"])
def test_memory_that_is_not_there_before_training_is_one_line(stripes, monkeypatch, until):
    def build_game(job):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(ClassifierJob, "build_game", build_game)
    with named("not enough memory", "lower --batch-size"):
        rivals.classify(stripes, until=until, **TINY)


def test_too_few_images_to_hold_some_out(tmp_path):
    for name in "ab":
        (tmp_path / "few" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), number).save(tmp_path / "few" / name / f"{number}.png")
    with pytest.raises(UserError, match="8 images, of which one in 10 is held out"):
        rivals.classify(str(tmp_path / "few"), out=tmp_path / "run", **TINY)
