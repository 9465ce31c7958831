"""``rivals attack`` as a user runs it: results, refusals in one line, interruption and going on."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.commands import CommandProcess, assert_refused
from rivals.api.common.network_io import save_network
from rivals.nets.factory import build_classifier, build_generator

pytestmark = pytest.mark.usefixtures("empty_folder")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures of two classes, one without classes, a tiny classifier and a generator."""
    home = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for i in range(40):
        kind = i % 2
        path = home / "photos" / ("cats", "dogs")[kind] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8) + np.uint8(100 * kind)
        Image.fromarray(pixels).save(path)
        if i < 4:
            (home / "bare").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(home / "bare" / f"{i}.png")
    net = build_classifier("cnn", size=16, channels=3, classes=2, widths=(4,))
    with torch.no_grad():  # brightness decides, with a border among the images' own
        for parameter in net.parameters():
            parameter.copy_(parameter.abs() if parameter.ndim > 1 else 0 * parameter)
        last = [module for module in net.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.weight[0] = -last.weight[1]
        x = torch.from_numpy(np.stack([np.asarray(Image.open(p)) for p in sorted((home / "photos").rglob("*.png"))]))
        logits = net(x.permute(0, 3, 1, 2).float() / 255)
        border = logits[:, 1].median()
        last.bias[0], last.bias[1] = border, -border
    save_network(net, home / "classifier.safetensors", {"classes": ["cats", "dogs"]})
    save_network(build_generator("mlp", size=16, channels=3), home / "generator.safetensors", {"classes": []})
    return home


FAST = ("--attack", "fgsm,pgd(steps=3)", "--eps", "0,4/255,32/255", "--batch-size", "8", "--no-alarms", "--quiet")


def test_the_result_is_printed_in_plain_lines_and_stored(run_rivals, place):
    status, out, err = run_rivals("attack", place / "classifier.safetensors", place / "photos", *FAST)
    assert status == 0, err
    assert err == ""
    for text in ("clean accuracy", "robust accuracy", "at eps", "fgsm", "pgd(steps=3)", "verdict", "40 images"):
        assert text in out
    run = Path("runs/photos-attack-1")
    assert str(run) in out
    assert {path.name for path in run.iterdir()} >= {"run.json", "metrics.jsonl", "report.html", "adversarial.npz"}
    about = json.loads((run / "run.json").read_text())
    entry = json.loads((run / "robustbench.json").read_text())
    assert (entry["dataset"], entry["eps"], entry["architecture"]) == ("photos", "32/255", "cnn 4")
    assert float(entry["clean_acc"]) == pytest.approx(100 * about["results"]["clean"]["value"], abs=0.005)
    assert float(entry["reported"]) == pytest.approx(100 * about["results"]["robust"]["value"], abs=0.005)
    assert "autoattack_acc" not in entry  # it was another attack
    assert about["config"]["eps"] == "4/255,32/255"
    assert about["results"]["clean"]["of"] == 40
    page = (run / "report.html").read_text()
    for text in (
        "Robust accuracy",
        "Robust accuracy against eps",
        "Adversarial examples",
        "Stages of the attack",
        "cats",
        "32/255",
    ):
        assert text in page


def test_the_result_is_one_json_object(run_rivals, place):
    words = [word for word in FAST if word != "--quiet"]
    status, out, err = run_rivals("attack", place, place / "photos", "-n", 10, "--json", "--norm", "l2", *words)
    assert status == 0, err
    result = json.loads(out)
    assert (result["n"], result["protocol"]["norm"]) == (10, "L2")
    assert [point["eps"] for point in result["curve"]] == [0, 4 / 255, 32 / 255]
    assert "of 10 images" in err


def test_images_are_resized_to_what_the_model_takes(run_rivals, place, tmp_path):
    for path in sorted((place / "photos").rglob("*.png"))[::5]:
        dest = tmp_path / "large" / path.parent.name / path.name
        dest.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((20, 20)).save(dest)
    words = ["--attack", "fgsm", "--no-alarms", "--json"]
    status, out, err = run_rivals("attack", place / "classifier.safetensors", "./large", *words)
    assert status == 0, err
    said = "the images (the first has 20 x 20) are resized to 16 px, which the model takes"
    assert said in err
    assert json.loads(out)["notes"] == [said]
    assert_refused(
        run_rivals("attack", place, "./large", "--size", "20", *words), "takes images of 16 px, and these have 20"
    )


BAD = {
    "eps meant in bytes": (["--eps", "8"], ["Linf eps of 8", "did you mean 8/255?"]),
    "eps that is no number": (["--eps", "8/x"], ["eps '8/x'"]),
    "an L2 eps across all images": (["--norm", "l2", "--eps", "128"], ["L2 eps of 128", "did you mean 128/255?"]),
    "an unknown norm": (["--norm", "l3"], ["l3", "l2"]),
    "no images": (["-n", "0"], ["0 images"]),
    "an unknown attack": (["--attack", "autoatack"], ["unknown attack 'autoatack'", "did you mean autoattack"]),
    "an attack of no steps": (["--attack", "pgd(steps=0)"], ["steps of 0", "take 1 or more"]),
    "a bad option of a later stage": (["--attack", "fgsm,square(queries=0)"], ["queries of 0", "take 1 or more"]),
    "an attack of another norm": (["--attack", "ddn"], ["ddn is an attack in L2", "--norm l2"]),
    "an unknown flag": (["--esp", "0.1"], ["--esp", "--eps"]),
    "a device that is not there": (["--device", "cuda:77"], ["device 'cuda:77'"]),
    "half a normalization": (["--mean", "0.5", "0.5", "0.5"], ["std"]),
    "one channel's normalization": (["--mean", "0.5", "--std", "0.5"], ["mean has 1 numbers", "3 channels"]),
    "resume without a run": (["--resume"], ["--resume needs the run", "--out"]),
    "resume of what is no run": (["--resume", "--out", "nothing"], ["'nothing' is not a run"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_words_are_refused_in_one_line(run_rivals, place, case):
    words, parts = BAD[case]
    assert_refused(run_rivals("attack", place / "classifier.safetensors", place / "photos", *words), *parts)
    assert not Path("runs").exists()


def test_bad_models_and_data_are_refused_in_one_line(run_rivals, place):
    photos, net = place / "photos", place / "classifier.safetensors"
    assert_refused(run_rivals("attack"), "no model was named")
    assert_refused(run_rivals("attack", net), "no data were named")
    assert_refused(
        run_rivals("attack", place / "generator.safetensors", photos), "holds a generator", "not a classifier"
    )
    assert_refused(run_rivals("attack", "gone", photos), "there is no model 'gone'")
    assert_refused(run_rivals("attack", "torchvision:resent18", photos), "'resent18'", "resnet18")
    assert_refused(run_rivals("attack", net, "cifra10"), "'cifra10'", "cifar10")
    assert_refused(run_rivals("attack", net, place / "bare"), "'bare' has no labels")
    words = ("--attack", "fgsm", "--size", "32")
    assert_refused(
        run_rivals("attack", "torchvision:squeezenet1_1:none", photos, *words), "1000 classes", "'photos' has 2"
    )


def test_ctrl_c_exits_with_130_and_the_run_resumes(run_rivals, place, tmp_path):
    photos, net = place / "photos", place / "classifier.safetensors"
    words = ["--attack", "noise(trials=3),pgd(steps=10),apgd(steps=60)", "--eps", "1/255,2/255,3/255"]
    words += ["-n", "24", "--batch-size", "2", "--no-alarms", "--quiet", "--seed", "3"]
    run = tmp_path / "r"
    records = run / "metrics.jsonl"
    for number, more in ((signal.SIGINT, [net, photos, *words]), (signal.SIGTERM, ["--resume", "--quiet"])):
        lines = len(records.read_text().splitlines()) if records.exists() else 0
        process = CommandProcess("attack", *more, "--out", run, out=tmp_path / "streams")
        process.wait_until(lambda lines=lines: records.exists() and len(records.read_text().splitlines()) > lines + 1)
        process.send(number)
        status, _, err = process.wait()
        assert status == 130, err
        assert err.count("\n") == 1
        assert "--resume" in err
        assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    status, out, err = run_rivals("attack", "--resume", "--out", run, "--json")
    assert status == 0, err
    result = json.loads(out)
    assert (result["n"], result["protocol"]["seed"], result["protocol"]["batch_size"]) == (24, 3, 2)
    assert [point["eps"] for point in result["curve"]] == [0, 1 / 255, 2 / 255, 3 / 255]
    status, out, err = run_rivals("attack", net, photos, *words, "--json", "--out", tmp_path / "w")
    assert status == 0, err
    whole = json.loads(out)
    assert result["curve"] == whole["curve"]
    assert result["classes"] == whole["classes"]


def test_a_run_of_another_command_is_not_resumed(run_rivals, place, tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "run.json").write_text(json.dumps({"format": 1, "command": "train", "config": {"batch_size": 3}}))
    for named in ((place / "classifier.safetensors", place / "photos"), ()):
        assert_refused(run_rivals("attack", *named, "--resume", "--out", "t"), "not a run of 'rivals attack'")


def test_two_attacks_are_compared_on_one_page(run_rivals, place):
    for name, attack in (("a", "fgsm"), ("b", "pgd(steps=2)")):
        words = ("--attack", attack, "--eps", "2/255,4/255,8/255", "--no-alarms", "--quiet", "--out", name)
        assert run_rivals("attack", place / "classifier.safetensors", place / "photos", *words)[0] == 0
    assert run_rivals("report", "a", "b", "--out", "both.html")[0] == 0
    page = Path("both.html").read_text()
    assert "Robust accuracy" in page
    assert page.count("<svg") >= 2


def test_radii_are_printed_as_typed():
    from rivals.reports.formatting import format_eps

    typed = {0.05: "0.05", 0.1: "0.1", 0.3: "0.3", 1.0: "1", 2.0: "2", 8 / 255: "8/255", 0.5 / 255: "0.5/255"}
    assert {eps: format_eps(eps) for eps in typed} == typed


def test_a_target_is_a_class_by_name_or_number(run_rivals, place):
    words = ("attack", place / "classifier.safetensors", place / "photos", *FAST, "--json")
    by_name = json.loads(run_rivals(*words, "--target", "cats").out)
    assert by_name["n"] == 20 and by_name["protocol"]["target"] == "cats"
    by_number = json.loads(run_rivals(*words, "--target", "0").out)
    assert by_number["robust"] == by_name["robust"]
    assert "unknown target class 'cows'" in assert_refused(run_rivals(*words, "--target", "cows"))


def test_l0_counts_values_or_pixels_and_says_so(run_rivals, place):
    words = ("attack", place / "classifier.safetensors", place / "photos", "--norm", "l0", "-n", "12", "--quiet")
    status, out, err = run_rivals(
        *words, "--eps", "2,6", "--pixels", "--attack", "sigma_zero(steps=5),sparse_rs(queries=20)", "--json"
    )
    assert status == 0, err
    result = json.loads(out)
    assert (result["protocol"]["norm"], result["protocol"]["pixels"], result["protocol"]["eps"]) == ("L0", True, [2, 6])
    with np.load(Path(result["run"]) / "adversarial.npz") as file:
        saved = dict(file)
    x = np.stack([np.asarray(Image.open(path)) for path in sorted((place / "photos").rglob("*.png"))])
    changed = (saved["x_adv"] != x.transpose(0, 3, 1, 2)[saved["index"]].astype(np.float32) / 255).any(1)
    assert len(changed)
    assert (changed.sum((1, 2)) <= saved["eps"]).all()
    assert "L0 6 pixels" in (Path(result["run"]) / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--norm", "l0", "--eps", "2.5"), ("eps of 2.5 is no whole number", "--eps 10")),
        (("--norm", "l0", "--eps", "5"), ("autoattack is an attack in Linf, L2 or L1", "sigma_zero")),
        (("--pixels",), ("--pixels counts in l0", "the norm is linf")),
        (("--norm", "l0", "--eps", "9999", "--attack", "fgsm"), ("wider than all images", "768", "take less")),
    ],
)
def test_l0_refuses_in_one_line(run_rivals, place, words, parts):
    assert_refused(run_rivals("attack", place / "classifier.safetensors", place / "photos", *words), *parts)


PIXELS = ("--norm", "l0", "--pixels", "--eps")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((*PIXELS, "59", "--attack", "sparse_rs(shape=frame)"), ("59 pixels are too few for a frame: take 60",)),
        ((*PIXELS, "7,100", "--attack", "noise,sparse_rs(shape=frame)"), ("7 pixels are too few for a frame",)),
        (("--norm", "l0", "--eps", "9", "--attack", "sparse_rs(shape=patch)"), ("a patch is made of pixels",)),
        (("--norm", "l0", "--eps", "9", "--attack", "universal"), ("universal_perturbation is an attack in Linf, L2",)),
        (("--attack", "universal(steps=0)"), ("steps of 0 cannot work",)),
        (("--attack", "patch(step_size=0)"), ("a step size of 0 cannot work",)),
        (("--attack", "patch(smallest=0.5)"), ("a patch of 0.5 to 0.4",)),
    ],
)
def test_attacks_that_cannot_work_leave_no_folder(run_rivals, place, tmp_path, words, parts):
    out = tmp_path / "run"
    words = (place / "classifier.safetensors", place / "photos", *words, "--out", out)
    assert_refused(run_rivals("attack", *words), *parts)
    assert not out.exists()
