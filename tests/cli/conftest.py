"""What the tests of the command line share: a folder of images, and a run trained on it."""

import numpy as np
import pytest
from PIL import Image

from helpers.commands import TINY, call_main


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 30 color images of 16 x 16 in two classes."""
    home = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(30):
        path = home / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return home


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photos):
    """A finished run on the photos."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert call_main(("train", photos, "--out", folder, "--until", "12 steps", "--quiet", *TINY)) == 0
    return folder


@pytest.fixture(scope="module")
def classified(tmp_path_factory, photos):
    """A finished classifier of the photos."""
    folder = tmp_path_factory.mktemp("classified") / "run"
    words = ("classify", photos, "--out", folder, "--until", "2 steps", "--batch-size", "8", "--widths", "4", "--quiet")
    assert call_main(words) == 0
    return folder
