"""Stages of an evaluation do what they do in one call: what one found, the next starts from, also after a kill."""

import importlib
import json
from functools import partial

import pytest

import rivals
from helpers.models import conv_model
from rivals import L1, L2, Linf, evaluate
from rivals.api.robustness.attack_spec import read_attack
from rivals.attacks import Ensemble, apgd, fab, freeze, run_ensemble, square, square_pgd
from rivals.attacks.autoattack import VERSIONS

OPTIONS = {"quiet": True, "alarms": False, "batch_size": 3}  # chunks of 12 images
IN_TURNS = "square_pgd(turns=2,queries=5,steps=2)"
LISTS = {
    **{f"autoattack-{version}": Linf(0.02) for version in VERSIONS},
    f"noise(trials=3),pgd(steps=2),{IN_TURNS}": L2(0.15),
    f"square(queries=20),{IN_TURNS},apgd(steps=5)": L1(0.5),
    f"fgsm,ddn(steps=3),{IN_TURNS}": L2(0.15),
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Hundreds of steps show nothing that a few do not; nor does a page."""
    module = importlib.import_module("rivals.attacks.autoattack")
    budgets = {apgd: {"steps": 5}, fab: {"steps": 2}, square: {"queries": 10}, square_pgd: {"queries": 5, "steps": 2}}
    for attack, budget in budgets.items():
        monkeypatch.setattr(module, attack.__name__, partial(attack, **budget))
    monkeypatch.setattr("rivals.reports.report.write_report", lambda *_: None)


def images():
    model, x, y = conv_model(n=16)
    y[:2] = (y[:2] + 1) % 5
    return model, x, y


def recorded_stages(folder):
    """Of each stage at the last radius: the images it fooled, how many it attacked, and its forward passes."""
    found = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record.get("eps_index") == 2:
            fooled, attacked, forwards = found.get(record["stage"], (set(), 0, 0))
            found[record["stage"]] = (
                fooled | set(record["fooled"]),
                attacked + record["n_attacked"],
                forwards + record["forwards"],
            )
    return found


@pytest.mark.parametrize("attack", LISTS)
def test_an_evaluation_fools_the_images_that_one_call_fools_at_the_same_cost(attack, tmp_path):
    (model, x, y), ball = images(), LISTS[attack]
    report = evaluate(model, (x, y), ball, attack=attack, curve=[1e-6], out=tmp_path / "r", **OPTIONS)
    with freeze(model, x) as frozen:
        _, *outcomes = run_ensemble(frozen, x, y, ball, read_attack(attack, ball), batch_size=3)
    one_call = {o.stage: (set(o.indices[o.fooled].tolist()), len(o.indices), o.forwards) for o in outcomes}
    assert recorded_stages(tmp_path / "r") == one_call
    assert 0 < report.robust.count == len(outcomes[-1].indices) - int(outcomes[-1].fooled.sum())


def steps_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if "second" not in key} for line in lines]


@pytest.mark.parametrize("attack", ["autoattack-swift", f"noise(trials=3),pgd(steps=2),{IN_TURNS}"])
def test_a_run_that_is_killed_before_any_stage_ends_as_one_that_is_not(attack, tmp_path, monkeypatch):
    model, x, y = images()
    again = partial(evaluate, model, (x[:12], y[:12]), Linf(0.012), attack=attack, curve=[0.006], **OPTIONS)
    again(out=tmp_path / "whole")
    whole = steps_of(tmp_path / "whole")
    records = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines(keepends=True)
    for kept in range(len(whole) - len(read_attack(attack, Linf(0.012))), len(whole)):
        folder = tmp_path / str(kept)
        with monkeypatch.context() as patch, pytest.raises(rivals.Interrupted):
            patch.setattr(Ensemble, "run", interrupt)
            again(out=folder)
        (folder / "metrics.jsonl").write_text("".join(records[:kept]))  # as a kill before the next step leaves it
        again(out=folder, resume=True)
        assert steps_of(folder) == whole


def interrupt(*args):
    raise KeyboardInterrupt
