from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rivals.base.errors import UserError
from rivals.reports.image_grid import BACKGROUND, columns_for, make_grid, save_animation, save_folder, save_png


def flat(*grays: int, channels: int = 1, side: int = 2) -> np.ndarray:
    """Images of one gray each."""
    images = np.array(grays, np.uint8)[:, None, None, None]
    return np.broadcast_to(images, (len(grays), channels, side, side)).copy()


def test_every_pixel_of_a_small_grid() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2)
    g = BACKGROUND
    expected = [
        [0, 1, g, 4, 5],
        [2, 3, g, 6, 7],
        [g, g, g, g, g],
        [8, 9, g, g, g],
        [10, 11, g, g, g],
    ]
    assert np.asarray(make_grid(images, columns=2, gap=1, scale=1)).tolist() == expected


def test_enlarging_repeats_pixels_and_keeps_colors() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2) * 20
    picture = np.asarray(make_grid(image, scale=3))
    assert picture.shape == (6, 6, 3)
    assert (picture == image[0].transpose(1, 2, 0).repeat(3, axis=0).repeat(3, axis=1)).all()


@given(
    n=st.integers(1, 30),
    columns=st.integers(1, 8),
    gap=st.integers(0, 3),
    scale=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 4]),
)
def test_size_and_mode_of_a_grid(n: int, columns: int, gap: int, scale: int, channels: int) -> None:
    images = np.zeros((n, channels, 2, 3), np.uint8)
    picture = make_grid(images, columns, gap, scale)
    rows = -(-n // columns)
    assert picture.size == (columns * 3 * scale + (columns - 1) * gap, rows * 2 * scale + (rows - 1) * gap)
    assert picture.mode == ("L" if channels == 1 else "RGB")


@given(st.integers(1, 10_000))
def test_layout_is_nearly_square(n: int) -> None:
    columns = columns_for(n)
    rows = -(-n // columns)
    assert columns * rows >= n > columns * (rows - 1)
    assert rows <= columns <= 1.5 * math.ceil(math.sqrt(n))


def test_a_full_last_row_is_preferred() -> None:
    assert [columns_for(n) for n in (1, 4, 12, 48, 64, 100)] == [1, 2, 4, 8, 8, 10]


@pytest.mark.parametrize(
    ("side", "n", "cell"), [(28, 64, 56), (32, 64, 64), (128, 64, 128), (28, 1, 252), (16, 16, 128)]
)
def test_small_images_are_enlarged(side: int, n: int, cell: int) -> None:
    assert make_grid(np.zeros((n, 1, side, side), np.uint8), gap=0).width == cell * columns_for(n)


def test_alpha_shows_a_checkerboard() -> None:
    images = np.zeros((1, 4, 16, 16), np.uint8)
    images[:, 0] = 200
    images[:, 3, :, 8:] = 255
    picture = np.asarray(make_grid(images, scale=1))
    assert {tuple(pixel) for pixel in picture[:, :8].reshape(-1, 3)} == {(255, 255, 255), (204, 204, 204)}
    assert (picture[:, 8:] == (200, 0, 0)).all()


def test_half_transparent_is_rounded_to_nearest() -> None:
    images = np.array([101, 101, 101, 128], np.uint8).reshape(1, 4, 1, 1)
    assert np.asarray(make_grid(images, scale=1))[0, 0, 0] == round((101 * 128 + 255 * 127) / 255)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 1, 4, 4), np.float32),
        np.zeros((2, 2, 4, 4), np.uint8),
        np.zeros((1, 4, 4), np.uint8),
        np.zeros((0, 1, 4, 4), np.uint8),
    ],
)
def test_wrong_type_or_shape_is_refused(images: np.ndarray) -> None:
    with pytest.raises(UserError, match=rf"{images.dtype}.*cannot be shown"):
        make_grid(images)


@pytest.mark.parametrize("bad", [{"columns": 0}, {"gap": -1}, {"scale": 0}])
def test_numbers_out_of_range_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(UserError):
        make_grid(flat(1), **bad)


def test_png_keeps_pixels_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    picture = make_grid(np.arange(48, dtype=np.uint8).reshape(4, 3, 2, 2))
    save_png(picture, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as read:
        assert np.array_equal(np.asarray(read), np.asarray(picture))
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_folder_of_images_keeps_pixels_and_mode(tmp_path: Path, channels: int, mode: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, channels, 5, 5), np.uint8)
    save_folder(images, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png", "000002.png"]
    with Image.open(tmp_path / "out" / "000002.png") as read:
        assert read.mode == mode
        assert np.array_equal(np.asarray(read).reshape(5, 5, channels), images[2].transpose(1, 2, 0))


def test_nonempty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        save_folder(flat(1, 2), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="exists already"):
        save_folder(flat(1, 2), tmp_path / "mine.txt")


def test_gif_loops_and_keeps_its_frames(tmp_path: Path) -> None:
    grays = (0, 60, 120, 180, 240)
    save_animation([make_grid(flat(gray, side=8)) for gray in grays], tmp_path / "film.gif", milliseconds=50)
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.n_frames, film.info["loop"], film.info["duration"]) == (5, 0, 50)
        seen = []
        for i in range(film.n_frames):
            film.seek(i)
            seen.append(film.convert("L").getpixel((3, 3)))
    assert seen == list(grays)


def test_invalid_gifs_are_refused(tmp_path: Path) -> None:
    small, large = make_grid(flat(1), scale=1), make_grid(flat(1), scale=2)
    for frames, milliseconds in (([], 60), ([small, large], 60), ([small], 5)):
        with pytest.raises(UserError):
            save_animation(frames, tmp_path / "film.gif", milliseconds)
    assert not list(tmp_path.iterdir())
