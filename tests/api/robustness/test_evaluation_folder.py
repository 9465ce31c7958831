"""The run folder of an evaluation: what it holds, and how it is resumed."""

import copy
import dataclasses
import json
import os
import signal
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import rivals
from helpers.masked_models import (
    QUIET,
    image_set,
)
from rivals import Linf, UserError, evaluate
from rivals.attacks import Ensemble
from rivals.base.run_folder import Run


def results(folder):
    """What a run left, without times."""
    about = json.loads((folder / "run.json").read_text())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    strip = lambda record: {k: v for k, v in record.items() if "seconds" not in k}  # noqa: E731
    results = strip(about["results"])
    results["stages"] = [strip(part) for part in results["stages"]]
    with np.load(folder / "adversarial.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return results, [strip(record) for record in records], arrays


KNOBS = {"attack": "fgsm,pgd(steps=4)", "batch_size": 8, "curve": [0.05], **QUIET}


def test_a_run_folder_holds_the_report_the_steps_and_the_images(model, tmp_path):
    images = image_set()
    report = evaluate(model, images, Linf(0.1), out=tmp_path / "r", **KNOBS | {"alarms": True})
    assert report.run == str(tmp_path / "r")
    run = Run.open(tmp_path / "r")
    assert (run.info["state"], run.info["command"], run.info["images"]) == ("finished", "attack", 120)
    assert run.info["config"]["eps"] == "0.05,0.1"
    found, records, arrays = results(run.folder)
    assert found["robust"]["count"] == report.robust.count
    steps = [record["step"] for record in records if "stage" in record]
    assert steps == list(range(1, len(steps) + 1))
    assert [record["images"] for record in records] == sorted(record["images"] for record in records)
    assert records[-1]["images"] == 120
    assert (run.folder / "report.html").stat().st_size > 10_000
    # The images kept are those fooled, each within the ball that fooled it, and the model predicts what is stored.
    x = torch.from_numpy(images.images[arrays["index"]]).float() / 255
    x_adv, y = torch.from_numpy(arrays["x_adv"]), torch.from_numpy(arrays["label"])
    assert len(x_adv) == report.clean.count - report.robust.count
    assert x_adv.dtype == torch.float32
    assert Linf(torch.from_numpy(arrays["eps"])).contains(x_adv, x).all()
    said = model(x_adv).argmax(1)
    assert (said != y).all()
    assert torch.equal(said, torch.from_numpy(arrays["prediction"]))
    assert (images.labels[arrays["index"]] == arrays["label"]).all()
    assert not (run.folder / "adversarial").exists()


class Signals(nn.Module):
    """Sends this process a signal at one of its forward passes."""

    def __init__(self, model, number, at):
        super().__init__()
        self.model = model
        self.number = number
        self.passes = iter(range(at, -1, -1))  # shared with copies

    def forward(self, x):
        if next(self.passes, None) == 1:
            os.kill(os.getpid(), self.number)
        return self.model(x)


@pytest.mark.parametrize(
    ("number", "at"), [(signal.SIGINT, 1), (signal.SIGTERM, 2), (signal.SIGUSR1, 5), (signal.SIGTERM, 40)]
)
def test_a_signal_before_the_attack_stops_the_run_so_that_it_resumes(model, tmp_path, number, at):
    def unhandled(number, frame):
        raise AssertionError("the process would have died")

    options = {"attack": "fgsm", "batch_size": 16, "quiet": True}
    images, folder = image_set(), tmp_path / "parts"
    before = signal.signal(number, unhandled)
    try:
        with pytest.raises(rivals.Interrupted, match="after 0 of 120 images: continue with rivals attack --resume"):
            evaluate(Signals(model, number, at), images, Linf(0.1), out=folder, **options)
    finally:
        signal.signal(number, before)
    assert Run.open(folder).info["state"] == "interrupted"
    assert not any("stage" in record for record in Run.open(folder).records())
    resumed = evaluate(Signals(model, number, 0), images, Linf(0.1), out=folder, resume=True, **options)
    whole = evaluate(model, images, Linf(0.1), **options)
    assert (resumed.clean, resumed.robust, resumed.alarms) == (whole.clean, whole.robust, whole.alarms)
    assert Run.open(folder).info["state"] == "finished"


@pytest.mark.parametrize("stop_at", [1, 2, 6])
def test_an_interrupted_run_resumes_to_the_same_result(model, tmp_path, monkeypatch, stop_at):
    images = image_set()
    evaluate(model, images, Linf(0.1), out=tmp_path / "whole", **KNOBS)
    done = []

    run = Ensemble.run

    def interrupted(*args):
        done.append(1)
        if len(done) == stop_at:
            raise KeyboardInterrupt
        return run(*args)

    monkeypatch.setattr(Ensemble, "run", interrupted)
    with pytest.raises(rivals.Interrupted, match="--resume"):
        evaluate(model, images, Linf(0.1), out=tmp_path / "parts", **KNOBS)
    about = Run.open(tmp_path / "parts").info
    assert about["state"] == "interrupted"
    assert about["results"]["n"] == about["images"] <= 120
    assert (tmp_path / "parts" / "report.html").exists()
    # A line cut short by a kill, and a piece whose step was never recorded.
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"images": 9, "st')
    (tmp_path / "parts" / "adversarial").mkdir(exist_ok=True)
    (tmp_path / "parts" / "adversarial" / "000999.npz").write_bytes(b"half")
    calls = len(done)
    evaluate(model, images, Linf(0.1), out=tmp_path / "parts", resume=True, **KNOBS)
    assert len(done) - calls == len([r for r in results(tmp_path / "whole")[1] if r.get("eps_index")]) - stop_at + 1
    one, other = results(tmp_path / "whole"), results(tmp_path / "parts")
    one[0]["notes"] = other[0]["notes"] = []
    assert one[:2] == other[:2]
    assert all(np.array_equal(one[2][key], other[2][key]) for key in one[2])
    with np.load(tmp_path / "whole" / "examples.npz") as a, np.load(tmp_path / "parts" / "examples.npz") as b:
        assert all(np.array_equal(a[key], b[key]) for key in a.files)


@pytest.mark.parametrize("content", [b"", b"PK", b"half of it"])
def test_damaged_examples_do_not_stop_a_resumed_run(model, tmp_path, content):
    folder = tmp_path / "r"
    first = evaluate(model, image_set(), Linf(0.1), out=folder, **KNOBS)
    (folder / "examples.npz").write_bytes(content)
    again = evaluate(model, image_set(), Linf(0.1), out=folder, resume=True, **KNOBS)
    assert (again.clean, again.robust) == (first.clean, first.robust)
    assert any("examples.npz' is damaged" in note for note in again.notes)
    assert "Damaged files" in (folder / "report.html").read_text()


@pytest.mark.parametrize(
    "changes", [{"fooled": [10**6]}, {"fooled": "all"}, {"eps_index": 9}, {"stage": 5}, {"seconds": -1.0}]
)
def test_step_with_a_damaged_record_is_repeated(model, tmp_path, changes):
    folder = tmp_path / "r"
    first = evaluate(model, image_set(), Linf(0.1), out=folder, **KNOBS)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    records[2] |= changes
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    again = evaluate(model, image_set(), Linf(0.1), out=folder, resume=True, **KNOBS)
    assert (again.clean, again.robust) == (first.clean, first.robust)
    assert len(list(Run(folder).records())) == len(records)


def test_a_finished_run_resumed_gives_the_same_report(model, tmp_path):
    first = evaluate(model, image_set(), Linf(0.1), out=tmp_path / "r", **KNOBS)
    again = evaluate(model, image_set(), Linf(0.1), out=tmp_path / "r", resume=True, **KNOBS)
    assert again.as_dict() == first.as_dict()
    assert results(tmp_path / "r")[2]["x_adv"].shape[0] == first.clean.count - first.robust.count


def test_only_the_same_evaluation_is_resumed(model, tmp_path):
    images = image_set()
    evaluate(model, images, Linf(0.1), out=tmp_path / "r", **KNOBS)
    again = partial(evaluate, out=tmp_path / "r", resume=True)
    with pytest.raises(UserError, match="another seed: it was 0, now 1"):
        again(model, images, Linf(0.1), seed=1, **KNOBS)
    with pytest.raises(UserError, match="another eps"):
        again(model, images, Linf(0.2), **KNOBS)
    with pytest.raises(UserError, match="the model 'Sequential' is not what the run began with"):
        other = copy.deepcopy(model)
        other[0].weight.data += 0.1
        again(other, images, Linf(0.1), **KNOBS)
    with pytest.raises(UserError, match="data 'patterns' is not what"):
        again(model, dataclasses.replace(images, images=255 - images.images), Linf(0.1), **KNOBS)
    with pytest.raises(UserError, match="--resume needs the run"):
        evaluate(model, images, Linf(0.1), resume=True, **KNOBS)
    with pytest.raises(UserError, match="exists already"):
        evaluate(model, images, Linf(0.1), out=tmp_path / "r", **KNOBS)


def test_pictures_and_nothing_can_be_saved(model, tmp_path):
    from PIL import Image

    report = evaluate(model, image_set(), Linf(0.1), out=tmp_path / "png", save="png", **KNOBS)
    files = sorted((tmp_path / "png" / "adversarial").iterdir())
    assert len(files) == report.clean.count - report.robust.count
    index, label, _, said = files[0].stem.split("-")
    images = image_set()
    with Image.open(files[0]) as picture:
        change = np.asarray(picture).astype(int) - images.images[int(index), 0]
    assert label != said
    assert images.labels[int(index)] == int(label)
    assert 0 < np.abs(change).max() <= 26
    evaluate(model, image_set(), Linf(0.1), out=tmp_path / "none", save="none", **KNOBS)
    assert not list((tmp_path / "none").glob("adversarial*"))
