"""Certified training end to end: every method runs, the best certified state is kept, wrong settings are refused."""

import json
import os
import signal

import numpy as np
import pytest
import torch

import rivals
from helpers.commands import assert_refused
from helpers.kill_and_resume import goes_on
from helpers.refusals import named
from rivals import Linf, UserError
from rivals.api.training.certified import CertifiedAccuracy
from rivals.base.duration import Duration
from rivals.data.imageset import ImageSet
from rivals.game.callbacks import Progress
from rivals.game.player import Player, adam
from rivals.nets.factory import build_classifier
from rivals.recipes import HardenConfig

TINY = {"widths": (8,), "batch_size": 16, "optimizer": "adam", "lr": 1e-2, "quiet": True, "device": "cpu"}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """Stripes that lie and stripes that stand, strong enough to be told apart under attack."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("stripes")
    bars = np.where(np.arange(8)[:, None] % 4 < 2, 220, 30) * np.ones(8)
    for name, picture in {"lie": bars, "stand": bars.T}.items():
        (folder / name).mkdir()
        noise = np.random.default_rng(len(name))
        for number in range(60):
            pixels = (picture + noise.normal(0, 12, (8, 8))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return str(folder)


@pytest.mark.parametrize("method", ["crown-ibp", "mtl-ibp"])  # ibp and sabr are below
def test_methods_give_certificates(stripes, tmp_path, method):
    run = rivals.harden(stripes, Linf(0.1), method=method, until="8 epochs", out=tmp_path / "run", **TINY)
    result = run.result()
    assert result["state"] == "finished"
    assert result["accuracy/certified"] > 0.8
    assert run.info["hardened"] == {"norm": "linf", "eps": 0.1, "method": method}
    assert run.info["config"]["net"] == "strided"


def test_the_best_certified_state_is_kept(stripes, tmp_path):
    run = rivals.harden(stripes, Linf(0.1), method="ibp", until="6 epochs", out=tmp_path / "run", **TINY)
    certified = {r["step"]: r["accuracy/certified"] for r in run.records() if "accuracy/certified" in r and r["step"]}
    kept = json.loads((run.folder / "classifier.json").read_text())["step"]
    assert certified[kept] == max(certified.values()) > 0.8
    assert kept == min(step for step, share in certified.items() if share == max(certified.values()))


def test_a_stopped_run_continues_as_if_it_had_not(stripes, tmp_path, monkeypatch):
    settings = {"method": "sabr", "until": "20 steps", "seed": 3, **TINY}
    whole = rivals.harden(stripes, Linf(0.1), out=tmp_path / "whole", **settings)
    measure = CertifiedAccuracy.measure

    def interrupt(self, progress):
        if progress.step:
            os.kill(os.getpid(), signal.SIGINT)
        return measure(self, progress)

    with monkeypatch.context() as patch:
        patch.setattr(CertifiedAccuracy, "measure", interrupt)
        with pytest.raises(rivals.Interrupted):
            rivals.harden(stripes, Linf(0.1), out=tmp_path / "part", **settings)
    with goes_on(tmp_path / "part"):
        part = rivals.harden(resume=True, out=tmp_path / "part", quiet=True)
    for name, weight in whole.classifier.state_dict().items():
        assert torch.equal(weight, part.classifier.state_dict()[name]), name


def test_held_out_images_are_certified_by_crown_ibp_where_ibp_fails():
    """As `rivals certify --method crown-ibp` has it. The weights were not trained: IBP alone certifies fewer."""
    torch.manual_seed(0)
    net = build_classifier("strided", size=8, channels=1, classes=3, widths=(8,)).eval()
    x = torch.rand(120, 1, 8, 8).mul(255).byte()
    data = ImageSet("random", "train", x.numpy(), net(x / 255).argmax(1).numpy(), ("a", "b", "c"))
    ball = Linf(0.004)
    measure = CertifiedAccuracy(Duration.parse("1 epochs"), Player(net, adam(1e-3)), data, ball).measure
    (record,) = measure(Progress(0, 0, 0.0, 0.0))

    def certified(method):
        report = rivals.certify(net, data, ball, method=method, n=len(data), upper=False, quiet=True)
        return report.as_dict()["certified"]["value"]

    assert record["accuracy/certified"] == certified("crown-ibp") > certified("ibp")
    assert record["accuracy/held_out"] == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"method": "pgd", "kappa": 0.5}, "--kappa has no meaning for the method pgd"),
        ({"method": "ibp", "kappa": 1.0}, "--kappa 1.0"),
        ({"method": "ibp", "awp": 0.01}, "--awp cannot be combined with the method ibp"),
        ({"method": "ibp", "steps": 3}, "--steps has no meaning for the method ibp"),
        ({"method": "ibp", "adversarial_weight": 0.5}, "which has --kappa"),
        ({"method": "sabr", "norm": "l2", "eps": "0.5"}, "--norm l2 has no bounds for the method sabr"),
        ({"method": "trades", "eps_factor": 1.1}, "--eps-factor has no meaning"),
        ({"method": "pgd", "small_box": 0.2}, "--small-box has no meaning for the method pgd"),
        (
            {"method": "crown-ibp", "small_box": 0.5},
            "--small-box has no meaning for the method crown-ibp",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        HardenConfig(**settings)


def test_another_method_resets_the_settings_of_the_one_before():
    assert HardenConfig(method="ibp", kappa=0.5).changed(method="pgd").kappa is None
    before = HardenConfig(method="sabr", small_box=0.2, eps_factor=1.5, ibp_regularizer=0.1)
    for method in ("mtl-ibp", "trades"):
        assert before.changed(method=method) == HardenConfig(method=method)
    assert before.changed(method="ibp", eps_factor=1.2).eps_factor == 1.2


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"method": "sabr", "eps": "0.8", "small_box": 1.0, "eps_factor": 1.4}, ("--eps 0.8", "1.12", "1.25 or less")),
        ({"method": "ibp", "eps": "0.5", "eps_factor": 3.0}, ("--eps 0.5", "--eps-factor 3", "is 1.5", "2 or less")),
        ({"method": "mtl-ibp", "eps_factor": 4.0}, ("--eps 0.3", "--eps-factor 4", "is 1.2")),
    ],
)
def test_a_radius_beyond_all_images_is_refused_before_the_run(stripes, tmp_path, settings, parts):
    with named(*parts):
        rivals.harden(stripes, **settings, out=tmp_path / "run", until="1 steps", **TINY)
    assert not (tmp_path / "run").exists()


def test_an_eps_of_zero_is_refused(run_rivals):
    assert_refused(run_rivals("harden", "mnist5k", "--method", "ibp", "--eps", "0"), "eps of 0")
