"""Attacks, radii and models as text."""

import pytest
import torch

from helpers.refusals import named
from rivals import L0, Linf
from rivals.api.common.model_zoo import find_model
from rivals.api.robustness.attack_spec import read_attack, read_radii, write_radii
from rivals.base.size import Size


@pytest.mark.parametrize("text", ["8/255", "0.03", "1/255,2/255,8/255", "0.1,0.25,1.0", "1e-3,0.3"])
def test_radii_are_read_and_written(text):
    radii = read_radii(text)
    assert radii == sorted(radii)
    assert read_radii(write_radii(radii)) == radii
    assert read_radii(f"{text},0,{text}") == radii


def test_attacks_are_parsed_with_their_options():
    parts = read_attack("fgsm, pgd(steps=7, step_size=0.2,random_start=false,loss=dlr),noise(kind=gaussian)", Linf(0.1))
    assert [part.name for part in parts] == [
        "fgsm",
        "pgd(steps=7, step_size=0.2,random_start=false,loss=dlr)",
        "noise(kind=gaussian)",
    ]
    assert parts[1].attack.keywords == {"steps": 7, "step_size": 0.2, "random_start": False, "loss": "dlr"}


def test_pixels_are_counted_where_a_mask_fits_images_of_one_shape():
    mask = torch.ones(5, 7, dtype=torch.bool)
    (part,) = read_attack("sparse_rs(shape=patch)", L0(4, pixels=True).masked(mask))
    assert part.attack.keywords == {"shape": "patch"}
    with named("a patch is made of pixels"):
        read_attack("sparse_rs(shape=patch)", L0(4).masked(mask))


BAD = {
    "not a radius": (lambda: read_radii("8/"), ["eps '8/'", "8/255"]),
    "a negative radius": (lambda: read_radii("-1"), ["'-1'"]),
    "no radius but 0": (lambda: read_radii("0"), ["eps of 0"]),
    "an unknown attack": (lambda: read_attack("pgdd", Linf(0.1)), ["unknown attack 'pgdd'", "pgd"]),
    "an unknown version": (lambda: read_attack("autoattack-swfit", Linf(0.1)), ["unknown version"]),
    "an unknown option": (lambda: read_attack("pgd(stpes=3)", Linf(0.1)), ["unknown option of pgd 'stpes'", "steps"]),
    "an option without a value": (lambda: read_attack("pgd(steps)", Linf(0.1)), ["'steps' sets no option"]),
    "a word for a number": (lambda: read_attack("pgd(steps=many)", Linf(0.1)), ["steps=many", "whole number"]),
    "a half step": (lambda: read_attack("pgd(steps=1.5)", Linf(0.1)), ["steps=1.5"]),
    "an open parenthesis": (lambda: read_attack("pgd(steps=3", Linf(0.1)), ["does not name an attack"]),
    "an attack twice": (lambda: read_attack("pgd,pgd", Linf(0.1)), ["named twice"]),
    "options of autoattack": (lambda: read_attack("autoattack(steps=1)", Linf(0.1)), ["no options"]),
    "an unknown model of torchvision": (lambda: find_model("torchvision:resnet81"), ["resnet81", "resnet18"]),
    "unknown weights": (lambda: find_model("torchvision:resnet18:IMAGENET"), ["IMAGENET", "IMAGENET1K_V1"]),
    "an unknown hub": (lambda: find_model("hub:resnet"), ["'hub:resnet' is not a model", "torchvision:NAME"]),
    "a missing file": (lambda: find_model("gone/classifier.safetensors"), ["there is no model 'gone/"]),
    "no model": (lambda: find_model(3), ["the model is a int"]),
}


@pytest.mark.parametrize("case", BAD)
def test_unreadable_text_is_refused_in_one_line(case):
    call, parts = BAD[case]
    with named(*parts) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_model_of_torchvision_takes_its_weights_normalization(monkeypatch):
    from torchvision.models import ResNet18_Weights, resnet18

    fresh = resnet18().state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: fresh)
    found = find_model("torchvision:resnet18")
    assert (found.name, found.size, found.channels) == ("torchvision:resnet18:IMAGENET1K_V1", Size(224, 224), 3)
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


def test_missing_timm_is_reported(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with named("timm:resnet18", "pip install timm"):
        find_model("timm:resnet18")
