"""``rivals certify`` from the command line: the run folder, resuming, refusals, the comparison."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from helpers.commands import CommandProcess, assert_refused
from helpers.kill_and_resume import timeless_records
from rivals.api.common.network_io import save_network
from rivals.base.rng import generator
from rivals.nets.factory import build_classifier, build_generator


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures of two classes, a tiny classifier by brightness, and a generator."""
    home = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = home / "photos" / ("cats", "dogs")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 120, (8, 8, 3), dtype=np.uint8) + np.uint8(100 * (i % 2))).save(path)
        (home / "bare").mkdir(exist_ok=True)
        Image.open(path).save(home / "bare" / f"{i}.png")
    net = build_classifier("cnn", size=8, channels=3, classes=2, widths=(4,))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.abs() if parameter.ndim > 1 else 0 * parameter)
        last = [module for module in net.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.weight[0] = -last.weight[1]
        x = torch.from_numpy(np.stack([np.asarray(Image.open(p)) for p in sorted((home / "photos").rglob("*.png"))]))
        noise = 0.25 * torch.randn((12, 3, 8, 8), generator=generator("border"))
        border = net(x.permute(0, 3, 1, 2).float() / 255 + noise)[:, 1].median()
        last.bias[0], last.bias[1] = border, -border
    save_network(net, home / "classifier.safetensors", {"classes": ["cats", "dogs"]})
    save_network(build_generator("mlp", size=8, channels=3), home / "generator.safetensors", {"classes": []})
    return home


FAST = ("--samples", "100", "--guesses", "20", "--steps", "3", "--draws", "4", "--radii", "0,0.2,1,6")


def test_the_bounds_are_printed_stored_and_plotted(run_rivals, empty_folder, place):
    status, out, err = run_rivals("certify", place, place / "photos", "--sigma", "0.25", *FAST)
    assert status == 0, err
    assert "of 12 images" in err
    assert "trained plainly" in err
    assert "100 samples certify no radius above 0.37" in err
    for text in ("certified", "under attack", "abstained", "average radius", "12 images", "runs/photos-certify-1"):
        assert text in out
    run = Path("runs/photos-certify-1")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["images"] for record in records] == list(range(1, 13))
    assert set(records[0]) == {"images", "step", "seconds", "label", "prediction", "radius", "adversarial_radius"}
    results = json.loads((run / "run.json").read_text())["results"]
    points = results["curve"]
    assert [point["radius"] for point in points] == [0, 0.2, 1, 6]
    assert all(point["lower"]["count"] <= point["upper"]["count"] for point in points)
    assert points[0]["lower"]["count"] > points[-1]["lower"]["count"] == 0
    assert points[-1]["upper"]["count"] < 12
    page = (run / "report.html").read_text()
    assert page.count("<svg") >= 2
    for text in (
        "Certified accuracy",
        "Definitions",
        "certified accuracy (lower bound)",
        "accuracy under attack (upper bound)",
    ):
        assert text in page


def test_without_an_attack_there_is_no_upper_curve(run_rivals, empty_folder, place):
    words = ("certify", place, place / "photos", "-n", 5, *FAST, "--no-upper", "--quiet", "--json", "--out", "r")
    status, out, err = run_rivals(*words)
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert result["n"] == 5
    assert all(point["upper"] is None for point in result["curve"])
    assert "accuracy under attack (upper bound)" not in Path("r/report.html").read_text()


@pytest.mark.parametrize(
    ("about", "note"),
    [
        ({"sigma": 0.25}, ""),
        (
            {"hardened": {"norm": "l2", "eps": 0.5, "method": "noise", "sigma": 0.5}},
            "under noise of sigma 0.5, not 0.25",
        ),
        ({"hardened": {"norm": "linf", "eps": 0.25 * 3**0.5, "method": "noise"}}, ""),
        (
            {"hardened": {"norm": "linf", "eps": 0.1, "method": "noise"}},
            "even noise in linf 0.1, whose deviation is 0.0577",
        ),
        ({"hardened": {"norm": "l1", "eps": 9.0, "method": "noise"}}, "even noise in l1 9,"),
        ({"hardened": {"norm": "linf", "eps": 0.1, "method": "trades"}}, "was hardened by trades, not under noise"),
    ],
)
def test_a_model_trained_on_other_noise_is_noted(about, note, place, tmp_path):
    net = rivals.load(place / "classifier.safetensors")
    save_network(net, tmp_path / "classifier.safetensors", {"classes": ["cats", "dogs"], **about})
    loaded = rivals.load(tmp_path / "classifier.safetensors")
    settings = {"samples": 20, "guesses": 5, "upper": False, "radii": [0.1], "quiet": True}
    report = rivals.certify(loaded, str(place / "photos"), sigma=0.25, n=1, **settings)
    assert len(report.notes) == bool(note)
    assert note in "".join(report.notes)
    assert report.run is None


BAD = {
    "no noise": (["--sigma", "0"], ["sigma of 0"]),
    "noise in bytes": (["--sigma", "64"], ["sigma of 64"]),
    "alpha of one": (["--alpha", "1"], ["alpha of 1"]),
    "too few samples": (["--samples", "9"], ["take 10 or more"]),
    "no images": (["-n", "0"], ["0 images"]),
    "a radius that is no number": (["--radii", "0,a"], ["--radii 'a' is not a radius"]),
    "an unknown flag": (["--sgima", "1"], ["--sgima", "--sigma"]),
    "half a normalization": (["--mean", "0.5", "0.5", "0.5"], ["std"]),
    "resume without a run": (["--resume"], ["--out"]),
    "resume of what is no run": (["--resume", "--out", "nothing"], ["'nothing' is not a run"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_words_are_refused_in_one_line(run_rivals, empty_folder, place, case):
    words, parts = BAD[case]
    assert_refused(run_rivals("certify", place, place / "photos", "--quiet", *words), *parts)
    assert not Path("runs").exists()


def test_bad_models_and_data_are_refused_in_one_line(run_rivals, empty_folder, place):
    assert_refused(run_rivals("certify"), "no model was named")
    assert_refused(run_rivals("certify", place), "no data were named")
    assert_refused(run_rivals("certify", place / "generator.safetensors", place / "photos"), "holds a generator")
    assert_refused(run_rivals("certify", place, place / "bare"), "'bare' has no labels")
    assert_refused(run_rivals("certify", place, "mnsit"), "'mnsit'", "mnist")
    # A classifier, not a network with a property
    assert "property" not in assert_refused(run_rivals("certify", "onnx:none.onnx", place / "photos"), "none.onnx")


def test_an_interrupted_certification_resumes_to_the_same_result(run_rivals, empty_folder, place, tmp_path):
    words = [str(place), str(place / "photos"), "--samples", "4000", *FAST[2:], "--quiet", "--seed", "3"]
    process = CommandProcess("certify", *words, "--out", tmp_path / "r", out=tmp_path / "streams")
    records = tmp_path / "r" / "metrics.jsonl"
    process.wait_until(lambda: records.exists() and len(records.read_text().splitlines()) >= 2)
    process.send(signal.SIGINT)
    status, _, err = process.wait()
    assert status == 130, err
    assert "--resume" in err
    about = json.loads((tmp_path / "r" / "run.json").read_text())
    assert about["state"] == "interrupted"
    assert 2 <= about["images"] < 12
    assert about["results"]["n"] == about["images"]
    assert_refused(
        run_rivals("certify", "--resume", "--out", tmp_path / "r", "--sigma", "0.5", "--quiet"), "another sigma"
    )
    assert_refused(
        run_rivals("attack", "--resume", "--out", tmp_path / "r", place, place / "photos"),
        "not a run of 'rivals attack'",
    )
    status, out, err = run_rivals("certify", "--resume", "--out", tmp_path / "r", "--quiet", "--json")
    assert status == 0, err
    resumed = json.loads(out)
    status, out, err = run_rivals("certify", *words, "--out", tmp_path / "w", "--json")
    assert status == 0, err
    whole = json.loads(out)
    for key in ("curve", "abstained", "average_certified_radius", "n", "notes"):
        assert resumed[key] == whole[key], key
    assert timeless_records(tmp_path / "r") == timeless_records(tmp_path / "w")


def test_two_certificates_are_compared_on_one_page(run_rivals, empty_folder, place):
    for sigma in ("0.25", "0.5"):
        words = ("--sigma", sigma, "-n", "3", *FAST, "--quiet", "--out", f"s{sigma}")
        assert run_rivals("certify", place, place / "photos", *words)[0] == 0
    assert run_rivals("report", "s0.25", "s0.5", "--out", "both.html")[0] == 0
    page = Path("both.html").read_text()
    assert "Certified" in page
    assert page.count("<svg") >= 4
