"""``rivals.evaluate``: what it reports, that it can be believed, its alarms, its memory, and going on."""

import copy
import dataclasses
import gc
import json
import os
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import rivals
from masked_models import (
    CLASSES,
    Detached,
    Noisy,
    Probabilities,
    Rippled,
    Rounded,
    Saturated,
    honest,
    patterns,
)
from rivals import L1, L2, ImageSet, Linf, UserError, evaluate
from rivals.api.battery import Battery
from rivals.api.examination import PROBES
from rivals.api.models import find_model
from rivals.api.orders import read_attack, read_radii, write_radii
from rivals.api.pool import Pool
from rivals.attacks import pgd
from rivals.reports.progress import LiveAttack
from rivals.reports.run import Run

QUIET = {"quiet": True, "alarms": False}


@pytest.fixture(autouse=True)
def no_syncing(monkeypatch):
    """That files reach the disk is tested elsewhere; here it would only take time."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def model():
    return honest()


@pytest.fixture(scope="module")
def data():
    return patterns(120)


def image_set(n=120, classes=CLASSES):
    """The patterns as a data set, sorted by class."""
    x, y = patterns(n)
    order = y.argsort(stable=True)
    pixels = (x[order] * 255).round().byte().numpy()
    return ImageSet("patterns", "test", pixels, y[order].numpy(), tuple(f"kind {i}" for i in range(classes)))


# What is reported


def test_the_report_says_what_a_plain_count_says(model, data):
    x, y = data
    report = evaluate(model, data, Linf(0.1), attack="pgd(steps=10)", **QUIET)
    right = model(x).argmax(1) == y
    x_adv = pgd(model, x, y, Linf(0.1), steps=10)
    stands = right & (model(x_adv).argmax(1) == y)
    assert (report.clean.count, report.robust.count, report.n) == (int(right.sum()), int(stands.sum()), 120)
    assert 0 < report.robust.count < report.clean.count
    part = report.parts["pgd(steps=10)"]
    assert (part.attacked, part.felled, part.unverified) == (int(right.sum()), int((right & ~stands).sum()), 0)
    assert part.forwards > part.backwards > 0
    assert [each.clean.of for each in report.classes] == [30] * 4
    assert sum(each.robust.count for each in report.classes) == report.robust.count
    assert report.run is None
    json.dumps(report.as_dict())


def test_an_ensemble_is_as_strong_as_its_parts_together(model, data):
    alone = [evaluate(model, data, L2(0.8), attack=name, **QUIET) for name in ("noise", "pgd(steps=3)")]
    both = evaluate(model, data, L2(0.8), attack="noise,pgd(steps=3)", **QUIET)
    assert both.robust.count <= min(each.robust.count for each in alone)
    assert both.parts["pgd(steps=3)"].attacked == both.clean.count - both.parts["noise"].felled


def test_a_curve_is_what_evaluations_at_each_radius_say_and_never_rises(model, data):
    radii = [0.02, 0.05, 0.1, 0.2]
    together = evaluate(model, data, Linf(0.2), attack="pgd(steps=10)", curve=radii, **QUIET)
    assert [eps for eps, _ in together.curve] == [0.0, *radii]
    counts = [share.count for _, share in together.curve]
    assert counts == sorted(counts, reverse=True)
    alone = [evaluate(model, data, Linf(eps), attack="pgd(steps=10)", **QUIET).robust.count for eps in radii]
    assert counts[1:] == alone
    fewer = together.parts["pgd(steps=10)"].attacked
    assert fewer == sum(counts[:-1])  # who fell to a smaller ball is not attacked in a larger


def test_batches_and_chunks_change_nothing(model, data):
    reports = [
        evaluate(model.double(), (data[0].double(), data[1]), L2(0.7), attack="pgd(steps=5)", batch_size=size, **QUIET)
        for size in (7, 200)
    ]
    model.float()
    one, other = ({k: v for k, v in each.as_dict().items() if k in ("clean", "robust", "curve")} for each in reports)
    assert one == other


def test_a_function_can_be_the_attack(model, data):
    report = evaluate(model, data, Linf(0.1), attack=partial(pgd, steps=10), **QUIET)
    named = evaluate(model, data, Linf(0.1), attack="pgd(steps=10)", **QUIET)
    assert report.robust == named.robust
    assert list(report.parts) == ["pgd"]


def test_autoattack_runs_its_parts_in_order(model, data):
    report = evaluate(model, (data[0][:6], data[1][:6]), Linf(0.4), attack="autoattack", **QUIET)
    assert list(report.parts) == ["apgd-ce"]  # nothing stands for the others
    assert report.protocol["parts"] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert report.robust.count == 0


def test_the_first_images_of_a_set_are_those_of_one_permutation(model):
    images = image_set()
    few, many = (evaluate(model, images, Linf(0.1), attack="fgsm", n=n, **QUIET) for n in (20, 100))
    other = evaluate(model, images, Linf(0.1), attack="fgsm", n=20, seed=7, **QUIET)
    assert len(few.classes) == CLASSES  # although the set is sorted by class
    assert few.as_dict()["classes"] == other.as_dict()["classes"]
    assert few.classes[0].name == "kind 0"
    assert (few.n, many.n, few.protocol["of"]) == (20, 100, 120)
    assert evaluate(model, images, Linf(0.1), attack="fgsm", n=500, **QUIET).n == 120


def test_the_model_comes_back_as_it_was(model, data):
    model = copy.deepcopy(model).train()
    model[0].weight.requires_grad_(False)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    state = torch.get_rng_state()
    evaluate(model, data, Linf(0.1), attack="fgsm", mean=(0.5,), std=(0.5,), n=20, quiet=True)
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_mean_and_std_are_put_inside(model, data):
    class Wants(nn.Module):
        def forward(self, x):
            return model(x * 0.25 + 0.5)

    plain = evaluate(model, data, Linf(0.1), attack="fgsm", **QUIET)
    inside = evaluate(Wants(), data, Linf(0.1), attack="fgsm", mean=(0.5,), std=(0.25,), **QUIET)
    assert inside.robust == plain.robust


def test_half_precision_and_images_that_are_no_pictures(model, data):
    x, y = data
    flat = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), model)
    report = evaluate(flat, (x.flatten(1), y), L2(0.5), attack="pgd(steps=3)", quiet=True)
    assert report.robust == evaluate(model, data, L2(0.5), attack="pgd(steps=3)", **QUIET).robust
    half = copy.deepcopy(model).bfloat16()
    assert evaluate(half, image_set(), L2(0.5), attack="pgd(steps=3)", **QUIET).protocol["dtype"] == "bfloat16"


# That it can be believed


def test_an_attack_that_cheats_fells_nothing(model, data):
    def leaves_the_ball(frozen, x, y, ball, **shared):
        return (x + 0.9).clamp(0, 1)

    def leaves_the_box(frozen, x, y, ball, **shared):
        return x + 1e3

    def makes_nan(frozen, x, y, ball, **shared):
        return x * torch.nan

    for attack in (leaves_the_ball, leaves_the_box, makes_nan):
        report = evaluate(model, data, Linf(0.01), attack=attack, **QUIET)
        assert report.robust == report.clean


def test_what_only_the_folded_model_believes_does_not_count_and_is_said(model, data, monkeypatch):
    class Wrong(nn.Module):
        def forward(self, x):
            return 5 - model(x)

    monkeypatch.setattr("rivals.attacks.frozen.fold_batch_norm", lambda *_: Wrong())
    report = evaluate(model, data, Linf(1e-6), attack="noise", **QUIET)
    assert report.protocol["folded"]
    assert report.robust == report.clean
    assert report.parts["noise"].unverified > 100
    assert any("were not confirmed" in note for note in report.notes)


def test_robust_in_8_bits_counts_only_what_survives_rounding(model):
    """A ball smaller than half a step of a byte around images on whole steps: rounding undoes every change."""
    x, y = patterns(120)
    x = (x * 255).round() / 255
    border = evaluate(model, (x, y), Linf(0.3 / 255), attack="pgd(steps=10)", **QUIET)
    assert border.rounded.count == border.clean.count
    wide = evaluate(model, (x, y), Linf(30 / 255), attack="fgsm", **QUIET)
    assert wide.rounded.count == wide.robust.count < wide.clean.count


# Alarms


def alarms_of(model, data, ball=None, attack="pgd(steps=10)", **knobs):
    report = evaluate(model, data, ball or Linf(0.1), attack=attack, quiet=True, **knobs)
    return [alarm["alarm"] for alarm in report.alarms], report


@pytest.mark.parametrize("ball", [Linf(0.02), Linf(0.1), Linf(0.4), L2(0.3), L2(1.0), L1(4.0)], ids=str)
def test_an_honest_model_raises_no_alarm(model, data, ball):
    found, report = alarms_of(model, data, ball)
    assert found == []
    assert report.verdict == "no sign of gradient masking"


def test_probabilities_are_a_doubt(model, data):
    found, report = alarms_of(Probabilities(model), data)
    assert found == ["probabilities"]
    assert report.verdict.startswith("read these numbers with care")


def test_a_saturated_softmax_is_noticed_and_attacked_without_gradients(model, data):
    found, report = alarms_of(Saturated(model), data, attack="pgd,square(queries=50)")
    assert {"zero-gradient", "probabilities"} <= set(found)
    assert report.verdict.startswith("this looks like gradient masking: ")
    assert list(report.parts) == ["square(queries=50)"]
    assert any("only what needs none is used: square(queries=50)" in note for note in report.notes)


def test_a_rounded_input_is_noticed(model, data):
    found, report = alarms_of(Rounded(model), data, Linf(0.2))
    assert {"zero-gradient", "black-box-beats-gradient"} <= set(found)
    assert report.parts["square"].felled > 0


def test_a_detached_graph_falls_back_to_the_black_box(model, data):
    found, report = alarms_of(Detached(model), data, Linf(0.2))
    assert found == ["no-gradient"]
    assert list(report.parts) == ["square"]
    assert report.robust.count < report.clean.count
    own = evaluate(Detached(model), data, Linf(0.2), attack="noise(trials=5),pgd", quiet=True)
    assert list(own.parts) == ["noise(trials=5)"]


def test_a_gradient_that_points_anywhere_is_noticed(model, data):
    found, _ = alarms_of(Rippled(model), data)
    assert {"black-box-beats-gradient", "one-step-beats-many"} & set(found)


def test_a_randomised_model_is_noticed_and_averaged(model, data):
    found, report = alarms_of(Noisy(model), data, Linf(0.1))
    assert "randomised" in found
    assert any("randomised" in note for note in report.notes)
    assert report.protocol["looks"] == 10
    found, averaged = alarms_of(Noisy(model), data, Linf(0.1), eot=8)
    assert "randomised" not in found
    assert averaged.robust.count <= report.robust.count
    again = alarms_of(Noisy(model), data, Linf(0.1), eot=8)[1]
    assert again.robust == averaged.robust
    assert alarms_of(model, data, eot=2)[1].notes == ("the model is not randomised: --eot 2 only costs time",)


def test_square_felling_what_gradients_left_is_noticed_in_the_result(model, data):
    def blunt(frozen, x, y, ball, **shared):
        return x

    ensemble = "pgd(steps=1,step=0),square(queries=300)"
    report = evaluate(model, data, Linf(0.2), attack=ensemble, quiet=True)
    assert any("had left standing" in alarm["says"] for alarm in report.alarms)
    assert not evaluate(model, data, Linf(0.2), attack="square(queries=300)", quiet=True).alarms
    assert evaluate(model, data, Linf(0.2), attack=blunt, quiet=True).robust.count > 0


# Memory


def test_no_more_images_are_held_for_more_images(model, tmp_path, monkeypatch, request):
    """All image tensors alive are counted after the last step of every chunk, and where images are read."""
    held = []

    def count(*said):
        if said and said[-1]["level"] < 2:
            return
        gc.collect()
        images = [
            each
            for each in gc.get_objects()
            if type(each) is torch.Tensor and each.is_floating_point() and each.shape[1:] == (1, 8, 8)
        ]
        held.append(sum(map(len, images)))

    take, batches = Pool.take, []

    def counted(self, chosen):
        batches.append(len(chosen))
        count()
        return take(self, chosen)

    monkeypatch.setattr(Pool, "take", counted)
    monkeypatch.setattr(LiveAttack, "__call__", count)
    gc.collect()
    gc.freeze()  # what is there already is not counted, nor looked through
    request.addfinalizer(gc.unfreeze)
    peaks = []
    for n in (64, 128):
        held.clear()
        knobs = {"attack": "fgsm,pgd(steps=2)", "batch_size": 8, "curve": [0.05], "quiet": True, "alarms": False}
        evaluate(model, image_set(n), Linf(0.1), out=tmp_path / str(n), **knobs)
        peaks.append(max(held))
    assert 0 < peaks[1] <= peaks[0] < 128
    assert max(batches) == PROBES  # more than a chunk of 32


# Run folders


def results(folder):
    """What a run left, without times."""
    about = json.loads((folder / "run.json").read_text())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    strip = lambda record: {k: v for k, v in record.items() if "seconds" not in k}  # noqa: E731
    results = strip(about["results"])
    results["parts"] = [strip(part) for part in results["parts"]]
    with np.load(folder / "adversarial.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return results, [strip(record) for record in records], arrays


KNOBS = {"attack": "fgsm,pgd(steps=4)", "batch_size": 8, "curve": [0.05], **QUIET}


def test_a_run_folder_holds_the_report_the_steps_and_the_images(model, tmp_path):
    images = image_set()
    report = evaluate(model, images, Linf(0.1), out=tmp_path / "r", **KNOBS | {"alarms": True})
    assert report.run == str(tmp_path / "r")
    run = Run.open(tmp_path / "r")
    assert (run.about["state"], run.about["verb"], run.about["images"]) == ("finished", "attack", 120)
    assert run.about["config"]["eps"] == "0.05,0.1"
    found, records, arrays = results(run.folder)
    assert found["robust"]["count"] == report.robust.count
    steps = [record["step"] for record in records if "part" in record]
    assert steps == list(range(1, len(steps) + 1))
    assert [record["images"] for record in records] == sorted(record["images"] for record in records)
    assert records[-1]["images"] == 120
    assert (run.folder / "report.html").stat().st_size > 10_000
    # The images kept are those felled, each within the ball it fell in, and the model says of them what is written.
    x = torch.from_numpy(images.images[arrays["index"]]).float() / 255
    x_adv, y = torch.from_numpy(arrays["x_adv"]), torch.from_numpy(arrays["label"])
    assert len(x_adv) == report.clean.count - report.robust.count
    assert x_adv.dtype == torch.float32
    assert Linf(torch.from_numpy(arrays["eps"])).contains(x_adv, x).all()
    said = model(x_adv).argmax(1)
    assert (said != y).all()
    assert torch.equal(said, torch.from_numpy(arrays["said"]))
    assert (images.labels[arrays["index"]] == arrays["label"]).all()
    assert not (run.folder / "adversarial").exists()


@pytest.mark.parametrize("stop_at", [1, 2, 6])
def test_an_interrupted_run_goes_on_to_the_same_end(model, tmp_path, monkeypatch, stop_at):
    images = image_set()
    evaluate(model, images, Linf(0.1), out=tmp_path / "whole", **KNOBS)
    did = Battery._attack
    done = []

    def interrupted(self, *args):
        done.append(1)
        if len(done) == stop_at:
            raise KeyboardInterrupt
        return did(self, *args)

    monkeypatch.setattr(Battery, "_attack", interrupted)
    with pytest.raises(rivals.Interrupted, match="--resume"):
        evaluate(model, images, Linf(0.1), out=tmp_path / "parts", **KNOBS)
    about = Run.open(tmp_path / "parts").about
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
    assert len(done) - calls == len([r for r in results(tmp_path / "whole")[1] if r.get("level")]) - stop_at + 1
    one, other = results(tmp_path / "whole"), results(tmp_path / "parts")
    one[0]["notes"] = other[0]["notes"] = []
    assert one[:2] == other[:2]
    assert all(np.array_equal(one[2][key], other[2][key]) for key in one[2])
    with np.load(tmp_path / "whole" / "examples.npz") as a, np.load(tmp_path / "parts" / "examples.npz") as b:
        assert all(np.array_equal(a[key], b[key]) for key in a.files)


def test_a_finished_run_resumed_says_the_same_again(model, tmp_path):
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
    with pytest.raises(UserError, match="weights of 'Sequential' have changed"):
        other = copy.deepcopy(model)
        other[0].weight.data += 0.1
        again(other, images, Linf(0.1), **KNOBS)
    with pytest.raises(UserError, match="images of 'patterns' have changed"):
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


# Words for what is asked


@pytest.mark.parametrize("text", ["8/255", "0.03", "1/255,2/255,8/255", "0.1,0.25,1.0", "1e-3,0.3"])
def test_radii_are_read_and_written(text):
    radii = read_radii(text)
    assert radii == sorted(radii)
    assert read_radii(write_radii(radii)) == radii
    assert read_radii(f"{text},0,{text}") == radii


def test_attacks_are_read_with_their_knobs():
    parts = read_attack("fgsm, pgd(steps=7, step=0.2,random_start=false,loss=dlr),noise(kind=gaussian)", Linf(0.1))
    assert [part.name for part in parts] == [
        "fgsm",
        "pgd(steps=7, step=0.2,random_start=false,loss=dlr)",
        "noise(kind=gaussian)",
    ]
    assert parts[1].attack.keywords == {"steps": 7, "step": 0.2, "random_start": False, "loss": "dlr"}


def named(*parts):
    return pytest.raises(UserError, match=".*".join(map(_escaped, parts)))


def _escaped(text):
    import re

    return re.escape(text)


BAD = {
    "not a radius": (lambda: read_radii("8/"), ["eps '8/'", "8/255"]),
    "a negative radius": (lambda: read_radii("-1"), ["'-1'"]),
    "no radius but 0": (lambda: read_radii("0"), ["eps of 0"]),
    "an unknown attack": (lambda: read_attack("pgdd", Linf(0.1)), ["unknown attack 'pgdd'", "pgd"]),
    "an unknown version": (lambda: read_attack("autoattack-swfit", Linf(0.1)), ["unknown version"]),
    "an unknown knob": (lambda: read_attack("pgd(stpes=3)", Linf(0.1)), ["unknown knob of pgd 'stpes'", "steps"]),
    "a knob without a value": (lambda: read_attack("pgd(steps)", Linf(0.1)), ["'steps' sets no knob"]),
    "a word for a number": (lambda: read_attack("pgd(steps=many)", Linf(0.1)), ["steps=many", "whole number"]),
    "a half step": (lambda: read_attack("pgd(steps=1.5)", Linf(0.1)), ["steps=1.5"]),
    "an open bracket": (lambda: read_attack("pgd(steps=3", Linf(0.1)), ["names no attack"]),
    "an attack twice": (lambda: read_attack("pgd,pgd", Linf(0.1)), ["named twice"]),
    "knobs of autoattack": (lambda: read_attack("autoattack(steps=1)", Linf(0.1)), ["no knobs"]),
    "an unknown model of torchvision": (lambda: find_model("torchvision:resnet81"), ["resnet81", "resnet18"]),
    "unknown weights": (lambda: find_model("torchvision:resnet18:IMAGENET"), ["IMAGENET", "IMAGENET1K_V1"]),
    "an unknown hub": (lambda: find_model("hub:resnet"), ["'hub:resnet' is no model", "torchvision:NAME"]),
    "a missing file": (lambda: find_model("gone/classifier.safetensors"), ["there is no model 'gone/"]),
    "no model": (lambda: find_model(3), ["the model is a int"]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_meant_is_said_in_one_line(case):
    call, parts = BAD[case]
    with named(*parts) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_model_of_torchvision_takes_its_weights_normalisation(monkeypatch):
    from torchvision.models import ResNet18_Weights, resnet18

    fresh = resnet18().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: fresh)
    found = find_model("torchvision:resnet18")
    assert (found.name, found.size, found.channels) == ("torchvision:resnet18:IMAGENET1K_V1", 224, 3)
    assert list(found.mean) == pytest.approx(ResNet18_Weights.DEFAULT.transforms().mean)
    x = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (found.mean, found.std))
    plain = resnet18().eval()
    plain.load_state_dict(fresh)
    found.model.eval()
    assert torch.allclose(found.model(x), plain((x - mean) / std), atol=1e-5)
    assert find_model("torchvision:resnet18:none", mean=(0, 0, 0), std=(1, 1, 1)).mean == (0, 0, 0)
    with named("mean has 1 numbers", "3 channels"):
        find_model("torchvision:resnet18", mean=(0.5,), std=(0.5,))


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch):
    from urllib.error import URLError

    def offline(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with named("weights of torchvision:resnet18", "no route to host", "connect"):
        find_model("torchvision:resnet18")


def test_timm_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with named("timm:resnet18", "pip install timm"):
        find_model("timm:resnet18")


# Bad input


class Says(nn.Module):
    """Answers as it was told."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


X, Y = patterns(8)
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
INPUTS = {
    "logits of the wrong shape": ((Says(lambda x: x.flatten(1).sum(1)), (X, Y)), ["the shape (2,)", "(2, classes)"]),
    "logits that are NaN": ((Says(lambda x: x.flatten(1)[:, :4] * torch.nan), (X, Y)), ["NaN or infinity"]),
    "labels out of range": ((LINEAR, (X, Y + 2)), ["labels hold", "4 classes"]),
    "labels that are floats": ((LINEAR, (X, Y.float())), ["float32", "class numbers"]),
    "images in 0..255": ((LINEAR, (X * 255, Y)), ["0..255", "divide them by 255"]),
    "images as bytes": ((LINEAR, ((X * 255).byte(), Y)), ["uint8", "divide by 255"]),
    "images in [-1, 1]": ((LINEAR, (X * 2 - 1, Y)), ["not within [0, 1]"]),
    "images that hold NaN": ((LINEAR, (X / 0 * 0, Y)), ["NaN"]),
    "no images": ((LINEAR, (X[:0], Y[:0])), ["there are no images"]),
    "labels missing": ((LINEAR, (X, None)), ["the labels are a NoneType"]),
    "a triple": ((LINEAR, (X, Y, Y)), ["3 things", "a pair"]),
    "data of no kind": ((LINEAR, 3), ["the data are a int"]),
    "images of another size": ((LINEAR, (X[..., :6], Y)), ["cannot take images of 1 x 8 x 6", "--size"]),
    "a data set without labels": (
        (LINEAR, ImageSet("bare", "test", np.zeros((4, 1, 8, 8), np.uint8))),
        ["'bare' has no labels", "one sub-folder per class"],
    ),
    "more classes than the model has": ((LINEAR, image_set(classes=7)), ["4 classes apart", "'patterns' has 7"]),
    "channels that differ": ((nn.Sequential(nn.Conv2d(3, 4, 1), LINEAR), image_set()), ["3 channels", "has 1"]),
    "a model on another device": ((nn.Sequential(LINEAR, nn.Linear(4, 4, device="meta")), (X, Y)), ["meta"]),
}


@pytest.mark.parametrize("case", INPUTS)
def test_bad_input_is_said_in_one_line(case):
    (model, data), parts = INPUTS[case]
    with named(*parts) as caught:
        evaluate(model, data, Linf(0.1), attack="fgsm", quiet=True)
    assert "\n" not in str(caught.value)


KNOBBED = {
    "no images asked for": ({"n": 0}, ["0 images"]),
    "an unknown way to save": ({"save": "pgn"}, ["'pgn'", "png"]),
    "no draws": ({"eot": 0}, ["--eot of 0"]),
    "an empty batch": ({"batch_size": 0}, ["batch size of 0"]),
    "a curve beyond the ball": ({"curve": [0.2]}, ["the curve holds 0.2", "ends at 0.1"]),
    "an attack of no kind": ({"attack": 3}, ["the attack is a int"]),
    "half a normalisation": ({"mean": (0.5,)}, ["mean [0.5] and std []"]),
}


@pytest.mark.parametrize("case", KNOBBED)
def test_bad_knobs_are_said_in_one_line(case):
    knobs, parts = KNOBBED[case]
    with named(*parts):
        evaluate(LINEAR, (X, Y), Linf(0.1), **{"attack": "fgsm", "quiet": True, **knobs})


def test_radii_that_are_absurd():
    with named("L2 eps of 128", "did you mean 128/255"):
        evaluate(LINEAR, (X, Y), L2(128.0), quiet=True)
    with named("L1 eps of 1e+06", "take less than 64"):
        evaluate(LINEAR, (X, Y), L1(1e6), quiet=True)
    with named("the ball is a float"):
        evaluate(LINEAR, (X, Y), 0.1, quiet=True)
    with named("eps is a tensor"):
        evaluate(LINEAR, (X, Y), Linf(torch.tensor([0.1, 0.2])), quiet=True)
    with named("an eps of 0"):
        evaluate(LINEAR, (X, Y), Linf(0.0), quiet=True)


def test_a_batch_of_one_and_a_set_that_is_all_wrong():
    report = evaluate(LINEAR, (X[:1], Y[:1]), Linf(0.1), attack="pgd", batch_size=1, quiet=True)
    assert report.n == 1
    with torch.no_grad():
        wrong = (LINEAR(X).argmax(1) + 1) % CLASSES
    report = evaluate(LINEAR, (X, wrong), Linf(0.1), attack="pgd", quiet=True)
    assert (report.clean.count, report.robust.count, report.parts) == (0, 0, {})
    assert any("none of the first images" in note for note in report.notes)


def test_what_is_said_on_the_way_goes_to_standard_error(model, data, capsys):
    evaluate(model, data, Linf(0.1), attack="fgsm", eot=2)
    said = capsys.readouterr()
    assert said.out == ""
    assert "not randomised" in said.err
    assert "of 120 images" in said.err
    evaluate(model, data, Linf(0.1), attack="fgsm", quiet=True)
    assert capsys.readouterr() == ("", "")


def test_real_digits(monkeypatch):
    """A trained model, real images, and a second opinion: the same images attacked by PGD alone."""
    home = os.environ.get("RIVALS_DATA", "")
    path = __import__("pathlib").Path(__file__).parents[1] / "benchmarks" / "models" / "mnist-plain.safetensors"
    if not path.exists() or not (__import__("pathlib").Path(home) / "MNIST").exists():
        pytest.skip("needs benchmarks/models/mnist-plain.safetensors and MNIST under RIVALS_DATA")
    report = evaluate(path, "mnist", Linf(0.2), attack="fgsm,pgd(steps=10)", n=20, quiet=True)
    assert report.clean.value > 0.95
    assert report.robust.value < 0.5
    assert report.verdict == "no sign of gradient masking"
