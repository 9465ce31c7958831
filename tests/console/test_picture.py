"""Small images in a terminal, and their place above the bar."""

import numpy as np
import pytest
from rich.console import Console

from rivals.base.duration import Duration
from rivals.console import bars
from rivals.console.picture import strip
from rivals.console.training_progress import TrainingProgress


def pixels_of(text):
    """The colors that a strip shows, (H, W, 3), with NaN between images."""
    rows = []
    for line in text.split("\n"):
        cells = [(segment.text[0], segment.style) for segment in line.render(Console()) if segment.text.strip("\n")]
        upper, lower = [], []
        for letter, style in cells:
            there = letter != " "
            upper.append(tuple(style.color.triplet) if there else (np.nan,) * 3)
            lower.append(tuple(style.bgcolor.triplet) if there and style.bgcolor else (np.nan,) * 3)
        rows += [upper, lower]
    return np.array(rows, float)


def test_images_are_side_by_side_with_their_own_pixels():
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), np.uint8)
    shown = pixels_of(strip(images, 14))  # two of 4 and a gap each: three fit
    assert shown.shape == (4, 14, 3)
    for index in range(3):
        assert np.array_equal(shown[:, 5 * index : 5 * index + 4], images[index].transpose(1, 2, 0))
    assert np.isnan(shown[:, [4, 9]]).all()


@pytest.mark.parametrize(("side", "lines"), [(28, 7), (32, 8), (64, 8), (17, 4), (8, 4)])
def test_large_images_are_averaged_down(side, lines):
    image = np.full((1, 1, side, side), 7, np.uint8)
    text = strip(image, 40)
    assert text.plain.count("\n") + 1 == lines
    assert np.nanmin(pixels_of(text)) == np.nanmax(pixels_of(text)) == 7


def test_alpha_is_over_white_and_an_odd_height_ends_in_half_a_line():
    image = np.zeros((1, 4, 3, 5), np.uint8)
    image[0, 3, 0] = 255
    shown = pixels_of(strip(image, 5))
    assert shown[0].max() == 0 and shown[1:3].min() == 255 and np.isnan(shown[3]).all()
    assert strip(image, 4).plain == ""  # none fits


@pytest.mark.parametrize("colors", ["truecolor", "256", None])
def test_samples_are_shown_above_the_bar_of_a_terminal_with_colors(monkeypatch, colors):
    options = {"force_terminal": True, "color_system": colors, "width": 60, "height": 30}
    monkeypatch.setattr(bars, "_Console", lambda **given: Console(**{**given, **options}))
    samples = np.full((9, 1, 8, 8), 200, np.uint8)
    with TrainingProgress(Duration(100, "images"), 50, samples=lambda: samples) as bar:
        bar({"images": 8, "step": 1, "seconds": 0.1, "sample_grid": "samples/8.png", "diversity": 1.0})
        shown = [*bar._progress.get_renderables()]
    assert len(shown) == (2 if colors else 1)
    if colors:
        assert shown[0].plain.splitlines()[0].count("\u2580") == 6 * 8  # six fit


def test_nothing_is_drawn_elsewhere(capsys):
    with TrainingProgress(Duration(100, "images"), 50, samples=lambda: pytest.fail("drawn")) as bar:
        bar({"images": 8, "step": 1, "seconds": 0.1, "sample_grid": "samples/8.png"})
    assert capsys.readouterr().err == ""
