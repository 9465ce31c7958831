"""Interpolation, directions and inversion: closed forms of a linear generator, and the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import rivals
from helpers.commands import RunRivals, assert_refused
from helpers.pretend_device import PRETEND, WithoutFloat64
from rivals import UserError
from rivals.api.common.network_io import save_network
from rivals.latent.directions import pca, sefa
from rivals.latent.interpolation import lerp, slerp, walk
from rivals.latent.inversion import invert
from rivals.nets.factory import GAN_NETS, build_generator

WIDTHS = {"mlp": (16,), "dcgan": (6, 5), "sngan": (6, 5, 4), "r3": (8, 8, 8)}


class Linear(nn.Module):
    """A generator whose images are a matrix times the latent."""

    def __init__(self, matrix: Tensor, classes: int = 0) -> None:
        super().__init__()
        self.latent_dim, self.classes, self.channels, self.size = (
            matrix.shape[1],
            classes,
            1,
            math.isqrt(matrix.shape[0]),
        )
        self.first = nn.Linear(matrix.shape[1], matrix.shape[0])
        self.bend = nn.PReLU(init=0.5)
        with torch.no_grad():
            self.first.weight.copy_(matrix)

    def latents(self, n: int, seed: int = 0, truncation: float = 1.0) -> Tensor:
        return truncation * torch.randn(n, self.latent_dim, generator=torch.Generator().manual_seed(seed % 2**31))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.bend(self.first(z)).view(len(z), 1, self.size, self.size)


def stretched(scales: list[float], rows: int = 64) -> tuple[Linear, Tensor]:
    """A linear generator with known singular vectors, and those of the latent side, one a row."""
    random = torch.Generator().manual_seed(3)
    left = torch.linalg.qr(torch.randn(rows, len(scales), generator=random))[0]
    right = torch.linalg.qr(torch.randn(len(scales), len(scales), generator=random))[0]
    return Linear(left @ torch.diag(torch.tensor(scales)) @ right.T), right.T


def small(net: str, classes: int = 0) -> rivals.nets.generator.Generator:  # type: ignore[name-defined]
    torch.manual_seed(0)
    made = build_generator(net, size=16, channels=3, classes=classes, latent_dim=6, widths=WIDTHS[net])
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made.eval()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.floats(0, 1), st.integers(0, 1000))
def test_slerp_interpolates_lengths_and_angles_linearly(size: int, t: float, seed: int) -> None:
    start, end = torch.randn(2, size, dtype=torch.double, generator=torch.Generator().manual_seed(seed))
    point = slerp(start, end, torch.tensor([t], dtype=torch.double))
    assert point.norm().item() == pytest.approx((1 - t) * start.norm().item() + t * end.norm().item(), rel=1e-6)

    def angle(a: Tensor, b: Tensor) -> float:
        return math.acos(max(-1, min(1, torch.cosine_similarity(a, b, dim=0).item())))

    if math.sin(angle(start, end)) > 1e-3:
        assert angle(start, point) == pytest.approx(t * angle(start, end), abs=1e-5)


def test_walks_pass_their_waypoints_and_invalid_ones_are_refused() -> None:
    waypoints = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    for interpolation in ("sphere", "line"):
        closed, opened = walk(waypoints, 4, interpolation), walk(waypoints, 4, interpolation, closed=False)
        assert closed.shape == (12, 5) and opened.shape == (9, 5)
        assert torch.allclose(closed[::4], waypoints, atol=1e-6) and torch.allclose(opened[::4], waypoints, atol=1e-6)
    twins = torch.ones(2, 5)
    assert torch.allclose(walk(twins, 3), torch.ones(6, 5))
    assert torch.allclose(lerp(waypoints[0], waypoints[1], torch.tensor(0.5)), waypoints[:2].mean(0), atol=1e-6)
    with pytest.raises(UserError, match="unknown interpolation 'arc'"):
        walk(waypoints, 4, "arc")
    with pytest.raises(UserError, match="make no path"):
        walk(waypoints[:1], 4, closed=False)


def test_sefa_finds_the_singular_vectors_of_the_first_layer() -> None:
    generator, vectors = stretched([5.0, 3.0, 1.0, 0.5])
    found = sefa(generator, 3)
    assert torch.allclose(found.strengths, torch.tensor([5.0, 3.0, 1.0]), rtol=1e-4)
    assert torch.allclose((found.vectors * vectors[:3]).sum(1).abs(), torch.ones(3), atol=1e-4)


def test_directions_are_found_on_a_device_without_float64() -> None:
    generator = small("mlp").to(PRETEND)
    with WithoutFloat64():
        for found in (sefa(generator, 2), pca(generator, 2, samples=8)):
            assert found.vectors.device == found.strengths.device == PRETEND
            assert found.vectors.dtype == torch.float32


def test_pca_takes_as_many_samples_as_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, _ = stretched([5.0, 3.0, 1.0, 0.5])
    whole, fewer = (pca(generator, 3, depth=0, samples=n) for n in (400, 100))
    entries = generator(generator.latents(1, 0)).numel()
    monkeypatch.setattr("rivals.latent.directions.MOST_ENTRIES", 100 * entries)
    limited = pca(generator, 3, depth=0, samples=400)
    assert not torch.allclose(limited.strengths, whole.strengths)
    # The latents are the first of those that would have been taken.
    assert limited.strengths == pytest.approx(fewer.strengths, rel=0.3)


def test_pca_of_the_first_layer_finds_the_singular_vectors_too() -> None:
    generator, vectors = stretched([5.0, 3.0, 1.0, 0.5])
    found = pca(generator, 3, depth=0, samples=4000)
    assert torch.allclose(found.strengths, torch.tensor([5.0, 3.0, 1.0]), rtol=0.05)
    assert (found.vectors * vectors[:3]).sum(1).abs().min() > 0.98
    assert torch.equal(found.vectors, pca(generator, 3, depth=0, samples=4000).vectors)


@pytest.mark.parametrize("net", list(GAN_NETS))
@pytest.mark.parametrize("classes", [0, 3])
def test_directions_of_every_generator_leave_it_unchanged(net: str, classes: int) -> None:
    generator = small(net, classes)
    before = {key: value.clone() for key, value in generator.state_dict().items()}
    for found in (sefa(generator, 4), pca(generator, 4, samples=64)):
        assert found.vectors.shape == (4, 6) and found.strengths.shape == (4,)
        assert torch.allclose(found.vectors.norm(dim=1), torch.ones(4), atol=1e-4)
        assert bool((found.strengths.diff() <= 1e-6).all()) and found.strengths[0] > 0
    assert all(torch.equal(value, before[key]) for key, value in generator.state_dict().items())
    assert all(weight.requires_grad and weight.grad is None for weight in generator.parameters())
    # The first direction moves the first layer more than any latent axis does on average.
    step = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    step = step / step.norm(dim=1, keepdim=True)
    assert sefa(generator, 1).strengths[0] >= sefa(generator, 6).strengths.square().mean().sqrt() - 1e-5
    with pytest.raises(UserError, match="7 directions"):
        sefa(generator, 7)
    with pytest.raises(UserError, match="no layer 99"):
        pca(generator, 2, depth=99, samples=16)


@pytest.mark.parametrize("net", ["mlp", "dcgan"])
def test_generated_images_are_inverted(net: str) -> None:
    generator = small(net)
    with torch.no_grad():
        images = (generator(generator.latents(2, 5)) + 1) / 2
    found = invert(generator, images, starts=4, steps=150)
    assert found.latents.shape == (2, 6) and found.start_errors.shape == (2, 4)
    spread = (images - images.mean(0)).square().mean().sqrt()
    assert found.errors.max() < 0.2 * spread
    assert torch.equal(found.errors, found.start_errors.amin(1))
    alone = invert(generator, images[:1], starts=4, steps=150)
    assert torch.allclose(alone.errors, found.errors[:1], atol=1e-5)
    assert all(weight.grad is None for weight in generator.parameters())


def test_inversion_limits_the_length_of_latents() -> None:
    generator, _ = stretched([0.01] * 4)  # no latent of this length is bright enough
    found = invert(generator, torch.ones(1, 1, 8, 8), starts=2, steps=100)
    assert 4 < found.latents.norm() <= 2 + 2.2 + 1e-4
    with pytest.raises(UserError, match=r"do not fit a generator of 1x8x8"):
        invert(generator, torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match="search nothing"):
        invert(generator, torch.zeros(1, 1, 8, 8), starts=0)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(0, 1, 8, 8), "there are no images to invert: give 1 or more"),
        (torch.full((2, 1, 8, 8), 200, dtype=torch.uint8), r"of type uint8 .* images\.float\(\) / 255"),
        (torch.full((1, 1, 8, 8), 40.0), r"from 40 to 40 .* \[0, 1\]"),
        (torch.full((1, 1, 8, 8), -0.5), r"from -0\.5 to -0\.5"),
        (torch.full((1, 1, 8, 8), torch.nan), "from nan to nan"),
    ],
)
def test_images_that_no_error_can_be_measured_by_are_refused(images: Tensor, said: str) -> None:
    generator, _ = stretched([1.0] * 4)
    with pytest.raises(UserError, match=said) as caught:
        invert(generator, images, starts=1, steps=1)
    assert "\n" not in str(caught.value)


def test_explore_on_the_command_line(tmp_path: Path, run_rivals: RunRivals) -> None:
    file = tmp_path / "generator.safetensors"
    save_network(small("dcgan", 3), file, {"classes": ["a", "b", "c"]})
    wanted = {
        "walk": ["walk.gif", "walk.png"],
        "classes": ["classes.png"],
        "sefa": ["direction-0.png", "direction-1.png", "directions.safetensors"],
        "pca": ["direction-0.png", "direction-1.png", "directions.safetensors"],
    }
    for what, files in wanted.items():
        count = ["--count", "2"] if what in ("sefa", "pca") else []
        status, out, _ = run_rivals("explore", str(file), what, "-n", "2", *count, "--json")
        result = json.loads(out)
        assert status == 0 and result["files"] == files
        assert all((Path(result["folder"]) / name).stat().st_size > 100 for name in files)
    rivals.explore(str(file), "walk", n=2, out=tmp_path / "w")
    images = tmp_path / "pictures"
    rivals.sample(str(file), n=2, folder=images)
    (images / "broken.png").write_bytes(b"half")
    words = ["explore", str(file), "invert", "--images", str(images), "--steps", "20", "--label", "b", "--json"]
    assert "broken.png" in assert_refused(run_rivals(*words), "--skip-bad")
    words.append("--skip-bad")
    status, out, _ = run_rivals(*words)
    assert status == 0 and len(json.loads(out)["errors"]) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["walk", "-n", "0"], "ask for 1 or more"),
        (["classes"], "train it with --conditional"),
        (["invert"], "invert needs --images"),
        (["sefa", "--count", "7"], "7 directions"),
        (["walk", "--out", "."], "exists already"),
        (["twist"], "twist"),
        (["walk", "--skip-bad"], "--skip-bad has no meaning for walk: leave it out"),
        (["walk", "--depth", "2"], "--depth has no meaning for walk: leave it out"),
        (["invert", "--images", ".", "--reach", "1"], "--reach has no meaning for invert"),
    ],
)
def test_invalid_requests_are_refused_in_one_line(
    words: list[str], said: str, tmp_path: Path, run_rivals: RunRivals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_network(small("mlp"), tmp_path / "generator.safetensors", {})
    status, out, err = run_rivals("explore", "generator.safetensors", *words)
    assert status == 2 and said in err and len(err.strip().splitlines()) == 1 and out == ""


def test_components_are_those_of_the_class_that_is_asked_for() -> None:
    generator = small("dcgan", 3)
    with torch.no_grad():
        for weight in generator.parameters():  # the classes begin alike
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    first, second, other = (pca(generator, 2, depth=2, samples=64, label=label).vectors for label in (0, 0, 2))
    assert torch.equal(first, second) and not torch.allclose(first, other, atol=1e-3)


def test_images_are_inverted_with_their_own_classes(tmp_path: Path, run_rivals: RunRivals) -> None:
    save_network(small("dcgan", 3), tmp_path / "generator.safetensors", {"classes": ["a", "b", "c"]})
    for name in ("c", "b"):
        rivals.sample(str(tmp_path / "generator.safetensors"), n=1, folder=tmp_path / "sorted" / name)
    words = ["explore", str(tmp_path / "generator.safetensors"), "invert", "--steps", "2", "--json", "--images"]
    done = run_rivals(*words, str(tmp_path / "sorted"), "--out", str(tmp_path / "one"))
    assert done.status == 0, done.err
    flat = tmp_path / "sorted" / "c"
    assert_refused(run_rivals(*words, str(flat), "--out", str(tmp_path / "two")), "has no classes", "--label")
    wrong = tmp_path / "sorted" / "d"
    flat.rename(wrong)
    assert_refused(run_rivals(*words, str(tmp_path / "sorted"), "--out", str(tmp_path / "two")), "'d'")
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        wrong.rename(flat)
        patch.setattr("rivals.latent.inversion.invert", lambda *a, labels, **k: seen.append(labels) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rivals.explore(str(tmp_path / "generator.safetensors"), "invert", images=str(tmp_path / "sorted"))
    assert seen[0].tolist() == [1, 2]


def test_an_unknown_exploration_is_one_line():
    with pytest.raises(UserError, match="unknown exploration 'pcaa': did you mean pca"):
        rivals.explore("r", "pcaa")
