"""Tables, series and videos: AutoAttack and the probes work on them from the beginning to the end."""

import importlib
from functools import partial

import pytest
from torch import nn

from helpers.masked_models import Rounded
from helpers.models import linear_model
from rivals import L1, L2, Linf, evaluate
from rivals.attacks import square

SHAPES = {"table": (10,), "series": (2, 6), "video": (1, 3, 3, 2)}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(importlib.import_module("rivals.attacks.autoattack"), "square", partial(square, queries=30))


@pytest.mark.parametrize("ball", [Linf(0.01), L2(0.03), L1(0.06)], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_autoattack_ends_on_inputs_that_are_no_images(shape, ball, tmp_path):
    model, x, y = linear_model(4, SHAPES[shape])
    report = evaluate(model, (x, y), ball, out=tmp_path / "r", quiet=True)
    assert report.clean.value == 1
    assert list(report.stages) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert report.stages["square"].attacked == report.robust.count
    assert (tmp_path / "r" / "report.html").exists()


@pytest.mark.parametrize("shape", SHAPES)
def test_hidden_gradients_are_noticed_by_square(shape):
    model, x, _ = linear_model(4, SHAPES[shape], n=40)
    masked = Rounded(nn.Sequential(model))
    y = masked(x).argmax(1)
    report = evaluate(masked, (x, y), Linf(0.2), attack="pgd,square(queries=50)", quiet=True)
    assert "black-box-beats-gradient" in [alarm["alarm"] for alarm in report.alarms]
    assert report.robust.count < report.clean.count
