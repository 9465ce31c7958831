"""``attack --defense``: the naive figure beside the honest one, and which is believed."""

import json

import pytest
import torch
from torch import nn

import rivals
from helpers.commands import assert_refused
from helpers.small_networks import save_networks
from rivals.api.common.network_io import save_network
from rivals.api.robustness.defense import read_defense
from rivals.base.errors import UserError
from rivals.base.norm_balls import Linf
from rivals.defenses import JPEG, BitDepth
from rivals.nets.factory import build_generator


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("defense")
    save_networks(home)
    large = build_generator("mlp", size=16, channels=1, latent_dim=4, widths=(8,))
    save_network(large, home / "large.safetensors", {})
    return home


class Steep(nn.Module):
    """Class 1 if the mean is above a half, through noise that a purifier of two levels removes."""

    def forward(self, x):
        mean = x.flatten(1).mean(1)
        return 20 * torch.stack([0.5 - mean, mean - 0.5], 1)


def test_the_honest_figure_is_below_the_naive_one_and_believed():
    """Rounding to 2 levels hides small steps; BPDA walks over the edge of the rounding."""
    y = torch.arange(40) % 2
    x = (0.3 + 0.4 * y.float()).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    report = rivals.evaluate(
        Steep(), (x, y), Linf(0.25), attack="fgsm", defense="bit-depth(bits=1)", alarms=False, quiet=True
    )
    assert report.naive.count <= report.clean.count == 40
    assert report.robust.count == 0
    assert "from attacks through the defense" in report.verdict or "believe at most 0.0%" in report.verdict
    assert report.as_dict()["naive"]["count"] == report.naive.count
    assert "naive" in str(report)


@pytest.mark.parametrize("defense", ["jpeg(quality=40)", "defense-gan:run(steps=3,restarts=2)"])
def test_a_run_attacks_the_classifier_then_the_defense(home, run_rivals, monkeypatch, defense):
    monkeypatch.chdir(home)
    out = "attack-" + defense[:4]
    words = (
        "attack",
        "plain.safetensors",
        "photos",
        "--eps",
        "0.1",
        "--attack",
        "pgd(steps=2)",
        "--json",
        "--out",
        out,
    )
    result = run_rivals(
        *words, "--defense", defense, "--adaptive-steps", "2", "--no-alarms", "--save", "none", "--json"
    )
    assert result.status == 0, result.err
    report = json.loads(result.out)
    assert report["naive"]["count"] >= report["robust"]["count"]
    names = [stage["stage"] for stage in report["stages"]]
    assert names[:1] == ["naive"] and report["protocol"]["defense"] == defense
    assert "Naive accuracy" in (home / out / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--defense", "jpg"), ("unknown defense 'jpg'", "jpeg")),
        (("--defense", "jpeg(quality=0)"), ("quality of 0",)),
        (("--defense", "jpeg(level=3)"), ("option of jpeg 'level'",)),
        (("--defense", "defense-gan"), ("names no run",)),
        (("--defense", "defense-gan:plain.safetensors"), ("not a generator",)),
        (("--defense", "gan-inversion:run"), ("'run' holds no encoder", "--invert RUN")),
        (("--defense", "gan-inversion:run(steps=3)"), ("gan-inversion has no options",)),
        (("--defense", "jpeg", "--eps", "0.1,0.2"), ("needs one radius",)),
        (("--adaptive-steps", "5"), ("add --defense",)),
        (("--defense", "jpeg", "--surrogate", "plain.safetensors"), ("--surrogate", "leave one out")),
        (("--defense", "defense-gan:large.safetensors"), ("makes images of 1 x 16 x 16, and these are 1 x 8 x 8",)),
        (("--defense", "jpeg", "--attack", "corruptions"), ("which corruptions is not", "leave one out")),
        (("--defense", "jpeg", "--attack", "patch"), ("which patch is not", "leave one out")),
        (("--defense", "jpeg", "--norm", "l0", "--eps", "3", "--attack", "sigma_zero"), ("l0 has none for",)),
        (("--defense", "jpeg", "--eps", "0"), ("eps of 0",)),
    ],
)
def test_what_cannot_work_is_refused(home, run_rivals, monkeypatch, words, parts):
    monkeypatch.chdir(home)
    assert_refused(run_rivals("attack", "plain.safetensors", "photos", *words, "--out", "refused"), *parts)
    assert not (home / "refused").exists()


def test_defenses_are_read_with_their_options():
    assert isinstance(read_defense("jpeg"), JPEG)
    assert read_defense("jpeg(quality=30)").quality == 30
    assert isinstance(read_defense(" bit-depth(bits=2) "), BitDepth)
    with pytest.raises(UserError, match="names a run"):
        read_defense("jpeg:run")
