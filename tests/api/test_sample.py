"""``rivals sample`` writes the format that a name says, or nothing."""

import pytest
from PIL import Image

import rivals
from helpers.commands import assert_refused
from rivals.api.common.network_io import save_network
from rivals.nets.factory import build_generator


@pytest.fixture
def generator(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = build_generator("mlp", size=8, channels=3, classes=0, widths=(4,), latent_dim=4)
    save_network(net, tmp_path / "generator.safetensors", {})
    return "generator.safetensors"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP"), ("a.bmp", "BMP"), ("a.tif", "TIFF")],
)
def test_a_grid_has_the_format_of_its_name(generator, run_rivals, name, kind):
    assert run_rivals("sample", generator, "-n", 4, "--grid", name).status == 0
    with Image.open(name) as grid:
        assert grid.format == kind


@pytest.mark.parametrize(("name", "kind"), [("a.gif", "GIF"), ("a.webp", "WEBP"), ("a.apng", "PNG"), ("a.PNG", "PNG")])
def test_an_animation_has_the_format_of_its_name(generator, run_rivals, name, kind):
    assert run_rivals("sample", generator, "-n", 2, "--gif", name).status == 0
    with Image.open(name) as film:
        assert (film.format, film.n_frames) == (kind, 40)


def test_places_may_be_words_in_python(generator, tmp_path):
    assert rivals.sample(generator, n=2, grid="a.png", folder="b", device="cpu")
    assert (tmp_path / "a.png").exists() and len(list((tmp_path / "b").glob("*.png"))) == 2
    written = rivals.export(generator, format="safetensors", out="c.safetensors")
    assert (tmp_path / written["file"]).exists()
    assert rivals.explore(generator, "walk", out="d", device="cpu")
    assert (tmp_path / "d").is_dir()


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--grid", "a.mp4"),
        ("--grid", "a.gif"),
        ("--grid", "grid"),
        ("--gif", "a.mp4"),
        ("--gif", "a.jpg"),
        ("--gif", "b"),
    ],
)
def test_another_format_is_refused_before_anything_is_generated(generator, run_rivals, tmp_path, flag, name):
    files = sorted(tmp_path.iterdir())
    assert_refused(run_rivals("sample", "nothing", flag, name), f"cannot write '{name}'", ".png", ".webp")
    assert sorted(tmp_path.iterdir()) == files
