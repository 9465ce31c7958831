"""Training a classifier: it learns, resumes bit for bit, keeps images aside, and refuses in one line."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from rivals import cli
from rivals.base.errors import UserError
from rivals.base.seeds import generator
from rivals.data.holdout import hold_out
from rivals.data.imageset import ImageSet
from rivals.game.lesson import Lesson
from rivals.losses.classification import cross_entropy, readings
from rivals.reports.run import Run

TINY = {"widths": (4, 8), "batch": 8, "quiet": True, "device": "cpu"}


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


def test_a_classifier_learns_and_its_file_answers_alike(stripes):
    run = rivals.classify(stripes, until="20 epochs", out="runs/stripes", **TINY)
    result = run.result()
    assert result["state"] == "finished"
    assert result["accuracy/test"] == 1.0
    assert result["test_n"] == 8
    assert run.about["data"]["n"] == 72
    assert records("runs/stripes", "loss/classifier")[-1] < 0.1
    net = rivals.load("runs/stripes")
    assert not net.training
    pixels = torch.rand(3, 1, 8, 8, generator=generator("pixels"))
    assert torch.equal(net(pixels), run.classifier(pixels))
    assert net.about["classes"] == ["lie", "stand"]
    page = run.report.read_text()
    assert "Accuracy" in page and "on test images" in page


def test_a_folder_with_a_test_split_is_judged_by_it(stripes, tmp_path):
    for kind in ("lie", "stand"):
        for number, path in enumerate(sorted((tmp_path / "stripes" / kind).iterdir())):
            place = tmp_path / "split" / ("test" if number < 15 else "train") / kind
            place.mkdir(parents=True, exist_ok=True)
            path.rename(place / path.name)
    run = rivals.classify(tmp_path / "split", until="1 epochs", out="runs/split", **TINY)
    assert (run.about["data"]["n"], run.about["test"]["split"], run.result()["test_n"]) == (50, "test", 30)
    (tmp_path / "split" / "test" / "lie").rename(tmp_path / "split" / "test" / "lean")
    with pytest.raises(UserError, match="the test images of 'split' are 1 x 8 x 8 of the classes lean, stand"):
        rivals.classify(tmp_path / "split", until="1 epochs", out="runs/other", **TINY)
    assert not (tmp_path / "runs" / "other").exists()


def test_what_is_kept_aside_is_not_learnt_from():
    pixels = np.arange(50 * 64, dtype=np.int64).reshape(50, 1, 8, 8).astype(np.uint8)
    images = ImageSet("ramp", "all", pixels, np.arange(50) % 2, ("even", "odd"))
    rest, aside = hold_out(images, 5, seed=3)
    assert (len(rest), len(aside)) == (45, 5)
    told = np.concatenate([rest.images, aside.images])
    assert sorted(map(bytes, told)) == sorted(map(bytes, pixels))
    again = hold_out(images, 5, seed=3)[1]
    assert np.array_equal(aside.images, again.images)
    assert not np.array_equal(aside.images, hold_out(images, 5, seed=4)[1].images)


def test_a_lesson_is_made_of_images_in_range_and_of_logits():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    pixels = torch.tensor([[0, 51, 102, 255], [255, 0, 0, 0]], dtype=torch.uint8).view(2, 1, 2, 2)
    y = torch.tensor([2, 0])
    lesson = Lesson({"c": net}, "c", lambda: (pixels, y), batch=2, images=0, view=None, slopes=False)
    torch.testing.assert_close(lesson.x.flatten(1)[0], torch.tensor([0.0, 0.2, 0.4, 1.0]))
    logits = net(pixels.float() / 255)
    torch.testing.assert_close(lesson.logits, logits)
    chances = logits.softmax(1)
    wanted = -(chances[0, 2].log() + chances[1, 0].log()) / 2
    torch.testing.assert_close(cross_entropy()(lesson)["ce"], wanted)
    spread = 0.7 * wanted - 0.3 * chances.log().mean()
    torch.testing.assert_close(cross_entropy(0.3)(lesson)["ce"], spread)
    right = (logits.argmax(1) == y).float().mean()
    assert readings(lesson)["accuracy"] == right


def test_a_killed_run_resumes_to_the_same_bytes(stripes, tmp_path):
    words = ["classify", stripes, "--widths", "4", "8", "--batch", "8", "--until", "400 steps", "--shift", "1"]
    words += ["--ema", "100", "--flip", "--checkpoint-every", "20 steps", "--quiet", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(*more):
        return subprocess.Popen([sys.executable, "-m", "rivals", *words, *more], env=environment, stdout=-3, stderr=-3)

    assert start("--out", "runs/whole").wait(100) == 0
    killed = start("--out", "runs/killed")
    deadline = time.monotonic() + 100
    while not list((tmp_path / "runs" / "killed" / "checkpoints").glob("*[1-9]*")):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    with pytest.raises(SystemExit) as left:
        cli.main(["classify", "--resume", "--out", "runs/killed", "--quiet"])
    assert not left.value.code
    whole, resumed = (tmp_path / "runs" / name / "classifier.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == resumed.read_bytes()


def test_a_run_of_minutes_plans_its_images_and_says_so(stripes):
    run = rivals.classify(stripes, until="0.02 minutes", out="runs/short", **TINY)
    assert run.about["state"] == "finished"
    assert run.about["horizon"] <= run.about["images"] < run.about["horizon"] + 8


def test_the_command_line_gives_one_object(stripes, capsys):
    line = ["--until", "5 steps", "--batch", "8", "--widths", "4", "--out", "runs/cl", "--quiet", "--json"]
    with pytest.raises(SystemExit) as left:
        cli.main(["classify", stripes, *line])
    assert not left.value.code
    result = json.loads(capsys.readouterr().out)
    assert result["step"] == 5
    assert result["classifier"].endswith("classifier.safetensors")
    assert Run.open("runs/cl").about["config"]["widths"] == [4]


def refused(capsys, *words):
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    said = capsys.readouterr().err.strip()
    assert left.value.code == 2
    assert len(said.splitlines()) == 1
    return said


def test_what_a_user_gets_wrong_is_said_in_one_line(stripes, capsys, tmp_path):
    rivals.classify(stripes, until="2 steps", out="runs/done", **TINY)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(12):
        Image.new("L", (8, 8), number).save(flat / f"{number}.png")
    assert "has no classes" in refused(capsys, "classify", str(flat), "--quiet")
    assert "cannot be lengthened" in refused(capsys, "classify", "--resume", "--out", "runs/done", "--until", "9 steps")
    assert "cannot resume with another lr" in refused(
        capsys, "classify", "--resume", "--out", "runs/done", "--lr", "0.5"
    )
    assert "is no generator" in refused(capsys, "sample", "runs/done")
    assert "not a run of 'rivals train'" in refused(capsys, "train", "--resume", "--out", "runs/done")
    assert "exists already" in refused(capsys, "classify", stripes, "--out", "runs/done")
    assert "unknown recipe 'resnte'" in refused(capsys, "classify", stripes, "--recipe", "resnte")
    assert "--lr 3.0 cannot work" in refused(capsys, "classify", stripes, "--lr", "3", "--out", "runs/x")
    assert "blocks" in refused(capsys, "classify", stripes, "--blocks", "2", "--out", "runs/x")


def test_too_few_images_to_keep_some_aside(tmp_path):
    for name in "ab":
        (tmp_path / "few" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), number).save(tmp_path / "few" / name / f"{number}.png")
    with pytest.raises(UserError, match="8 images, of which one in 10 is kept aside"):
        rivals.classify(str(tmp_path / "few"), out=tmp_path / "run", **TINY)
