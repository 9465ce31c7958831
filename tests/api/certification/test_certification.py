"""``rivals certify`` as a user runs it, and from Python: brackets that hold, refusals in one line, going on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import rivals
from rivals import cli
from rivals.api.networks import keep
from rivals.base.errors import UserError
from rivals.base.seeds import generator
from rivals.metrics.bracket import bracket
from rivals.metrics.certification import ABSTAINS, needed, outvoted, votes
from rivals.nets.build import build_classifier, build_generator
from rivals.nets.wrapped import Smoothed

RADII = (0.1, 0.2, 0.3, 0.5)


class Linear(torch.nn.Module):
    """Two classes, on the two sides of a plane with a normal of length 1."""

    def __init__(self, dimensions=12, classes=2):
        super().__init__()
        weights = torch.randn(dimensions, generator=generator("w"), dtype=torch.float64)
        self.weights = torch.nn.Parameter(weights / weights.norm())
        self.classes = classes

    def forward(self, x):
        lead = (x.flatten(1) - 0.5) @ self.weights
        rest = torch.full((len(x), self.classes - 2), -9.0, dtype=x.dtype)
        return torch.cat([-lead[:, None], lead[:, None], rest], dim=1)


def images(count=30):
    """Images near the middle of the box, so that its walls are no help to the classifier, and their labels."""
    model = Linear()
    # Along the normal each image has its own distance from the plane; of the sides, one label is wrong.
    distances = torch.linspace(-0.6, 0.6, count, dtype=torch.float64)
    x = (0.5 + distances[:, None] * model.weights.detach()).view(count, 3, 2, 2)
    y = (distances > 0).long()
    y[0] = 1 - y[0]
    assert x.min() > 0
    assert x.max() < 1
    return x, y, distances.abs()


@pytest.fixture(scope="module")
def linear():
    """A linear classifier's bracket, with the images' exact radii."""
    x, y, exact = images()
    return rivals.certify(Linear(), (x, y), 0.25, radii=RADII, quiet=True), exact, y


def test_the_truth_of_a_linear_classifier_lies_in_the_bracket(linear):
    """The smoothed classifier has the same plane, so an image's exact radius is its distance from it."""
    report, exact, _ = linear
    open_ = []
    for point in report.curve:
        truth = int((exact[1:] > point.radius).sum())  # the first label is wrong
        assert point.lower.count <= truth <= point.upper.count
        open_.append(point.upper.count - point.lower.count)
    assert max(open_) <= 6  # 30 images, 1.2 / 29 apart: what 1,000 samples and 500 looks leave undecided
    assert report.curve[0].lower.count >= 25
    assert report.curve[-1].upper.count < report.curve[0].upper.count


def test_the_curves_fall_and_never_cross(linear):
    report, _, _ = linear
    lower = [point.lower.count for point in report.curve]
    upper = [point.upper.count for point in report.curve]
    assert lower == sorted(lower, reverse=True)
    assert upper == sorted(upper, reverse=True)
    assert all(below <= above for below, above in zip(lower, upper, strict=True))
    assert [point.radius for point in report.curve] == [0.0, *RADII]


def test_a_bracket_counts_what_the_records_say():
    records = [
        {"truth": 1, "label": 1, "radius": 0.4, "fell": None},
        {"truth": 1, "label": 1, "radius": 0.2, "fell": 0.4},
        {"truth": 1, "label": 0, "radius": 0.9, "fell": 0.0},
        {"truth": 1, "label": ABSTAINS, "radius": 0.0, "fell": None},
    ]
    found = bracket(records, [0.0, 0.2, 0.4], upper=True, largest=1.0, protocol={}, seconds=0)
    assert [(point.lower.count, point.upper.count) for point in found.curve] == [(2, 3), (2, 3), (1, 2)]
    assert (found.abstained.count, found.mean_radius) == (1, pytest.approx(0.15))
    alone = bracket(records, [0.0], upper=False, largest=1.0, protocol={}, seconds=0)
    assert alone.curve[0].upper is None
    assert alone.as_dict()["curve"][0]["upper"] is None


def test_results_depend_neither_on_order_nor_on_batches(linear):
    report, _, y = linear
    x = images()[0]
    turned = rivals.certify(Linear(), (x.flip(0), y.flip(0)), 0.25, radii=RADII, batch_size=50, quiet=True)
    assert turned.curve == report.curve
    assert turned.abstained == report.abstained
    assert turned.mean_radius == pytest.approx(report.mean_radius)
    other = rivals.certify(Linear(), (x, y), 0.25, radii=RADII, seed=1, quiet=True)
    assert other.mean_radius != report.mean_radius


def test_the_model_and_the_random_state_come_back_as_they_were():
    model = Linear(classes=3).train()
    state = torch.random.get_rng_state()
    x, y, _ = images(4)
    report = rivals.certify(model, (x, y), 0.25, samples=50, quiet=True)
    assert report.n == 4
    assert model.training
    assert model.weights.requires_grad
    assert model.weights.grad is None
    assert torch.equal(state, torch.random.get_rng_state())


def test_smoothing_is_the_log_of_the_mean_probability():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    smoothed = Smoothed(model, 0.5, 8, seed=3)
    x = torch.rand(5, 3, 2, 2, generator=generator("x"))
    with torch.no_grad():
        noise = 0.5 * torch.randn((8, 3, 2, 2), generator=generator(3, "smoothed"))
        wanted = torch.stack([model(x + each).softmax(1) for each in noise]).mean(0)
        torch.testing.assert_close(smoothed(x).exp(), wanted)
        torch.testing.assert_close(smoothed(x[1:2]), smoothed(x)[1:2])
        torch.testing.assert_close(smoothed.double()(x.double()).exp().sum(1), torch.ones(5, dtype=torch.float64))


def test_a_fall_needs_a_clear_vote():
    assert outvoted(torch.tensor([30, 70, 0]), 0, 0.001)
    assert not outvoted(torch.tensor([40, 60, 0]), 0, 0.001)
    assert outvoted(torch.tensor([40, 60, 0]), 0, 0.06)
    assert not outvoted(torch.tensor([70, 30, 0]), 0, 0.4)
    assert not outvoted(torch.tensor([50, 50]), 0, 0.4)


def test_a_label_that_wins_is_outvoted_as_rarely_as_alpha_says():
    """Exactly at the draw, where it is hardest: two classes have the same probability."""
    middle = torch.full((1, 12), 0.5, dtype=torch.float64)
    model = Linear()
    wrong = 0
    with torch.no_grad():
        for seed in range(200):
            tally = votes(model, middle[0][None], 0.25, 100, generator("tie", seed))
            assert int(tally.sum()) == 100
            wrong += outvoted(tally, 0, 0.1)
    assert 0 < wrong <= 20  # half of alpha on this side: 10 are to be expected


def test_the_samples_that_are_needed_are_the_fewest_that_tell():
    for alpha in (0.4, 0.1, 0.001, 2**-10):
        least = needed(alpha)
        assert alpha ** (1 / least) > 0.5
        assert least == 1 or alpha ** (1 / (least - 1)) <= 0.5


class Blind(Linear):
    def forward(self, x):
        return super().forward(x.detach())


class Probable(Linear):
    def forward(self, x):
        return super().forward(x).mul(9).softmax(1)


class Restless(Linear):
    """Randomised: it draws from the global random state."""

    def forward(self, x):
        logits = super().forward(x)
        return logits + 0.01 * torch.randn(logits.shape, dtype=x.dtype)


def test_a_model_without_a_gradient_is_certified_but_not_attacked():
    x, y, exact = images(10)
    report = rivals.certify(Blind(), (x, y), 0.25, samples=200, radii=RADII, quiet=True)
    assert any("no gradient" in note for note in report.notes)
    assert report.curve[0].lower.count > 5
    assert report.curve[-1].upper.count == report.curve[0].upper.count == 9
    assert (exact[1:] > 0).all()


def test_probabilities_and_randomised_models_will_do():
    x, y, _ = images(8)
    for model in (Probable(), Restless()):
        found = [
            rivals.certify(model, pair, 0.25, samples=200, radii=[0.3], quiet=True)
            for pair in ((x, y), (x.flip(0), y.flip(0)))
        ]
        assert found[0].curve == found[1].curve
        assert not found[0].notes
        assert found[0].curve[1].lower.count >= 2
        assert found[0].curve[1].upper.count < 7


@pytest.mark.parametrize(
    ("knobs", "parts"),
    [
        ({"sigma": 0}, ["sigma of 0", "0.25"]),
        ({"sigma": float("nan")}, ["sigma of nan"]),
        ({"sigma": 64}, ["sigma of 64", "at most 10"]),
        ({"alpha": 0.5}, ["alpha of 0.5"]),
        ({"alpha": 0.001, "samples": 9}, ["9 samples certify nothing", "take 10 or more"]),
        ({"guesses": 0}, ["guesses of 0"]),
        ({"steps": 0}, ["steps of 0"]),
        ({"draws": 0}, ["draws of 0"]),
        ({"batch_size": 0}, ["batch size of 0"]),
        ({"n": 0}, ["0 images"]),
        ({"radii": "0,x"}, ["'x' is no radius"]),
        ({"radii": [-0.5]}, ["'-0.5' is no radius"]),
        ({"resume": True}, ["--resume needs the run"]),
        ({"model": None}, ["no model was named"]),
        ({"data": None}, ["no data were named"]),
        ({"data": (torch.rand(2, 5), torch.zeros(2, dtype=torch.long))}, ["the model", "images of 5"]),
        ({"data": (torch.rand(2, 12, dtype=torch.float64), torch.tensor([0, 7]))}, ["labels hold 7"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(knobs, parts):
    x, y, _ = images(2)
    asked = {"model": Linear(), "data": (x, y), "sigma": 0.25, "quiet": True, **knobs}
    with pytest.raises(UserError) as refusal:
        rivals.certify(**asked)
    assert "\n" not in str(refusal.value)
    for part in parts:
        assert part in str(refusal.value)


def test_a_model_that_fails_is_told_of_in_one_line():
    class Broken(Linear):
        def forward(self, x):
            raise KeyError("weights\nof the moon")

    class Lost(Linear):
        def forward(self, x):
            return super().forward(x) * float("nan")

    for model, part in ((Broken(), "KeyError"), (Lost(), "NaN")):
        with pytest.raises(UserError, match=part) as refusal:
            rivals.certify(model, images(2)[:2], 0.25, quiet=True)
        assert "\n" not in str(refusal.value)


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
    keep(net, home / "classifier.safetensors", {"classes": ["cats", "dogs"]})
    keep(build_generator("mlp", size=8, channels=3), home / "generator.safetensors", {"classes": []})
    return home


@pytest.fixture
def said(capsys, tmp_path, monkeypatch):
    """``rivals WORDS`` in this process, in an empty folder: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RIVALS_DATA", str(tmp_path / "data"))

    def call(*words):
        with pytest.raises(SystemExit) as left:
            cli.main([str(word) for word in words])
        heard = capsys.readouterr()
        return left.value.code or 0, heard.out, heard.err

    return call


FAST = ("--samples", "100", "--guesses", "20", "--steps", "3", "--draws", "4", "--radii", "0,0.2,1,6")


def test_the_bracket_is_told_kept_and_drawn(said, place):
    status, out, err = said("certify", place, place / "photos", "--sigma", "0.25", *FAST)
    assert status == 0, err
    assert "of 12 images" in err
    assert "trained plainly" in err
    assert "100 samples certify no radius above 0.37" in err
    for text in ("certified", "stands under attack", "abstained", "mean radius", "12 images", "runs/photos-certify-1"):
        assert text in out
    run = Path("runs/photos-certify-1")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["images"] for record in records] == list(range(1, 13))
    assert set(records[0]) == {"images", "step", "seconds", "truth", "label", "radius", "fell"}
    results = json.loads((run / "run.json").read_text())["results"]
    points = results["curve"]
    assert [point["radius"] for point in points] == [0, 0.2, 1, 6]
    assert all(point["lower"]["count"] <= point["upper"]["count"] for point in points)
    assert points[0]["lower"]["count"] > points[-1]["lower"]["count"] == 0
    assert points[-1]["upper"]["count"] < 12
    page = (run / "report.html").read_text()
    assert page.count("<svg") >= 2
    for text in ("Where the truth lies", "How to read this", "certified: proven to stand", "not felled by the attack"):
        assert text in page


def test_without_an_attack_there_is_no_upper_curve(said, place):
    words = ("certify", place, place / "photos", "-n", 5, *FAST, "--no-upper", "--quiet", "--json", "--out", "r")
    status, out, err = said(*words)
    assert (status, err) == (0, "")
    result = json.loads(out)
    assert result["n"] == 5
    assert all(point["upper"] is None for point in result["curve"])
    assert "not felled by the attack" not in Path("r/report.html").read_text()


@pytest.mark.parametrize(
    ("about", "told"),
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
def test_a_model_for_other_noise_is_told_of(about, told, place, tmp_path):
    net = rivals.load(place / "classifier.safetensors")
    keep(net, tmp_path / "classifier.safetensors", {"classes": ["cats", "dogs"], **about})
    loaded = rivals.load(tmp_path / "classifier.safetensors")
    knobs = {"samples": 20, "guesses": 5, "upper": False, "radii": [0.1], "quiet": True}
    report = rivals.certify(loaded, str(place / "photos"), 0.25, n=1, **knobs)
    assert len(report.notes) == bool(told)
    assert told in "".join(report.notes)
    assert report.run is None


BAD = {
    "no noise": (["--sigma", "0"], ["sigma of 0"]),
    "noise in bytes": (["--sigma", "64"], ["sigma of 64"]),
    "alpha of one": (["--alpha", "1"], ["alpha of 1"]),
    "too few samples": (["--samples", "9"], ["take 10 or more"]),
    "no images": (["-n", "0"], ["0 images"]),
    "a radius that is no number": (["--radii", "0,a"], ["--radii 'a' is no radius"]),
    "an unknown flag": (["--sgima", "1"], ["--sgima", "--sigma"]),
    "half a normalisation": (["--mean", "0.5", "0.5", "0.5"], ["std"]),
    "resume without a run": (["--resume"], ["--out"]),
    "resume of what is no run": (["--resume", "--out", "nothing"], ["'nothing' is not a run"]),
}


def refused(result, *parts):
    status, out, err = result
    assert (status, out) == (2, ""), err
    assert len(err.strip().splitlines()) == 1, err
    for part in parts:
        assert part in err


@pytest.mark.parametrize("case", BAD)
def test_bad_words_are_refused_in_one_line(said, place, case):
    words, parts = BAD[case]
    refused(said("certify", place, place / "photos", "--quiet", *words), *parts)
    assert not Path("runs").exists()


def test_bad_models_and_data_are_refused_in_one_line(said, place):
    refused(said("certify"), "no model was named")
    refused(said("certify", place), "no data were named")
    refused(said("certify", place / "generator.safetensors", place / "photos"), "holds a generator")
    refused(said("certify", place, place / "bare"), "'bare' has no labels")
    refused(said("certify", place, "mnsit"), "'mnsit'", "mnist")


def test_what_is_interrupted_ends_as_if_it_were_not(said, place, tmp_path):
    words = [str(place), str(place / "photos"), "--samples", "4000", *FAST[2:], "--quiet", "--seed", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start = [sys.executable, "-m", "rivals", "certify", *words, "--out", str(tmp_path / "r")]
    process = subprocess.Popen(start, stderr=subprocess.PIPE, text=True, env=environment)
    records = tmp_path / "r" / "metrics.jsonl"
    while not records.exists() or len(records.read_text().splitlines()) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "--resume" in err
    about = json.loads((tmp_path / "r" / "run.json").read_text())
    assert about["state"] == "interrupted"
    assert 2 <= about["images"] < 12
    assert about["results"]["n"] == about["images"]
    refused(said("certify", "--resume", "--out", tmp_path / "r", "--sigma", "0.5", "--quiet"), "another sigma")
    refused(
        said("attack", "--resume", "--out", tmp_path / "r", place, place / "photos"), "not a run of 'rivals attack'"
    )
    status, out, err = said("certify", "--resume", "--out", tmp_path / "r", "--quiet", "--json")
    assert status == 0, err
    resumed = json.loads(out)
    status, out, err = said("certify", *words, "--out", tmp_path / "w", "--json")
    assert status == 0, err
    whole = json.loads(out)
    for key in ("curve", "abstained", "mean_radius", "n", "notes"):
        assert resumed[key] == whole[key], key
    kept = [
        [{**json.loads(line), "seconds": 0} for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("r", "w")
    ]
    assert kept[0] == kept[1]


def test_two_certificates_are_compared_on_one_page(said, place):
    for sigma in ("0.25", "0.5"):
        words = ("--sigma", sigma, "-n", "3", *FAST, "--quiet", "--out", f"s{sigma}")
        assert said("certify", place, place / "photos", *words)[0] == 0
    assert said("report", "s0.25", "s0.5", "--out", "both.html")[0] == 0
    page = Path("both.html").read_text()
    assert "Certified" in page
    assert page.count("<svg") >= 4
