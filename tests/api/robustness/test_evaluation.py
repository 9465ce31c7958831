"""``rivals.evaluate``: what it reports, that it can be believed, its alarms, its memory, and going on."""

import copy
import gc
import json
from functools import partial

import torch
from torch import nn

from helpers.masked_models import (
    CLASSES,
    QUIET,
    image_set,
    patterns,
)
from rivals import L2, Linf, evaluate
from rivals.api.robustness.eval_data import EvalData
from rivals.api.robustness.masking_probe import PROBES
from rivals.attacks import pgd
from rivals.console.attack_progress import AttackProgress

# What is reported


def test_the_report_equals_a_plain_count(model, data):
    x, y = data
    report = evaluate(model, data, Linf(0.1), attack="pgd(steps=10)", **QUIET)
    right = model(x).argmax(1) == y
    x_adv = pgd(model, x, y, Linf(0.1), steps=10)
    robust = right & (model(x_adv).argmax(1) == y)
    assert (report.clean.count, report.robust.count, report.n) == (int(right.sum()), int(robust.sum()), 120)
    assert 0 < report.robust.count < report.clean.count
    part = report.stages["pgd(steps=10)"]
    assert (part.attacked, part.fooled, part.unverified) == (int(right.sum()), int((right & ~robust).sum()), 0)
    assert part.forwards > part.backwards > 0
    assert [each.clean.of for each in report.classes] == [30] * 4
    assert sum(each.robust.count for each in report.classes) == report.robust.count
    assert report.run is None
    json.dumps(report.as_dict())


def test_an_ensemble_is_as_strong_as_its_parts_together(model, data):
    alone = [evaluate(model, data, L2(0.8), attack=name, **QUIET) for name in ("noise", "pgd(steps=3)")]
    both = evaluate(model, data, L2(0.8), attack="noise,pgd(steps=3)", **QUIET)
    assert both.robust.count <= min(each.robust.count for each in alone)
    assert both.stages["pgd(steps=3)"].attacked == both.clean.count - both.stages["noise"].fooled


def test_a_curve_equals_evaluations_at_each_radius_and_never_rises(model, data):
    radii = [0.02, 0.05, 0.1, 0.2]
    together = evaluate(model, data, Linf(0.2), attack="pgd(steps=10)", curve=radii, **QUIET)
    assert [eps for eps, _ in together.curve] == [0.0, *radii]
    counts = [share.count for _, share in together.curve]
    assert counts == sorted(counts, reverse=True)
    alone = [evaluate(model, data, Linf(eps), attack="pgd(steps=10)", **QUIET).robust.count for eps in radii]
    assert counts[1:] == alone
    fewer = together.stages["pgd(steps=10)"].attacked
    assert fewer == sum(counts[:-1])  # an image fooled in a smaller ball is not attacked in a larger one


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
    assert list(report.stages) == ["pgd"]


def test_autoattack_runs_its_parts_in_order(model, data):
    report = evaluate(model, (data[0][:6], data[1][:6]), Linf(0.4), attack="autoattack", **QUIET)
    assert list(report.stages) == ["apgd-ce"]  # no image is left for the others
    assert report.protocol["stages"] == ["apgd-ce", "apgd-t", "fab-t", "square"]
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


def test_an_attack_that_cheats_fools_nothing(model, data):
    def leaves_the_ball(frozen, x, y, ball, **shared):
        return (x + 0.9).clamp(0, 1)

    def leaves_the_box(frozen, x, y, ball, **shared):
        return x + 1e3

    def makes_nan(frozen, x, y, ball, **shared):
        return x * torch.nan

    for attack in (leaves_the_ball, leaves_the_box, makes_nan):
        report = evaluate(model, data, Linf(0.01), attack=attack, **QUIET)
        assert report.robust == report.clean


def test_adversarial_examples_of_the_folded_model_alone_do_not_count_and_are_reported(model, data, monkeypatch):
    class Wrong(nn.Module):
        def forward(self, x):
            return 5 - model(x)

    monkeypatch.setattr("rivals.attacks.frozen_model.fold_batch_norm", lambda *_: Wrong())
    report = evaluate(model, data, Linf(1e-6), attack="noise", **QUIET)
    assert report.protocol["folded"]
    assert report.robust == report.clean
    assert report.stages["noise"].unverified > 100
    assert any("were not confirmed" in note for note in report.notes)


def test_robust_in_8_bits_counts_only_what_survives_rounding(model):
    """A ball smaller than half a step of a byte around images on whole steps: rounding undoes every change."""
    x, y = patterns(120)
    x = (x * 255).round() / 255
    border = evaluate(model, (x, y), Linf(0.3 / 255), attack="pgd(steps=10)", **QUIET)
    assert border.robust_8bit.count == border.clean.count
    wide = evaluate(model, (x, y), Linf(30 / 255), attack="fgsm", **QUIET)
    assert wide.robust_8bit.count == wide.robust.count < wide.clean.count


def test_robust_in_8_bits_is_unknown_once_a_smaller_radius_fools_in_floats_alone():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.full((16,), 100.0), torch.full((16,), -100.0)]))
        net[1].bias.copy_(torch.tensor([-100 * 16 * (100 / 255 - 0.001), 100 * 16 * (100 / 255 - 0.001)]))
    x, y = torch.full((4, 1, 4, 4), 100 / 255), torch.zeros(4, dtype=torch.int64)
    alone = evaluate(net, (x, y), Linf(8 / 255), attack="pgd(steps=10)", **QUIET)
    assert (alone.clean.count, alone.robust.count, alone.robust_8bit.count) == (4, 0, 0)
    # The small ball fools in floats alone, and the large one never meets what it fooled.
    both = evaluate(net, (x, y), Linf(8 / 255), attack="pgd(steps=10)", curve=(0.0015,), **QUIET)
    assert (both.robust.count, both.curve[1][1].count, both.robust_8bit) == (0, 0, None)


# Memory


def test_no_more_images_are_held_for_more_images(model, tmp_path, monkeypatch, request):
    """All image tensors alive are counted after the last step of every chunk, and where images are read."""
    held = []

    def count(*said):
        if said and said[-1]["eps_index"] < 2:
            return
        gc.collect()
        images = [
            each
            for each in gc.get_objects()
            if type(each) is torch.Tensor and each.is_floating_point() and each.shape[1:] == (1, 8, 8)
        ]
        held.append(sum(map(len, images)))

    take, batches = EvalData.take, []

    def counted(self, chosen):
        batches.append(len(chosen))
        count()
        return take(self, chosen)

    monkeypatch.setattr(EvalData, "take", counted)
    monkeypatch.setattr(AttackProgress, "__call__", count)
    gc.collect()
    gc.freeze()  # what is there already is not counted, nor looked through
    request.addfinalizer(gc.unfreeze)
    peaks = []
    for n in (64, 192):
        held.clear()
        settings = {"attack": "fgsm,pgd(steps=2)", "batch_size": 8, "curve": [0.05], "quiet": True, "alarms": False}
        evaluate(model, image_set(n), Linf(0.1), out=tmp_path / str(n), **settings)
        peaks.append(max(held))
    assert 0 < peaks[1] <= peaks[0] < 192
    assert max(batches) == PROBES  # more than a chunk of 32
