"""Universal perturbations and patches: geometry, closed forms, and that they carry over to images not learned on."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.models import centered_linear_model, conv_model, linear_model
from helpers.refusals import named
from rivals import L0, L2, Linf, UserError
from rivals.api import attack
from rivals.api.common.network_io import save_network
from rivals.attacks import Placement, adversarial_patch, apply_patch, universal_perturbation
from rivals.base.rng import generator
from rivals.nets.factory import build_classifier


@pytest.mark.parametrize("ball", [Linf(0.1), L2(1.0)], ids=str)
def test_a_universal_perturbation_is_within_eps_and_fools_images_that_it_was_not_learned_on(ball):
    model, x, y = conv_model(3, n=120)
    delta = universal_perturbation(model, x[:60], y[:60], ball, steps=60)
    assert delta.shape == (1, 3, 6, 6)
    assert ball.distance(delta, torch.zeros_like(delta)) <= float(ball.eps) * (1 + 1e-6)
    others = (x[60:] + delta).clamp(0, 1)
    random = (x[60:] + delta.flatten()[torch.randperm(108, generator=generator("p"))].view_as(delta)).clamp(0, 1)
    fooled, by_chance = ((model(each).argmax(1) != y[60:]).double().mean() for each in (others, random))
    assert fooled > by_chance + 0.1
    assert torch.equal(universal_perturbation(model, x[:60], y[:60], ball, steps=60), delta)


def test_of_a_linear_model_with_one_label_it_is_the_closed_form():
    model, x, y = centered_linear_model(2)
    y = torch.zeros_like(y)
    delta = universal_perturbation(model, x, y, Linf(0.05), steps=60)
    expected = 0.05 * (model[1].weight[1] - model[1].weight[0]).sign().view_as(delta)
    assert torch.allclose(delta, expected.detach(), atol=1e-6)


def test_masks_hold_for_universal_perturbations_too():
    model, x, y = conv_model(n=10)
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[:2] = True
    delta = universal_perturbation(model, x, y, Linf(0.1), steps=5, mask=mask)
    assert not delta[:, :, 2:].any()
    assert delta[:, :, :2].any()


@pytest.mark.parametrize("width", [40, 64])
def test_a_patch_is_a_disk_of_its_size_inside_the_image_and_the_rest_stays(width):
    x, patch = torch.zeros(50, 3, 40, width), torch.ones(3, 9, 9)
    placement = Placement(0.2, 0.5, 180)
    u = placement.draw(50, generator("place"))
    made = apply_patch(x, patch, placement, u)
    area = made[:, 0].sum((1, 2))
    side = (0.2 + 0.3 * u[:, 0]) * 40
    assert torch.allclose(area, torch.pi / 4 * side**2, rtol=0.1)
    assert ((made.abs() < 1e-6) | ((made - 1).abs() < 1e-6)).all()
    rows = torch.arange(40.0) + 0.5
    center = (made[:, 0].sum(2) * rows).sum(1) / area
    assert torch.allclose(center, 20 + (40 - side) / 2 * (2 * u[:, 2] - 1), atol=0.3)
    assert not made[:, :, [0, -1]].all(3).any()
    tall, wide = (made[:, 0].any(dim).sum(1) for dim in (2, 1))
    assert ((tall - side).abs() <= 1).all() and ((wide - side).abs() <= 1).all()
    columns = torch.arange(float(width)) + 0.5
    center = (made[:, 0].sum(1) * columns).sum(1) / area
    assert torch.allclose(center, width / 2 + (width - side) / 2 * (2 * u[:, 3] - 1), atol=0.3)


def test_a_patch_is_turned_by_its_angle():
    half = torch.zeros(1, 20, 20)
    half[:, :10] = 1  # the upper half
    x = torch.full((1, 1, 40, 40), 0.5)
    upright = apply_patch(x, half, Placement(0.9, 0.9, 90), torch.tensor([[0, 0.5, 0.5, 0.5]]))
    turned = apply_patch(x, half, Placement(0.9, 0.9, 90), torch.tensor([[0, 1.0, 0.5, 0.5]]))
    assert torch.allclose(torch.rot90(upright, 1, (2, 3)), turned, atol=0.05) or torch.allclose(
        torch.rot90(upright, -1, (2, 3)), turned, atol=0.05
    )
    assert not torch.allclose(upright, turned, atol=0.05)


def test_a_targeted_patch_is_seen_as_its_target_at_new_places_on_new_images():
    model, x, y = conv_model(4, n=80)
    targets = torch.full_like(y, 2)
    placement = Placement(0.5, 0.7, 20)
    patch = adversarial_patch(model, x[:40], y[:40], placement=placement, targets=targets[:40], steps=60)
    assert (patch.min() >= 0) and (patch.max() <= 1)
    u = placement.draw(40, generator("new"))
    seen = (model(apply_patch(x[40:], patch, placement, u)).argmax(1) == 2).double().mean()
    gray = (model(apply_patch(x[40:], torch.full_like(patch, 0.5), placement, u)).argmax(1) == 2).double().mean()
    assert seen > gray + 0.15


def test_bad_input_is_refused_in_one_line():
    model, x, y = conv_model(n=4)
    with named("a patch of 0.5 to 0.2 of the image's side cannot be"):
        Placement(0.5, 0.2)
    with named("universal_perturbation is an attack in Linf, L2 or L1"):
        universal_perturbation(model, x, y, L0(3))
    flat, x, y = linear_model(2, (7,))
    with named("to hold a patch, they must be (n, C, H, W)"):
        adversarial_patch(flat, x, y)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    home, random = tmp_path_factory.mktemp("place"), np.random.default_rng(0)
    for i in range(16):
        path = home / "photos" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(
            build_classifier("cnn", size=16, channels=3, classes=2, widths=(4,)),
            home / "classifier.safetensors",
            {"classes": ["0", "1"]},
        )
    return home


@pytest.mark.parametrize("text", ["patch(steps=5,mm=40)", "universal(steps=5)"])
def test_from_the_command_line_the_picture_lies_beside_the_run(place, tmp_path, text):
    out = tmp_path / "run"
    report = attack(str(place / "classifier.safetensors"), str(place / "photos"), attack=text, out=out, quiet=True)
    assert (report.clean.of, report.learned_on) == (8, 8)
    name = text.partition("(")[0]
    with Image.open(out / f"{name}.png") as picture:
        if name == "patch":
            assert picture.width / picture.info["dpi"][0] * 25.4 == pytest.approx(40, rel=0.01)
        else:
            assert picture.size == (16, 16)
    results = json.loads((out / "run.json").read_text())["results"]
    assert results["attacked"]["of"] == 8
    assert name in (out / "report.html").read_text()
    with named("mm of 0 cannot work"):
        attack(str(place / "classifier.safetensors"), str(place / "photos"), attack="patch(mm=0)", quiet=True)
    with named("unknown option of patch 'stps': did you mean steps"):
        attack(str(place / "classifier.safetensors"), str(place / "photos"), attack="patch(stps=3)", quiet=True)


def test_a_universal_perturbation_of_a_radius_per_image_is_refused():
    model, x, y = conv_model(n=4)
    with pytest.raises(UserError, match="one radius, and eps has 4: give a number"):
        universal_perturbation(model, x, y, Linf(torch.full((4,), 0.1)), steps=1)
